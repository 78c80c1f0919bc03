"""An index to ask, and an encoder that knows what it hears."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

import pipeline
from pipeline.grid import Grid, Waveform, window_starts
from pipeline.search.client import Index
from tests.helpers.tables import write_index

GRID = Grid(250, 10)


class Ear:
    """An audio encoder that remembers how much it was given at once: each embedding tells samples of its window."""

    def __init__(self) -> None:
        self.groups: list[int] = []

    def encode(self, windows: Sequence[Waveform]) -> tuple[npt.NDArray[np.float32], None]:
        self.groups.append(len(windows))
        return np.stack([self.hear(window) for window in windows]), None

    @staticmethod
    def hear(window: Waveform) -> npt.NDArray[np.float32]:
        return np.array([*window[:7], 1.0], np.float32) * np.float32(1 + abs(window[-1]))


def open_with(path: Path, ear: Ear) -> Index:
    opened = pipeline.open(str(path))
    vars(opened)["_audio_encoder"] = ear  # where the index keeps the encoder that it has loaded
    return opened


@pytest.fixture
def index(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    audios = {
        f"/{n}.wav": (
            rng.standard_normal((n, 8)).astype(np.float16),
            rng.standard_normal((len(window_starts(n, GRID)), 8)).astype(np.float16),
        )
        for n in (10, 700)
    }
    write_index(tmp_path / "index", audios, GRID)
    return tmp_path / "index"
