"""Bounds the memory of tables of text (CSV, JSON lines) before they are parsed.

A column takes memory for each row, whether the row has a value or not. In CSV each value costs a byte of the file. In
JSON lines it costs none: a row of many names, and many rows ``{}`` behind it, would fill memory.
"""

import io
import json
import re
from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO

from pipeline.corpus.table_limits import MOST_COLUMNS, VALUE_BYTES, limit_named_bytes
from pipeline.errors import CorpusError

MOST_TEXT_TABLE_BYTES = 4 * 2**30
"""The largest table of text: parsed, it takes about three times as much memory."""

MOST_ROW_BYTES = 64 * 2**20
"""The largest row of JSON."""

_DEEPEST = 500
"""Lists and objects of a row that lie in each other."""

_BRACKETS = re.compile(rb"[\[\]{}]")
_TEXTS = re.compile(rb'"(?:[^"\\]++|\\.)*+"?', re.DOTALL)

_NULL_FIRST = re.compile(rb"(?:\xef\xbb\xbf)?\s*+null")

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


def check_first_row(file: BinaryIO) -> None:
    """Refuse JSON whose first row is too large, before all of it is read. Leaves the file at its beginning.

    Raises:
        CorpusError
    """
    head = file.read(MOST_ROW_BYTES + 1)
    file.seek(0)
    if len(head) > MOST_ROW_BYTES and b"\n" not in head:
        raise CorpusError(f"a row of over {MOST_ROW_BYTES:,} bytes: JSON lines have an object on each line")


def check_json(data: bytes) -> None:
    """Refuse rows with more names than they have room for, and what the parser does not survive.

    Raises:
        CorpusError
    """
    if _NULL_FIRST.match(data):  # which ends a process that parses it
        raise CorpusError("its first row is null, and should be an object")
    is_wide = _check_rows(data)
    n_rows, most_values = data.count(b"\n") + 1, limit_named_bytes(len(data)) // VALUE_BYTES
    if n_rows * data.count(b":") <= most_values and not is_wide:
        return
    most_names = min(MOST_COLUMNS, most_values // n_rows)
    known, n_names = _Names(), 0
    for line in io.BytesIO(data):
        n_names += _add_names(known, line)
        if n_names > most_names:
            raise CorpusError(f"over {most_names:,} columns for {n_rows:,} rows: leave out those that few rows have")


def _check_rows(data: bytes) -> bool:
    """Refuse single rows that are too much: the parser holds a row several times, and goes as deep as it says.

    Returns:
        Whether one may have too many names.
    """
    is_wide, n_open = False, data.count(b"[") + data.count(b"{")
    may_be_deep = n_open > data.count(b"\n") + _DEEPEST  # more than the objects of all rows
    for begin, end in _long_rows(data, _DEEPEST if may_be_deep else MOST_COLUMNS):
        if end - begin > MOST_ROW_BYTES:
            raise CorpusError(f"a row of over {MOST_ROW_BYTES:,} bytes: JSON lines have an object on each line")
        n_names = data.count(b":", begin, end)
        if n_names > 10 * MOST_COLUMNS:  # those in texts count, too
            raise CorpusError(f"a row of over {10 * MOST_COLUMNS:,} names")
        is_wide = is_wide or n_names > MOST_COLUMNS
        if data.count(b"[", begin, end) + data.count(b"{", begin, end) > _DEEPEST and _is_deep(data[begin:end]):
            raise CorpusError(f"a row of over {_DEEPEST:,} lists and objects in each other")
    return is_wide


def _long_rows(data: bytes, n_bytes: int) -> Iterator[tuple[int, int]]:
    """Where rows of more than ``n_bytes`` begin and end."""
    at = 0
    while len(data) - at > n_bytes:
        if (last := data.rfind(b"\n", at, at + n_bytes + 1)) >= 0:
            at = last + 1
            continue
        end = data.find(b"\n", at + n_bytes)
        end = len(data) if end < 0 else end
        yield at, end
        at = end + 1


def _is_deep(line: bytes) -> bool:
    depth = deepest = 0
    for mark in _BRACKETS.findall(_TEXTS.sub(b"", line)):
        depth += 1 if mark in b"[{" else -1
        deepest = max(deepest, depth)
    return deepest > _DEEPEST


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
