"""Runs without Ray: the stages work in this process, one batch after the other, with a cheap encoder."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from pipeline.config import Config, make_config
from pipeline.encoder.checkpoint import read_identity
from pipeline.grid import Waveform
from pipeline.index.tables import write_rows
from pipeline.run.decode_stage import decode_batch
from pipeline.run.dispatch import Stages
from pipeline.run.encode_stage import Encoder, encode_windows
from pipeline.run.write_stage import write_windows
from tests.helpers.fakes import FakeEncoder, noise, write_wav

DIMENSION = read_identity("earshot-tiny").dimension


class WideEncoder(FakeEncoder):
    """The values of ``FakeEncoder``, at the dimension of the bundled model."""

    def encode(self, windows: Sequence[Waveform]) -> tuple[Any, list[Any] | None]:
        clips, frames = super().encode(windows)
        wide = [np.pad(rows, ((0, 0), (0, DIMENSION - rows.shape[1]))) for rows in frames or []]
        return np.pad(clips, ((0, 0), (0, DIMENSION - clips.shape[1]))), None if frames is None else wide


def in_place(encoder: Encoder, before: Callable[[int], None] = lambda number: None) -> Stages:
    """Stages that run here, one batch after the other; ``before`` is called with the number of each."""

    def stages(batches: pa.Table, config: Config, frames_schema: pa.Schema) -> Iterator[dict[str, Any]]:
        for number, planned in enumerate(batches.to_pylist()):
            before(number)
            for block in decode_batch(planned, config.decode, config.window.grid, 3, config.run.max_file_hours):
                encoded = encode_windows(block, encoder)
                yield from write_windows(encoded, frames_schema, partial(write_rows, config.into)).to_pylist()

    return stages


def configure(folder: Path, index: Path, **sections: Any) -> Config:
    sections = {"run": {"batch_s": 12.0}, "window": {"length_s": 2.0, "overlap_s": 0.4}} | sections
    return make_config({"sources": [str(folder)], "into": str(index)} | sections)


def write_sounds(folder: Path, lengths_s: Iterable[float]) -> Path:
    """A folder of sounds of these lengths, no two of them alike."""
    folder.mkdir()
    for number, length_s in enumerate(lengths_s):
        write_wav(folder / f"{number}.wav", noise(length_s, seed=number))
    return folder


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """Eight sounds of different lengths, and a file that is none."""
    folder = write_sounds(tmp_path / "in", (0.5 + 2.3 * number for number in range(8)))
    (folder / "broken.wav").write_text("not a sound")
    return folder
