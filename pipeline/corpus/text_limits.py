"""Bounds the memory of tables of text (CSV, JSON lines) before they are parsed.

A column takes memory for each row, whether the row has a value or not. In CSV each value costs a byte of the file. In
JSON lines it costs none: a row of many names, and many rows ``{}`` behind it, would fill memory. A line is a row here,
and what Arrow's parser would take for a row otherwise is refused: it also reads rows that span lines, or share one.
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

MOST_ROW_VALUES = 1_000_000
"""The most values of a row of JSON."""

_DEEPEST = 500
"""Lists and objects of a row that lie in each other."""

_CHUNK_BYTES, _PIECE_BYTES = 16 * 2**20, 2**20
"""So many are looked at in one go: other threads run in between; and what is found in a piece takes more memory."""


_TEXT = rb'"[^"\\\n]*+(?:\\[^\n][^"\\\n]*+)*+"'
_OTHER = rb'[^"\[\]{}\n]*+'


def _inside(deeper: bytes | None) -> bytes:
    """The pattern of what lies in a list or an object of one line: anything but brackets outside of texts, except those
    that hold what is ``deeper``. It never goes back, so that it takes time in proportion to its length."""
    unit = _TEXT if deeper is None else rb"(?:%b|\[%b\]|\{%b\})" % (_TEXT, deeper, deeper)
    return rb"%b(?:%b%b)*+" % (_OTHER, unit, _OTHER)


_FLAT = _inside(None)
_ROWS = re.compile(rb"(?:[ \t\r]*+(?:\{%b\}[ \t\r]*+)?\n)*+" % _inside(_inside(_FLAT)))
"""Whole lines that are blank, or one object in which lists and objects nest two deep at most."""

_OPEN = re.compile(rb"[ \t\r]*+\{")
_BRACKET = re.compile(rb"%b[\[\]{}]" % _inside(_FLAT))
"""Up to the next bracket of the line that is not passed over with what lies in it."""

_COLON = rb"[ \t\r]*+:"
_SHAPE = re.compile(
    rb"%b(?:%b(?!%b)%b)*+(%b(?=%b)|[\[\]{}\n])" % (_OTHER, _TEXT, _COLON, _OTHER, _TEXT, _COLON),
)
"""The next name, bracket or end of a line: what is left of lines without their values."""

_MOST_SHAPES, _SHAPE_BYTES = 1_000, 10_000
"""As many shapes of rows are remembered, if they are no longer."""

_BOM = b"\xef\xbb\xbf"

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
        CorpusError: also where a line is neither blank nor exactly one object.
    """
    is_wide = _check_long_rows(data)
    _check_lines(data)
    n_rows, most_values = data.count(b"\n") + 1, limit_named_bytes(len(data)) // VALUE_BYTES
    if n_rows * data.count(b":") <= most_values and not is_wide:
        return
    most_names = min(MOST_COLUMNS, most_values // n_rows)
    known, n_names = _Names(), 0
    for line in _unlike_lines(data):
        n_names += _add_names(known, line)
        if n_names > most_names:
            raise CorpusError(f"over {most_names:,} columns for {n_rows:,} rows: leave out those that few rows have")


def _check_long_rows(data: bytes) -> bool:
    """Refuse single rows that are too much: the parser holds a row several times.

    Returns:
        Whether one may have too many names.
    """
    is_wide = False
    for begin, end in _long_rows(data, MOST_COLUMNS):  # a row with more names has more bytes
        if end - begin > MOST_ROW_BYTES:
            raise CorpusError(f"a row of over {MOST_ROW_BYTES:,} bytes: JSON lines have an object on each line")
        # Marks in texts count, too, so the limits are far above what rows need.
        n_names = data.count(b":", begin, end)
        if n_names > 10 * MOST_COLUMNS:
            raise CorpusError(f"a row of over {10 * MOST_COLUMNS:,} names")
        if sum(data.count(mark, begin, end) for mark in (b",", b"[", b"{")) > MOST_ROW_VALUES:
            raise CorpusError(f"a row of over {MOST_ROW_VALUES:,} values")
        is_wide = is_wide or n_names > MOST_COLUMNS
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


def _check_lines(data: bytes) -> None:
    """Refuse lines that are neither blank nor one object, as far as brackets tell: the parser tells the rest, and ends
    there. It does not survive lists in lists by the thousand, nor a first row that is null."""
    at = len(_BOM) if data.startswith(_BOM) else 0
    while at < len(data):
        rows = _ROWS.match(data, at, at + _CHUNK_BYTES)
        if rows and rows.end() > at:
            at = rows.end()
            continue
        end = data.find(b"\n", at)
        end = len(data) if end < 0 else end
        if not _is_object(data, at, end) and data[at:end].strip(b" \t\r"):
            number = data.count(b"\n", 0, at) + 1
            raise CorpusError(f"line {number:,} is not one whole object: JSON lines have an object on each line")
        at = end + 1


def _is_object(data: bytes, begin: int, end: int) -> bool:
    """Whether what lies there is one object, by its brackets.

    Raises:
        CorpusError: it is too deep.
    """
    opened, depth = _OPEN.match(data, begin, end), 1
    at = opened.end() if opened else end
    while depth and (found := _BRACKET.match(data, at, end)):
        at = found.end()
        depth += 1 if data[at - 1] in b"[{" else -1
        if depth + 1 > _DEEPEST:  # with what is passed over
            raise CorpusError(f"a row of over {_DEEPEST:,} lists and objects in each other")
    return not depth and not data[at:end].strip(b" \t\r")


def _unlike_lines(data: bytes) -> Iterator[bytes]:
    """The lines that have other names than those before; some that have the same ones may be among them."""
    at = 0
    shapes: set[bytes] = set()
    while at < len(data):
        end = data.rfind(b"\n", at, at + _PIECE_BYTES) + 1 or data.find(b"\n", at + _PIECE_BYTES) + 1 or len(data)
        piece = data[at:end]
        for line, shape in zip(io.BytesIO(piece), b"".join(_SHAPE.findall(piece)).split(b"\n"), strict=False):
            if shape in shapes:
                continue
            if len(shapes) < _MOST_SHAPES and len(shape) <= _SHAPE_BYTES:
                shapes.add(shape)
            yield line
        at = end


class _Names(dict[str | None, "_Names"]):
    """Names, and those in the objects below each; None for what lies in lists. Whole paths would fill memory: a long
    name would be in each path below it."""


def _add_names(known: _Names, line: bytes) -> int:
    """Add the names in an object, also in the objects in it; none where it is invalid, which the parser tells.

    Returns:
        How many are new.
    """
    try:
        row = json.loads(line, parse_int=float, strict=False)  # integers of any number of digits
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
