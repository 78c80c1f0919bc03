"""Small indexes written straight through the store, for tests of search and locate."""

from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline import schema
from pipeline.corpus.metadata import CorpusMetadata
from pipeline.grid import HOP_SAMPLES, SAMPLE_RATE_HZ, Grid, window_starts
from pipeline.index.clip_rows import clip_rows
from pipeline.index.frame_rows import frame_rows
from pipeline.index.maintenance import refresh_indexes
from pipeline.index.metadata_columns import MetadataColumns
from pipeline.index.pools import pool_stored
from pipeline.index.tables import create_tables, write_rows
from pipeline.index.writer import Batch, Writer
from pipeline.planning.file_rows import empty_row, files_table

Vectors = npt.NDArray[np.float16]
Place = TypeVar("Place", bound=Path | str)

MODEL: dict[str, Any] = {"name": "none", "revision": None, "checksum": "0" * 32, "dimension": 8}
MODEL |= {"logit_scale": 2.0, "logit_bias": -1.0}


def create_empty(path: Place, grid: Grid = Grid(), model: dict[str, Any] = MODEL, frames: str = "all") -> Place:
    """An index without any published batch."""
    settings = {
        "clip_model": model,
        "frame_model": model if frames == "all" else None,
        "window": {"length_s": grid.length_frames / 25, "overlap_s": grid.overlap_frames / 25, "tail": grid.tail},
        "decode": {"resampler": "HQ"},
        "frames": frames,
    }
    create_tables(path, settings, clip_dimension=8, frame_dimension=8)
    return path


def write_index(
    path: Path | str,
    audios: dict[str, tuple[Vectors, Vectors]],
    grid: Grid,
    copies: dict[str, str] | None = None,
    metadata: pa.Table | None = None,
    model: dict[str, Any] = MODEL,
    ledger: dict[str, dict[str, Any]] | None = None,
) -> None:
    """Index made-up files: ``audios`` maps a uri to its frame vectors (F, 8) and clip vectors (n, 8).

    ``copies`` maps further uris to one of ``audios``, whose content they share. Every file is a batch.
    ``metadata`` has a column ``uri``, and those of the user. ``model`` is the identity of that which made the vectors.
    ``ledger`` has other values for the rows of ``files``, by uri.
    """
    create_empty(path, grid, model)
    writer = Writer(path, "0" * 32)
    said = MetadataColumns(
        CorpusMetadata() if metadata is None else CorpusMetadata(metadata),
        pa.table({"uri": [""], "status": ["deleted"]}),
    )
    writer.add_columns(said.columns)
    held: dict[str, tuple[str, Vectors, Vectors]] = {uri: (uri, *vectors) for uri, vectors in audios.items()}
    for copy, original in (copies or {}).items():
        held[copy] = held[original]
    for number, (uri, (content, frames, clips)) in enumerate(held.items()):
        batch_id = schema.make_batch_id("test", number)
        row = empty_row(uri, schema.make_audio_id(content))
        row |= {"status": "indexed", "content_hash": content, "size_bytes": 1, "modified_ns": 1}
        row |= {"duration_s": len(frames) * HOP_SAMPLES / SAMPLE_RATE_HZ, "channels": 1, "codec": "flac"}
        row |= {"sample_rate_hz": 48_000 if number % 2 else 44_100, "n_clips": len(clips), "n_frames": len(frames)}
        written = [frame_rows(row["audio_id"], batch_id, 0, frames, FRAMES)] if uri == content else []
        frame_fragments = write_rows(path, "frames", written)
        pool_fragments = write_rows(path, "pools", list(pool_stored(written, grid)))
        rows = clip_rows(row, grid)
        assert len(rows) == len(clips)
        table = pa.Table.from_pylist(rows, schema=pa.schema([f for f in CLIPS if f.name in rows[0]]))
        files = said.join(files_table([row | (ledger or {}).get(uri, {})]))
        table = said.join_to_clips(table.append_column("vector", _lists(clips)), files)
        writer.commit([Batch(batch_id, files, table, frame_fragments, pool_fragments=pool_fragments)])
    refresh_indexes(writer)


def add_failed_file(path: Path | str) -> None:
    """Publish another state of an index, with one more file, which has no rows but its own."""
    row = {**empty_row("/late.wav", None), "status": "failed", "stage": "read", "reason": "unreadable", "message": "no"}
    clips = CLIPS.empty_table().drop_columns(["batch_id"])
    Writer(path, "1" * 32).commit([Batch(schema.make_batch_id("late", 0), files_table([row]), clips)])


def draw_vectors(rng: np.random.Generator, n_frames: int, grid: Grid) -> tuple[Vectors, Vectors]:
    """Random vectors of the frames and of the clips of a file."""
    sizes = n_frames, len(window_starts(n_frames, grid))
    frames, clips = (rng.standard_normal((size, 8)).astype(np.float16) for size in sizes)
    return frames, clips


SILENT: tuple[Vectors, Vectors] = np.zeros((10, 8), np.float16), np.zeros((1, 8), np.float16)
"""Vectors of a file of ten frames."""

FRAMES = schema.frames_schema(8)
CLIPS = schema.clips_schema(8)


def _lists(vectors: Vectors) -> Any:
    return pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1), pa.float16()), vectors.shape[1])
