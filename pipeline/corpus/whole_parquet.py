"""Reads the Parquet tables that users name, whole, in memory that is bounded before anything is copied."""

from collections import Counter
from typing import Any

import pyarrow as pa

from pipeline.corpus.metadata_types import stored_type
from pipeline.corpus.parquet_columns import ParquetColumns
from pipeline.corpus.table_limits import MOST_ALIKE, VALUE_BYTES, check_n_columns, limit_named_bytes, measure_values
from pipeline.errors import CorpusError

MANY_ROWS = 2_000_000
"""A table may have so many rows, or one for each byte of its file."""

ROWS_AT_ONCE = 65_536


def read_whole_parquet(file: Any) -> pa.Table:
    """All columns. Those of types that no metadata column can have, such as lists, come without their values.

    Args:
        file: opened to be read as bytes.

    Raises:
        CorpusError: it has too many rows or columns, or its values would fill memory.
        Exception: it is no Parquet file, or is damaged.
    """
    columns = ParquetColumns(file)
    check_n_columns(columns.n_leaves)
    if columns.n_rows > max(MANY_ROWS, columns.size_bytes):
        raise CorpusError(f"{columns.n_rows:,} rows in a file of {columns.size_bytes:,} bytes")
    for name, n_alike in Counter(columns.schema.names).items():
        if n_alike > MOST_ALIKE:
            raise CorpusError(f"{n_alike:,} columns `{name}`; {MOST_ALIKE} of one name are read")
    room, seen, found = _Room(columns.size_bytes), Counter[str](), list[pa.ChunkedArray]()
    for field in columns.schema:
        occurrence = seen[field.name]
        seen[field.name] += 1
        if stored_type(field.type) is None:
            room.take(field.name, columns.n_rows * _width_of(field.type))
            found.append(pa.nulls(columns.n_rows, field.type))
        else:
            found.append(_read(columns, field, occurrence, room))
    return pa.table(found, names=columns.schema.names)


class _Room:
    """Memory for one table."""

    def __init__(self, size_bytes: int) -> None:
        self.left = self._all = limit_named_bytes(size_bytes)

    def take(self, name: str, n_bytes: int) -> None:
        self.left -= n_bytes
        if self.left < 0:
            raise CorpusError(f"over {self._all:,} bytes in memory, with its column `{name}`")


def _read(columns: ParquetColumns, field: pa.Field, occurrence: int, room: _Room) -> pa.ChunkedArray:
    kind = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
    try:
        if not occurrence:  # all columns of this name are looked at
            columns.check_pages(range(len(columns.starts)), field.name, room.left)
    except CorpusError as error:
        raise CorpusError(f"column `{field.name}`: {error}") from None
    pieces = list[pa.Array]()
    for piece in columns.read(field.name, ROWS_AT_ONCE, occurrence):
        piece.validate(full=True)  # text may be no UTF-8
        room.take(field.name, measure_values(piece, room.left))
        pieces.append(piece.cast(kind))
    return pa.chunked_array(pieces, kind)


def _width_of(kind: pa.DataType) -> int:
    """About the bytes of a null of this type."""
    if isinstance(kind, pa.BaseExtensionType):
        return _width_of(kind.storage_type)
    if pa.types.is_fixed_size_binary(kind):
        return int(kind.byte_width)
    n_values = kind.list_size if pa.types.is_fixed_size_list(kind) else 1
    return VALUE_BYTES + int(n_values) * sum(_width_of(kind.field(number).type) for number in range(kind.num_fields))
