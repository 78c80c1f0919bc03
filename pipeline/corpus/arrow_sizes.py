"""How large an Arrow file is in memory once it is decompressed, by its own headers: Arrow allocates what they state.

Source: the formats of Arrow's columnar IPC (``Message.fbs``) and of FlatBuffers.
"""

import struct
from typing import Any

import pyarrow as pa

_BATCH, _DICTIONARY = 3, 2  # MessageHeader


def count_decompressed_bytes(source: Any) -> int:
    """The bytes of all compressed buffers from here on to the end of the stream, as they are decompressed.

    Raises:
        Exception: it is not a stream of Arrow's messages.
    """
    n_bytes = 0
    for message in pa.ipc.MessageReader.open_stream(source):
        metadata, body = memoryview(message.metadata), memoryview(message.body or b"")
        n_bytes += _count(metadata, body)
    return n_bytes


def _count(metadata: memoryview, body: memoryview) -> int:
    at = _follow(metadata, 0)
    kind, header = _find(metadata, at, 1), _find(metadata, at, 2)
    if kind is None or header is None or metadata[kind] not in (_BATCH, _DICTIONARY):
        return 0
    batch: int | None = _follow(metadata, header)
    if metadata[kind] == _DICTIONARY:
        data = _find(metadata, _follow(metadata, header), 1)
        batch = None if data is None else _follow(metadata, data)
    buffers = None if batch is None else _find(metadata, batch, 2)
    if batch is None or buffers is None or _find(metadata, batch, 3) is None:  # not compressed
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
