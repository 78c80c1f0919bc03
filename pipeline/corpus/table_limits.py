"""How much tables may hold: in their formats, a few bytes can stand for gigabytes. So sizes are checked before values
are copied."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import CorpusError

LITTLE_BYTES = 64 * 2**20
"""Any table may take so many bytes in memory, however small its file is."""

MOST_RATIO = 8
"""How much larger than its file a compressed table of audio may be in memory, or a page of one. Audio hardly gets
smaller by compression."""

FEW_ROWS, ROW_BYTES = 100_000, 64
"""A table with audio may have so many rows, or one for each ``ROW_BYTES`` of its file."""

MOST_COLUMNS = 10_000
"""Columns of a table."""

MOST_ALIKE = 10
"""Columns of one name in Parquet, each of which takes as long to read as all of them."""

LARGE_BYTES = 2**30
"""A table that a user names may take so many bytes in memory, or ``MOST_RATIO`` times those of its file. Columns of a
catalogue repeat, and take little on disk."""

VALUE_BYTES = 8
"""What a value takes at most, texts aside."""


def limit_bytes(size_bytes: int) -> int:
    """The bytes in memory of a compressed table of audio, whose file has ``size_bytes``."""
    return max(LITTLE_BYTES, MOST_RATIO * size_bytes)


def limit_text_bytes(size_bytes: int) -> int:
    """The bytes in memory of the names of a table of audio, or of the pages of another column."""
    return max(LITTLE_BYTES, size_bytes)


def limit_named_bytes(size_bytes: int) -> int:
    """The bytes in memory of a table that a user names."""
    return max(LARGE_BYTES, MOST_RATIO * size_bytes)


def check_n_columns(n_columns: int) -> None:
    """Refuse a table that has too many columns, those in structs counted one by one.

    Raises:
        CorpusError
    """
    if n_columns > MOST_COLUMNS:
        raise CorpusError(f"{n_columns:,} columns; {MOST_COLUMNS:,} are read")


def check_n_rows(n_rows: int, size_bytes: int) -> None:
    """Refuse a table with audio that has more rows than its file can mean.

    Raises:
        CorpusError
    """
    if n_rows > max(FEW_ROWS, size_bytes // ROW_BYTES):
        raise CorpusError(f"{n_rows:,} rows in a file of {size_bytes:,} bytes")


def is_text(kind: pa.DataType) -> bool:
    """Whether values are texts, in any of Arrow's layouts."""
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def check_lengths(values: pa.Array, most_bytes: int, what: str) -> pa.Array:
    """The lengths of texts, in bytes.

    Raises:
        CorpusError: one is too long, or below zero: then the table is invalid.
    """
    if pa.types.is_string_view(values.type):  # Arrow does not count them; a view begins with its length
        views = np.frombuffer(values.buffers()[1], np.int32)[4 * values.offset : 4 * (values.offset + len(values))]
        lengths = pa.array(views[::4].astype(np.int64), mask=np.asarray(values.is_null()))
    else:
        lengths = pc.cast(pc.binary_length(values), pa.int64())
    found = pc.min_max(lengths).as_py()
    for length in (found["min"] or 0, found["max"] or 0):
        if not 0 <= length <= most_bytes:
            raise CorpusError(f"{what} of {length:,} bytes; {most_bytes:,} are allowed")
    return lengths


def measure_values(piece: pa.Array, most_text_bytes: int) -> int:
    """The bytes of values as they are stored, each value by itself.

    Args:
        piece: flat values; texts may be numbers of different values (a dictionary).

    Raises:
        CorpusError: a text is too long.
    """
    n_bytes = VALUE_BYTES * len(piece)
    is_coded = pa.types.is_dictionary(piece.type)
    values = piece.dictionary if is_coded else piece
    if is_text(values.type):
        lengths = check_lengths(values, most_text_bytes, "a text")
        n_bytes += pc.sum(pc.take(lengths, piece.indices) if is_coded else lengths).as_py() or 0
    return n_bytes
