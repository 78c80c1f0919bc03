"""What the measurements share: figures with limits, functions in fresh processes, index rows without any audio."""

import json as jsonlib
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import typer

from jobs.shared.output import print_json, print_table
from pipeline import schema
from pipeline.grid import FRAME_S, Grid, frames_to_seconds
from pipeline.index.clip_rows import clip_rows
from pipeline.index.tables import write_frames
from pipeline.index.writer import Batch
from pipeline.planning.file_rows import empty_row, files_table
from pipeline.schema import Row

Vectors = npt.NDArray[np.float16]

GRID = Grid(250, 10)

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Figure:
    """A measured value, and the limit that it must stay below, if there is one."""

    measurement: str
    what: str
    value: float
    unit: str
    limit: float | None = None
    detail: str = ""

    @property
    def is_missed(self) -> bool:
        return self.limit is not None and self.value >= self.limit


def report(title: str, figures: list[Figure], *, json: bool) -> None:
    """Print the figures, with their limits beside them.

    Raises:
        typer.Exit: 1, a limit is missed.
    """
    if json:
        print_json({**asdict(figure), "missed": figure.is_missed} for figure in figures)
    else:
        columns = ["", "what", "measured", "limit", "details"]
        print_table(title, columns, map(_show, figures), ["measured"])
    if any(figure.is_missed for figure in figures):
        raise typer.Exit(1)


def _show(figure: Figure) -> tuple[str, ...]:
    limit = "" if figure.limit is None else f"< {figure.limit:g} {'MISSED' if figure.is_missed else 'ok'}"
    digits = 0 if float(figure.value).is_integer() and figure.unit == "" else 2
    value = f"{figure.value:,.{digits}f} {figure.unit}".strip()
    return figure.measurement, figure.what, value, limit, figure.detail


def call_fresh(function: Callable[..., Any], *arguments: str) -> Any:
    """Call a function of a module in a process of its own, which has done nothing else; returns its result as JSON."""
    program = (
        f"import sys; from {function.__module__} import {function.__name__} as measured\n"
        "from jobs.shared.output import print_json; print_json([measured(*sys.argv[1:])])"
    )
    command = [sys.executable, "-c", program, *arguments]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    return jsonlib.loads(done.stdout)


def indexed_row(uri: str, content_hash: str, n_frames: int) -> Row:
    """The ledger row of an indexed file of one clip."""
    row = empty_row(uri, schema.make_audio_id(content_hash))
    return row | {
        "status": "indexed",
        "duration_s": frames_to_seconds(n_frames),
        "expected_duration_s": frames_to_seconds(n_frames),
        "sample_rate_hz": 48_000,
        "channels": 1,
        "codec": "pcm_s16le",
        "size_bytes": 1,
        "modified_ns": 1,
        "content_hash": content_hash,
        "n_clips": 1,
        "n_frames": n_frames,
    }


def make_batch(into: str, batch_id: str, rows: list[Row], vectors: Vectors) -> Batch:
    """A batch of indexed files. ``vectors`` (n, D) are those of all frames; a clip has that of its first frame."""
    counts = [row["n_frames"] for row in rows]
    frames = np.concatenate([np.arange(n, dtype=np.int32) for n in counts])
    frames_schema = schema.frames_schema(vectors.shape[1])
    columns = [
        pa.array(np.repeat([row["audio_id"] for row in rows], counts)),
        pa.array(frames),
        pa.array(frames * FRAME_S),
        pa.array([batch_id] * len(frames)),
        _lists(vectors, frames_schema),
    ]
    fragments = write_frames(into, [pa.RecordBatch.from_arrays(columns, schema=frames_schema)], frames_schema)
    clips_schema = schema.clips_schema(vectors.shape[1])
    columns_known = pa.schema([column for column in clips_schema if column.name not in ("vector", "batch_id")])
    clips = pa.Table.from_pylist([clip for row in rows for clip in clip_rows(row, GRID)], schema=columns_known)
    firsts = np.cumsum([0, *counts[:-1]])
    return Batch(
        batch_id, files_table(rows), clips.append_column("vector", _lists(vectors[firsts], clips_schema)), fragments
    )


def _lists(vectors: Vectors, table_schema: pa.Schema) -> pa.Array:
    flat = pa.array(vectors.reshape(-1), pa.float16())
    return pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1]).cast(table_schema.field("vector").type)
