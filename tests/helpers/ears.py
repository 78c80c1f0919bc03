"""An index to ask, and an encoder whose embeddings tell what it heard."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from pipeline.encoder.checkpoint import ModelIdentity
from pipeline.grid import Grid, Waveform
from pipeline.search.client import Index
from pipeline.search.query_vectors import QueryModels, SoundModel, TextModel
from tests.helpers.tables import draw_vectors, write_index

GRID = Grid(250, 10)


class Ear:
    """An audio encoder whose embeddings hold samples of their windows. ``groups`` counts the windows of each call."""

    def __init__(self) -> None:
        self.groups: list[int] = []

    def encode(self, windows: Sequence[Waveform]) -> tuple[npt.NDArray[np.float32], None]:
        self.groups.append(len(windows))
        return np.stack([self.hear(window) for window in windows]), None

    @staticmethod
    def hear(window: Waveform) -> npt.NDArray[np.float32]:
        return np.array([*window[:7], 1.0], np.float32) * np.float32(1 + abs(window[-1]))


class Reader:
    """A text encoder with one embedding for all texts."""

    def embed(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        return np.ones((len(texts), 8), np.float32)


class FakeModels(QueryModels):
    """In place of the models of an index."""

    def __init__(self, sounds: SoundModel, texts: TextModel) -> None:
        super().__init__("")
        self._ear, self._reader = sounds, texts

    def for_sounds(self, identity: ModelIdentity) -> SoundModel:
        return self._ear

    def for_texts(self, identity: ModelIdentity) -> TextModel:
        return self._reader


def open_with(path: Path | str, ear: SoundModel, reader: TextModel = Reader()) -> Index:
    """The index at ``path``, with these models in place of its own."""
    return Index(str(path), FakeModels(ear, reader))


@pytest.fixture
def index(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    write_index(tmp_path / "index", {f"/{n}.wav": draw_vectors(rng, n, GRID) for n in (10, 700)}, GRID)
    return tmp_path / "index"
