"""A file's ledger row in, rows of the tables ``files`` and ``clips`` out."""

import pyarrow as pa
import pyarrow.compute as pc

from pipeline import schema
from pipeline.grid import Grid, count_frames, frames_to_seconds, plan_windows, seconds_to_samples
from pipeline.schema import Row


def clip_rows(file: Row, grid: Grid) -> list[Row]:
    """The clips of an indexed file, in order, without their vectors. Times in seconds; no clip ends after its file."""
    n_frames = count_frames(seconds_to_samples(file["duration_s"]))
    shared = {name: file[name] for name in ("file_id", "audio_id", "uri", "duration_s", "codec", "channels")}
    return [
        {
            **shared,
            "sample_rate_hz": file["sample_rate_hz"],
            "clip_id": schema.make_clip_id(file["file_id"], span.first),
            "start_s": frames_to_seconds(span.first),
            "end_s": min(frames_to_seconds(span.first + span.length), file["duration_s"]),
        }
        for span in plan_windows(n_frames, grid)
    ]


def copy_clips(clips: pa.Table, holder_id: str, file: Row, grid: Grid) -> pa.Table:
    """The clips of a file that has the bytes of another one, whose clips are among ``clips``, in order.

    Args:
        clips: without metadata and ``batch_id``.
        holder_id: the ``file_id`` of the other one.
    """
    vectors = clips.filter(pc.equal(clips["file_id"], holder_id))["vector"]
    field = clips.schema.field("vector")
    rows = pa.Table.from_pylist(clip_rows(file, grid), schema=schema.without(clips.schema, "vector"))
    return rows.append_column(field, vectors).select(clips.schema.names)
