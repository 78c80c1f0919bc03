"""Pools made of stored frames, without encoding anything: for an index of an older version, or where they are damaged.

It reads ``frames`` once, in order, and writes ``pools`` as it reads. In memory are the batch of frames that was read
last, two windows and a half of frames before it, and the pools that are about to be written, however long an audio is.
Whoever dies before the journal row of the kind ``pools`` has changed nothing that readers see, and the next one begins
again.
"""

from collections.abc import Callable, Iterator, Set
from typing import Any

import lance
import pyarrow as pa
import pyarrow.compute as pc

from pipeline import schema
from pipeline.config import WindowConfig
from pipeline.index.changes import after
from pipeline.index.handle import describe_generation
from pipeline.index.journal import Published
from pipeline.index.pools import pool_stored
from pipeline.index.tables import among
from pipeline.index.writer import Writer

FRAMES_TO_POOL = 250_000
"""From so many frames on, a run that ends makes missing pools: fewer frames are scanned in half a second."""

AUDIOS_TO_MEND = 100
"""The pools of up to so many audios are mended one by one."""

_FRAMES_AT_ONCE = 8_192
_BYTES_AHEAD = 64 * 2**20
"""What the engine may read ahead; by default it is 2 GB."""

_POOLS_AT_ONCE = 4_096

Read = Callable[[Any, str | None], Iterator[pa.RecordBatch]]
"""Reads the rows of ``frames`` where something holds, in batches, in the order in which they are stored."""


def add_pools(writer: Writer, n_frames: int = 0, tick: Callable[[], object] = lambda: None) -> Published:
    """Make the pools of an index that has frames and no pools; others stay as they are.

    Args:
        n_frames: leave the index as it is if it has fewer frames.
        tick: called often.
    """
    has_frames = describe_generation(writer.path, writer.journal).settings["frames"] == "all"
    if "pools" in writer.published.versions or not has_frames:
        return writer.published
    with writer.changes() as changes:
        frames = changes.open("frames")
        if frames.count_rows() < n_frames:
            return writer.published
        if not schema.has_pools(frames.schema):
            changes.make("begin", "frames", _add_begins)
        frames = changes.open("frames")
        changes.replace("pools", _cut(writer, frames, read_frames(frames, None), tick))
        return writer.publish("pools", changes)


def _add_begins(table: Any) -> Any:
    """``table``, a table of frames, with the column that says where each audio begins."""

    def find(rows: pa.RecordBatch) -> pa.RecordBatch:
        begins = pc.if_else(pc.equal(rows["frame"], 0), rows["audio_id"], pa.scalar(None, schema.ID))
        return pa.RecordBatch.from_arrays([begins], [schema.BEGINS])

    columns = pa.schema([pa.field(schema.BEGINS, schema.ID)])
    return after(table, table.add_columns, lance.batch_udf(output_schema=columns)(find), ["audio_id", "frame"])


def read_frames(frames: Any, where: str | None) -> Iterator[pa.RecordBatch]:
    """The rows of ``frames``, or those ``where`` something holds, in batches of ``_FRAMES_AT_ONCE`` at most."""
    limits = {"batch_size": _FRAMES_AT_ONCE, "batch_readahead": 2, "fragment_readahead": 1}
    wanted = ["audio_id", "frame", "batch_id", "vector"]
    yield from frames.to_batches(wanted, where, **limits, io_buffer_size=_BYTES_AHEAD, scan_in_order=True)


def mend_pools(writer: Writer, audio_ids: Set[str], read: Read = read_frames) -> Published:
    """Replace the pools of these audios by those of their stored frames; an audio without frames has none afterwards.

    For many audios, all pools are made anew: that reads the frames once.
    """
    if not audio_ids:
        return writer.published
    with writer.changes() as changes:
        frames = changes.open("frames")
        if len(audio_ids) > AUDIOS_TO_MEND:
            changes.replace("pools", _cut(writer, frames, read(frames, None)))
        else:
            changes.delete("pools", {"audio_id": set(audio_ids)})
            changes.append_stream("pools", _cut(writer, frames, read(frames, among("audio_id", audio_ids))))
        return writer.publish("maintain", changes, {"mended": len(audio_ids)})


def _cut(
    writer: Writer, frames: Any, pieces: Iterator[pa.RecordBatch], tick: Callable[[], object] = lambda: None
) -> pa.RecordBatchReader:
    """The pools of ``pieces`` of ``frames``, made as they are read."""
    columns = schema.pools_schema(frames.schema.field("vector").type.list_size)
    grid = WindowConfig(**describe_generation(writer.path, writer.journal).settings["window"]).grid

    def watched() -> Iterator[pa.RecordBatch]:
        for piece in pieces:
            tick()
            yield piece

    return pa.RecordBatchReader.from_batches(columns, _join(pool_stored(watched(), grid)))


def _join(pieces: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """The same rows in pieces of some thousands: Lance takes long over small ones."""
    held: list[pa.RecordBatch] = []
    for piece in pieces:
        held.append(piece)
        if sum(each.num_rows for each in held) >= _POOLS_AT_ONCE:
            yield pa.concat_batches(held)
            held = []
    if held:
        yield pa.concat_batches(held)
