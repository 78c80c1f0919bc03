"""Indexes with many clips, written straight through the store, and a check that a vector index covers each row once."""

from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from pipeline import schema
from pipeline.index.handle import find_index
from pipeline.index.maintenance import refresh_indexes
from pipeline.index.vector_index import VectorIndex, read_index
from pipeline.index.vector_upkeep import VectorUpkeep
from pipeline.index.writer import Batch, Writer
from pipeline.planning.file_rows import deleted_row, empty_row, files_table
from pipeline.schema import Row
from tests.helpers.building import make_here
from tests.helpers.tables import CLIPS, Vectors, create_empty

ALL = 10**6
"""More than the rows and the partitions of any test."""


class ClipTable:
    """An index of files with made-up clips, as a run after the other would write them."""

    def __init__(self, path: Path | str, seed: int = 0) -> None:
        self.path, self.rng = str(path), np.random.default_rng(seed)
        create_empty(path)
        self.rows: dict[str, Row] = {}
        self.vectors: dict[str, Any] = {}
        """By clip, its vector."""
        self._n_runs = 0

    def commit(
        self,
        writer: Writer,
        put: dict[str, int],
        delete: tuple[str, ...] = (),
        kind: Literal["index", "metadata"] = "index",
    ) -> None:
        """Write files with so many clips each, in the place of those that had their names, and delete others."""
        former = [self.rows[uri] for uri in (*put, *delete) if uri in self.rows]
        rows, clips = [deleted_row(self.rows.pop(uri)) for uri in delete], list[pa.Table]()
        for clip_id in [each for row in former for each in row["clip_ids"]]:
            del self.vectors[clip_id]
        for uri, n_clips in put.items():
            content = self.rng.bytes(16).hex()
            row = empty_row(uri, schema.make_audio_id(content)) | {"status": "indexed", "content_hash": content}
            row |= {"duration_s": 1.0, "n_clips": n_clips}
            ids = [schema.make_clip_id(row["file_id"], number) for number in range(n_clips)]
            vectors = self.draw(n_clips)
            self.vectors |= dict(zip(ids, vectors, strict=True))
            rows.append(row)
            clips.append(_clips(row, ids, vectors))
            self.rows[uri] = row | {"clip_ids": ids}
        table = pa.concat_tables([_clips(rows[0], [], np.zeros((0, 8), np.float16)), *clips])
        batch_id = schema.make_batch_id(writer.run_id, writer.published.seq)
        drop = frozenset(row["file_id"] for row in former)
        writer.commit([Batch(batch_id, files_table(rows), table, drop_files=drop, kind=kind)])

    def draw(self, n_clips: int) -> Vectors:
        """The vectors of a file, (n_clips, 8)."""
        return self.rng.standard_normal((n_clips, 8)).astype(np.float16)

    def run(self, put: dict[str, int], delete: tuple[str, ...] = (), vectors: VectorUpkeep | None = None) -> None:
        self._n_runs += 1
        writer = Writer(self.path, f"{self._n_runs:032x}")
        self.commit(writer, put, delete)
        refresh_indexes(writer, vectors or VectorUpkeep(make_here))

    def check(self) -> VectorIndex | None:
        return check_index(find_index(self.path).live.open("clips"), set(self.vectors))


class UnevenTable(ClipTable):
    """Clips whose vectors are of length 1 to ``longest``: where that is 10, the best by dot product hold few of the
    best by cosine."""

    longest = 10.0

    def draw(self, n_clips: int) -> Vectors:
        directions = super().draw(n_clips).astype(np.float32)
        directions /= np.linalg.norm(directions, axis=1, keepdims=True)
        return (directions * self.longest ** self.rng.uniform(0, 1, (n_clips, 1))).astype(np.float16)

    def rank(self, query: Any) -> tuple[list[str], Any]:
        """All clips by cosine, best first, and their cosines; 0 for zero vectors."""
        vectors = np.stack(list(self.vectors.values())).astype(np.float64)
        lengths = np.linalg.norm(vectors, axis=1) * np.linalg.norm(query)
        found = np.divide(vectors @ query, lengths, out=np.zeros(len(vectors)), where=lengths > 0)
        order = np.argsort(-found, kind="stable")
        return [list(self.vectors)[row] for row in order], found[order]


def _clips(row: Row, ids: list[str], vectors: Any) -> pa.Table:
    n_clips = len(ids)
    values: dict[str, Any] = {name: [row.get(name)] * n_clips for name in ("file_id", "audio_id", "uri", "duration_s")}
    values |= {"clip_id": ids, "start_s": np.arange(n_clips, dtype=float), "end_s": np.arange(n_clips) + 1.0}
    values |= {"sample_rate_hz": [48_000] * n_clips, "channels": [1] * n_clips, "codec": ["flac"] * n_clips}
    values["vector"] = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), 8)
    fields = [field for field in CLIPS if field.name != "batch_id"]
    return pa.table({field.name: values[field.name] for field in fields}).cast(pa.schema(fields))


def nearest(table: Any, query: Any, k: int = ALL, **options: Any) -> list[str]:
    """The ids of the ``k`` rows that come first through the index, all partitions read."""
    near = {"column": "vector", "q": query, "k": min(k, table.count_rows() + 100), "nprobes": ALL, "metric": "dot"}
    return read_ids(table, nearest=near, **options)


def read_ids(table: Any, **options: Any) -> list[str]:
    """The ids of rows of ``clips``; of ``pools``, audio and first frame."""
    columns = ["clip_id"] if "clip_id" in table.schema.names else ["audio_id", "first_frame"]
    rows = table.to_table(columns=columns, **options).to_pylist()
    return [" ".join(str(row[name]) for name in columns) for row in rows]


def check_index(table: Any, expected: set[str]) -> VectorIndex | None:
    """Each live row comes once, through the index or as one that it leaves out; no other row comes."""
    assert set(read_ids(table)) == expected
    found = read_index(table)
    if found is None or not expected:
        return found
    query = np.arange(table.schema.field("vector").type.list_size, dtype=np.float32)
    every = nearest(table, query)
    assert len(every) == len(set(every))
    assert set(every) == expected
    assert found.n_rows == len(expected)
    covered = nearest(table, query, fast_search=True)
    assert len(covered) == len(set(covered)) == found.n_indexed
    assert set(covered) <= expected
    return found
