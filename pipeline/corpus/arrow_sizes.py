"""How large an Arrow file is in memory once it is decompressed, by its own headers: Arrow allocates what they state.

Source: the formats of Arrow's columnar IPC (``Message.fbs``) and of FlatBuffers.
"""

import struct
from typing import Any, NamedTuple

import pyarrow as pa

_BATCH, _DICTIONARY = 3, 2  # MessageHeader


class BatchSizes(NamedTuple):
    """The rows of each record batch, and the bytes of all compressed buffers as they are decompressed."""

    n_rows: list[int]
    decompressed_bytes: int


def measure_batches(source: Any) -> BatchSizes:
    """What the headers say of the messages from here on to the end of the stream.

    Raises:
        Exception: it is not a stream of Arrow's messages.
    """
    n_rows, n_bytes = list[int](), 0
    for message in pa.ipc.MessageReader.open_stream(source):
        metadata, body = memoryview(message.metadata), memoryview(message.body or b"")
        kind, batch = _find_batch(metadata)
        if batch is None:
            continue
        n_bytes += _count_bytes(metadata, batch, body)
        if kind == _BATCH:
            n_rows.append(_count_rows(metadata, batch))
    return BatchSizes(n_rows, n_bytes)


def _find_batch(metadata: memoryview) -> tuple[int, int | None]:
    """The kind of a message, and where its record batch begins; the values of a dictionary are one, too."""
    at = _follow(metadata, 0)
    kind, header = _find(metadata, at, 1), _find(metadata, at, 2)
    if kind is None or header is None or metadata[kind] not in (_BATCH, _DICTIONARY):
        return 0, None
    batch: int | None = _follow(metadata, header)
    if metadata[kind] == _DICTIONARY:
        data = _find(metadata, _follow(metadata, header), 1)
        batch = None if data is None else _follow(metadata, data)
    return metadata[kind], batch


def _count_rows(metadata: memoryview, batch: int) -> int:
    length = _find(metadata, batch, 0)
    return 0 if length is None else int(struct.unpack_from("<q", metadata, length)[0])


def _count_bytes(metadata: memoryview, batch: int, body: memoryview) -> int:
    buffers = _find(metadata, batch, 2)
    if buffers is None or _find(metadata, batch, 3) is None:  # not compressed
        return 0
    begin = _follow(metadata, buffers)
    [n_buffers] = struct.unpack_from("<I", metadata, begin)
    n_bytes = 0
    for offset, length in struct.iter_unpack("<qq", metadata[begin + 4 : begin + 4 + 16 * n_buffers]):
        if length:
            [stated] = struct.unpack_from("<q", body, offset)
            n_bytes += length if stated < 0 else stated  # -1: this buffer is not compressed
    return n_bytes


def _find(data: memoryview, table: int, number: int) -> int | None:
    """Where a field of a table lies; None where the table lacks it."""
    [back] = struct.unpack_from("<i", data, table)
    [n_bytes] = struct.unpack_from("<H", data, table - back)
    if 4 + 2 * number >= n_bytes:
        return None
    [offset] = struct.unpack_from("<H", data, table - back + 4 + 2 * number)
    return table + offset if offset else None


def _follow(data: memoryview, at: int) -> int:
    """Where the reference at ``at`` leads."""
    return at + int(struct.unpack_from("<I", data, at)[0])
