"""Bounds the memory of tables of text (CSV, JSON lines) before they are parsed.

A column takes memory for each row, whether the row has a value or not. In CSV each value costs a byte of the file. In
JSON lines it costs none: a row of many names, and many rows ``{}`` behind it, would fill memory.
"""

import io
import json
import re
from collections.abc import Iterable
from typing import Any

from pipeline.corpus.table_limits import MOST_COLUMNS, VALUE_BYTES, limit_named_bytes
from pipeline.errors import CorpusError

MOST_TEXT_TABLE_BYTES = 4 * 2**30
"""The largest table of text: parsed, it takes about three times as much memory."""

_CLOSED = rb'"(?:[^"]++|"")*+"'


def check_csv(data: bytes, mark: str, is_quoted: bool) -> None:
    """Refuse a table with too many columns, by its first row.

    Raises:
        CorpusError
    """
    cell = re.compile((b"(?:%b)?+" % _CLOSED if is_quoted else b"") + rb"[^%b\r\n]*+" % mark.encode())
    blank = re.match(rb"(?:\xef\xbb\xbf)?[\r\n]*", data)
    at = blank.end() if blank else 0
    for _ in range(MOST_COLUMNS):
        found = cell.match(data, at)
        at = found.end() if found else at
        if data[at : at + 1] != mark.encode():
            return
        at += 1
    raise CorpusError(f"over {MOST_COLUMNS:,} columns")


def check_json(data: bytes) -> None:
    """Refuse rows with more names than they have room for.

    Raises:
        CorpusError
    """
    n_rows, most_values = data.count(b"\n") + 1, limit_named_bytes(len(data)) // VALUE_BYTES
    if n_rows * data.count(b":") <= most_values:
        return
    most_names = min(MOST_COLUMNS, most_values // n_rows)
    known, n_names = _Names(), 0
    for line in io.BytesIO(data):
        if line.count(b":") > 10 * MOST_COLUMNS:  # those in texts count, too
            raise CorpusError(f"a row of over {10 * MOST_COLUMNS:,} names")
        n_names += _add_names(known, line)
        if n_names > most_names:
            raise CorpusError(f"over {most_names:,} columns for {n_rows:,} rows: leave out those that few rows have")


class _Names(dict[str | None, "_Names"]):
    """Names, and those in the objects below each; None for what lies in lists. Whole paths would fill memory: a long
    name would be in each path below it."""


def _add_names(known: _Names, line: bytes) -> int:
    """Add the names in an object, also in the objects in it; none where it is invalid, which the parser tells.

    Returns:
        How many are new.
    """
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return 0
    n_new, waiting = 0, [(known, row)]
    while waiting:
        above, value = waiting.pop()
        if isinstance(value, dict):
            n_new += len(value.keys() - above.keys())
            below: Iterable[tuple[str | None, Any]] = value.items()
        else:
            below = ((None, each) for each in value) if isinstance(value, list) else ()
        for name, each in below:
            if name not in above:
                above[name] = _Names()
            if isinstance(each, dict | list):
                waiting.append((above[name], each))
    return n_new
