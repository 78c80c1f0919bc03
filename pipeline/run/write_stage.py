"""ENCODED rows in, fragments of ``frames`` and ``pools`` on disk and RECEIPTS out: the stage that writes."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline import schema
from pipeline.errors import EarshotError
from pipeline.grid import FRAME_S
from pipeline.index.checksum import sum_rows
from pipeline.index.frame_rows import frame_rows
from pipeline.index.pools import pool_rows
from pipeline.schema import Row

Write = Callable[[str, list[pa.RecordBatch]], list[str]]
"""The name of a table, rows -> metadata of the fragments written, JSON: ``index.tables.write_rows``."""


def write_windows(encoded: pa.Table, frames_schema: pa.Schema, write: Write) -> pa.Table:
    """ENCODED -> RECEIPTS: writes the frames; returns one row for each sequence of consecutive rows of a batch.

    Args:
        frames_schema: of the ``frames`` table. It says whether there is a table ``pools``, too.
    """
    receipts = []
    if errors := encoded.filter(pc.is_valid(encoded["error"])).to_pylist():
        return error_row(schema.RECEIPTS, errors[0]["batch_id"], EarshotError(errors[0]["error"]))
    batch_ids = encoded["batch_id"].to_pylist()
    for start, stop in _find_sequences(batch_ids, encoded["seq"].to_pylist()):
        rows = encoded.slice(start, stop - start).to_pylist()
        frames = [made for row in rows if (made := _frame_rows(row, frames_schema)) is not None]
        pools = [pool_rows(own) for own in frames] if schema.has_pools(frames_schema) else []
        receipts.append(
            {
                "batch_id": batch_ids[start],
                "first_seq": rows[0]["seq"],
                "stop_seq": rows[-1]["seq"] + 1,
                "last": rows[-1]["last"],
                "precision": rows[0]["precision"],
                "audio_s": sum(FRAME_S * (row["own_stop"] - row["own_first"]) for row in rows if row["files"] is None),
                "frame_fragments": write("frames", frames),
                "pool_fragments": write("pools", pools),
                "windows": [
                    {name: row[name] for name in ("audio_id", "first_frame", "clip_vector")}
                    | {"frames_checksum": _sum_frames(row, frames_schema)}
                    for row in rows
                    if row["files"] is None
                ],
                "files": [file for row in rows if row["files"] is not None for file in row["files"]],
                "decode_s": sum(row["decode_s"] for row in rows),
                "encode_s": sum(row["encode_s"] for row in rows),
                "write_s": 0.0,
            }
        )
    return pa.Table.from_pylist(receipts, schema=schema.RECEIPTS)


def _find_sequences(batch_ids: list[str], seqs: list[int]) -> Iterator[tuple[int, int]]:
    """First row and stop of each sequence of consecutive rows of one batch."""
    start = 0
    for i in range(1, len(batch_ids) + 1):
        if i == len(batch_ids) or batch_ids[i] != batch_ids[start] or seqs[i] != seqs[i - 1] + 1:
            yield start, i
            start = i


def _frame_vectors(row: Row, frames_schema: pa.Schema) -> Any:
    """The vectors (n, D) of the frames that one window owns."""
    return np.frombuffer(row["frame_vectors"], np.float16).reshape(-1, frames_schema.field("vector").type.list_size)


def _sum_frames(row: Row, frames_schema: pa.Schema) -> int:
    """The checksum of the frames that one window owns."""
    if row["frame_vectors"] is None:
        return 0
    return sum_rows(np.arange(row["own_first"], row["own_stop"]), _frame_vectors(row, frames_schema))


def _frame_rows(row: Row, frames_schema: pa.Schema) -> pa.RecordBatch | None:
    """The rows of the frames that one window owns."""
    if row["frame_vectors"] is None:
        return None
    vectors = _frame_vectors(row, frames_schema)
    return frame_rows(row["audio_id"], row["batch_id"], row["own_first"], vectors, frames_schema)


# --- what every stage adds to its rows --------------------------------------------------------------------------------


def error_row(edge: pa.Schema, batch_id: str, error: Exception) -> pa.Table:
    """The row that travels on when a stage fails and no file is at fault. It ends the run."""
    said = " ".join(str(error).split())
    said = said if isinstance(error, EarshotError) else f"{type(error).__name__}: {said}"
    row: Row = {"batch_id": batch_id, "error": said, "last": False, "precision": "", "audio_s": 0.0}
    row |= {"seq": -1, "first_seq": -1, "stop_seq": -1, "decode_s": 0.0, "encode_s": 0.0, "write_s": 0.0}
    if edge is schema.RECEIPTS:
        row |= {"windows": [], "files": [], "frame_fragments": [], "pool_fragments": []}
    return pa.Table.from_pylist([row], schema=edge)


def note_seconds(table: pa.Table, stage: str, seconds: float) -> pa.Table:
    """The same rows, with the seconds that a stage took to make them in the first row: sums stay right however the rows
    are cut later."""
    if not table.num_rows:
        return table
    name = f"{stage}_s"
    column = pa.array([seconds, *[0.0] * (table.num_rows - 1)], pa.float64())
    return table.set_column(table.schema.get_field_index(name), table.schema.field(name), column)
