"""Files as streams of bytes, made as they are read: a zip archive, a Parquet file. For responses, pipes and files."""

import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import pyarrow as pa
import pyarrow.parquet as pq

_MADE_AT = (1980, 1, 1, 0, 0, 0)
"""The earliest time that zip can hold. The same files make the same archive."""

STORED = (".wav", ".flac", ".parquet")
"""Files that hardly get smaller by compression."""

GROUP_BYTES = 32 * 2**20
"""Of a row group of a Parquet file, about: the rows that are held in memory together."""


class _Collected:
    """A file that cannot seek, whose bytes are taken out piece by piece."""

    closed = False

    def __init__(self) -> None:
        self._pieces: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, data: bytes) -> int:
        self._pieces.append(bytes(data))
        return len(data)

    def flush(self) -> None:
        """Nothing waits."""

    def take(self) -> bytes:
        data = b"".join(self._pieces)
        self._pieces.clear()
        return data


def zip_stream(files: Iterable[tuple[str, Iterable[bytes]]]) -> Iterator[bytes]:
    """A zip archive of files, given by name and pieces of content, in pieces: only one piece is held in memory."""
    collected = _Collected()
    with zipfile.ZipFile(collected, "w") as archive:  # type: ignore[call-overload]
        for name, pieces in files:
            info = zipfile.ZipInfo(name, _MADE_AT)
            info.external_attr = 0o644 << 16
            info.compress_type = zipfile.ZIP_STORED if name.lower().endswith(STORED) else zipfile.ZIP_DEFLATED
            with archive.open(info, "w", force_zip64=True) as entry:
                for piece in pieces:
                    entry.write(piece)
                    if data := collected.take():
                        yield data
            yield collected.take()
    yield collected.take()


def parquet_stream(
    rows: Iterable[pa.RecordBatch],
    schema: pa.Schema,
    plain: Sequence[str] = (),
    say_last: Callable[[], Mapping[str, str]] = dict,
) -> Iterator[bytes]:
    """A Parquet file of these rows, in pieces: one group of rows is held in memory.

    Args:
        plain: columns whose values hardly repeat, such as vectors: no dictionary is tried for them.
        say_last: called behind the last row for further entries of the file's own metadata, which its end holds.
    """
    collected = _Collected()
    repeating = [name for name in schema.names if name not in plain]
    with pq.ParquetWriter(collected, schema, use_dictionary=repeating, write_statistics=repeating) as writer:
        for group in _group(rows):
            writer.write_table(pa.Table.from_batches(group, schema), row_group_size=sum(map(len, group)))
            yield collected.take()
        if said := say_last():
            writer.add_key_value_metadata(dict(said))
    yield collected.take()


def _group(rows: Iterable[pa.RecordBatch]) -> Iterator[list[pa.RecordBatch]]:
    group: list[pa.RecordBatch] = []
    n_bytes = 0
    for batch in rows:
        if not batch.num_rows:
            continue
        group.append(batch)
        n_bytes += batch.nbytes
        if n_bytes >= GROUP_BYTES:
            yield group
            group, n_bytes = [], 0
    if group:
        yield group
