"""Frames with known scores, and the events that a scan over all of them gives."""

from pathlib import Path
from typing import Any

import lance
import numpy as np
import pyarrow as pa

from pipeline.grid import Grid, window_starts
from pipeline.index import journal
from pipeline.search.events import Levels, read_events
from pipeline.search.tables import open_table
from tests.helpers.tables import Vectors, write_index

GRID = Grid(250, 10)
QUERY = np.zeros(8, np.float32)
QUERY[0] = 1.0
"""The dot product of a frame with it is the first value of the frame."""


def write_vectors(path: Path, vectors: dict[str, Vectors], *options: Any) -> tuple[Any, Any]:
    """An index of files with these frames (F, 8); returns its frames and files."""
    audios = {
        uri: (frames, np.zeros((len(window_starts(len(frames), GRID)), 8), np.float16))
        for uri, frames in vectors.items()
    }
    write_index(path, audios, GRID, *options)
    versions = journal.read_published(path).versions
    return open_table(str(path), "frames", versions["frames"]), open_table(str(path), "files", versions["files"])


def write_scores(
    path: Path, scores: dict[str, Any], copies: dict[str, str] | None = None, metadata: pa.Table | None = None
) -> tuple[Any, Any]:
    """An index whose frames have these dot products with QUERY; returns its frames and files."""
    rng = np.random.default_rng(0)
    vectors = {uri: rng.standard_normal((len(values), 8)).astype(np.float16) for uri, values in scores.items()}
    for uri, values in scores.items():
        vectors[uri][:, 0] = values
    return write_vectors(path, vectors, copies, metadata)


PIECE_ROWS = 37


def break_up_frames(path: Path, rng: np.random.Generator | None = None) -> None:
    """Write the frames of an index anew, in fragments of ``PIECE_ROWS``; with ``rng``, in random order."""
    uri = journal.table_uri(path, "frames")
    table = lance.dataset(uri).to_table()
    if rng is not None:
        table = table.take(rng.permutation(len(table)))
    lance.write_dataset(table, uri, mode="overwrite", max_rows_per_file=PIECE_ROWS, max_rows_per_group=PIECE_ROWS)


def plain_events(scores: dict[str, Any], levels: Levels, copies: dict[str, str] | None = None) -> list[Any]:
    """The events of a scan over all scores, best first."""
    everything = dict(scores) | {copy: scores[original] for copy, original in (copies or {}).items()}
    found = [
        (uri, event)
        for uri, values in everything.items()
        for event in read_events(np.asarray(values, np.float32), levels)
    ]
    return sorted(found, key=lambda event: (-event[1].score, event[0], event[1].first))


def quantised(rng: np.random.Generator, n_frames: int) -> Any:
    """Scores with slow swells and sharp spikes, exact in float16, no two peaks alike."""
    swell = 2.0 * np.sin(np.cumsum(rng.uniform(0, 0.2, n_frames)))
    spikes = (rng.random(n_frames) < 0.01) * rng.uniform(0, 3, n_frames)
    return (swell + spikes + rng.normal(0, 0.3, n_frames)).astype(np.float16)


class CountingTable:
    """A table that counts searches, samples, and rows taken by id."""

    def __init__(self, table: Any) -> None:
        self._table = table
        self.n_searches = self.n_rows = self.n_samples = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._table, name)

    def search(self, *arguments: Any, **options: Any) -> Any:
        self.n_searches += 1
        return self._table.search(*arguments, **options)

    def take_offsets(self, offsets: list[int]) -> Any:
        self.n_samples += 1
        return self._table.take_offsets(offsets)

    def take_row_ids(self, row_ids: list[int]) -> Any:
        self.n_rows += len(row_ids)
        return self._table.take_row_ids(row_ids)
