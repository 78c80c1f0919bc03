"""The few types in which metadata columns are stored, and the type that two tables with the same column share."""

from collections.abc import Iterator
from contextlib import contextmanager

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import TOO_LARGE, CorpusError, one_line

KINDS = "text, whole numbers, numbers, true or false, dates or times"
LEAVE_OUT = "or name the columns to keep in corpus.columns"

_INSTANT, _INSTANT_UTC = pa.timestamp("us"), pa.timestamp("us", tz="UTC")


def normalize(path: str, name: str, column: pa.ChunkedArray) -> pa.ChunkedArray:
    """A column in the type in which it is stored. NaN becomes null.

    Raises:
        CorpusError: its type cannot be stored, or one of its values not in that type; there is too little memory.
    """
    kind = stored_type(column.type)
    if kind is None:
        raise CorpusError(
            f"{path}: column `{name}` is {column.type}{example(column)}, which cannot be stored: give {KINDS},"
            f" {LEAVE_OUT}"
        )
    column = store_as(kind, path, name, column)
    if kind != pa.float64():
        return column
    with _memory_boundary(path, name):
        return pc.if_else(pc.is_nan(column), None, column)


@contextmanager
def _memory_boundary(path: str, name: str) -> Iterator[None]:
    """Name the column for which there is too little memory."""
    try:
        yield
    except MemoryError:  # pyarrow's, too
        raise CorpusError(f"{path}: column `{name}`: {TOO_LARGE}") from None


def store_as(kind: pa.DataType, path: str, name: str, column: pa.ChunkedArray) -> pa.ChunkedArray:
    """A column cast to a type.

    Raises:
        CorpusError: the type cannot hold one of the values; there is too little memory.
    """
    try:
        with _memory_boundary(path, name):
            return column.cast(kind, safe=not pa.types.is_timestamp(kind))
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise CorpusError(
            f"{path}: column `{name}` ({column.type}) cannot be stored as {kind}: {one_line(error)}"
        ) from None


def stored_type(kind: pa.DataType) -> pa.DataType | None:
    """The type in which values of a type are stored; None if they cannot be."""
    if pa.types.is_null(kind):
        return kind
    if pa.types.is_dictionary(kind):
        return stored_type(kind.value_type)
    if pa.types.is_boolean(kind):
        return pa.bool_()
    if pa.types.is_integer(kind):
        return pa.int64()
    if pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        return pa.float64()
    if pa.types.is_date(kind):
        return pa.date32()
    if pa.types.is_timestamp(kind):
        return _INSTANT_UTC if kind.tz else _INSTANT
    is_text = pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    return pa.string() if is_text or pa.types.is_time(kind) else None


def common_type(one: pa.DataType, other: pa.DataType) -> pa.DataType | None:
    """The type that can hold the values of both; None if there is none."""
    if one == other or pa.types.is_null(other):
        return one
    if pa.types.is_null(one):
        return other
    for both in ({pa.int64(), pa.float64()}, {pa.date32(), _INSTANT}):
        if {one, other} == both:
            return pa.float64() if pa.float64() in both else _INSTANT
    return None


def example(column: pa.ChunkedArray) -> str:
    """The first value of a column in brackets, for a message."""
    valid = column.slice(0, 10_000).drop_null()
    return f" ({show(valid[0].as_py())})" if len(valid) else ""


def show(value: object) -> str:
    text = str(value)
    return repr(text if len(text) <= 40 else f"{text[:39]}…")
