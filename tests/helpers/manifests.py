"""Manifests of time ranges."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

TimedRow = tuple[str, float | None, float | None]
"""``uri``, ``start_s`` and ``end_s``."""


def write_ranges(path: Path, *rows: TimedRow) -> Path:
    """A manifest, in the format that its name says."""
    names = ("uri", "start_s", "end_s")
    values = [dict(zip(names, row, strict=True)) for row in rows]
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(values), path)
    elif path.suffix == ".csv":
        lines = [",".join("" if value is None else str(value) for value in row) for row in rows]
        path.write_text("\n".join([",".join(names), *lines]) + "\n")
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in values))
    return path
