"""The names of rows in tables with audio: bounded before they are copied."""

from collections.abc import Iterator

import pyarrow as pa

from pipeline.corpus.table_limits import check_lengths

MOST_NAME_BYTES = 4096
"""The longest name of a row."""

NAMES_AT_ONCE = 10_000


def check_names(names: pa.Array) -> None:
    """Refuse names that are too long, or lie outside their table.

    Raises:
        CorpusError: too long. pyarrow.ArrowInvalid: outside, which would end this process.
    """
    as_bytes(names).validate(full=True)
    check_lengths(names, MOST_NAME_BYTES, "a name")


def decode_names(names: pa.Array) -> Iterator[str | None]:
    """Names as texts; bytes that are not UTF-8 are escaped."""
    for name in as_bytes(names).to_pylist():
        yield name.decode(errors="backslashreplace") if name else None


def as_bytes(texts: pa.Array) -> pa.Array:
    """Texts as bytes, without a look at them."""
    if pa.types.is_string_view(texts.type):
        return texts.view(pa.binary_view())
    return texts.view(pa.large_binary() if pa.types.is_large_string(texts.type) else pa.binary())
