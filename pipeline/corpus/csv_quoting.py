"""Decides whether the cells of a CSV or TSV file are quoted: an unclosed quote would swallow the rows behind it.

In CSV, a cell that begins with a quote is quoted (RFC 4180). Tab-separated text comes in two kinds: spreadsheets quote
as in CSV; other programs treat a quote as any other letter, and use tabs and line breaks only between cells. A TSV file
counts as quoted if every cell that begins with a quote ends with one.
"""

import re

from pipeline.errors import CorpusError

_CLOSED = rb'"(?:[^"]++|"")*+"'
_SHOWN_BYTES = 30


def is_quoted(path: str, data: bytes, mark: str) -> bool:
    """Whether cells that begin with a quote are quoted.

    Args:
        path: for messages. data: UTF-8. mark: the separator of cells, a comma or a tab.

    Raises:
        CorpusError: a quote is not closed in its cell.
    """
    if b'"' not in data or not _find_opening(mark).search(_without_quoted(data, mark)):
        return True
    return _check_tabs(path, data) if mark == "\t" else _check_commas(path, data)


def _find_opening(mark: str) -> re.Pattern[bytes]:
    """Matches the quote at the beginning of a cell as group 2, and the separator before it as group 1."""
    return re.compile(rb'(\A(?:\xef\xbb\xbf)?|[%b\r\n])(")' % mark.encode())


def _without_quoted(data: bytes, mark: str) -> bytes:
    """The text without the cells that are quoted correctly."""

    def empty(cell: re.Match[bytes]) -> bytes:
        # A match with both a tab and a line break rather consists of the rows behind an unclosed quote.
        is_rows = b"\t" in cell[2] and (b"\n" in cell[2] or b"\r" in cell[2])
        return cell[0] if is_rows else cell[1]

    quoted = re.compile(rb"(\A(?:\xef\xbb\xbf)?|[%b\r\n])(%b)(?=[%b\r\n]|\Z)" % (mark.encode(), _CLOSED, mark.encode()))
    return quoted.sub(empty if mark == "\t" else rb"\1", data)


def _check_tabs(path: str, data: bytes) -> bool:
    """Decides that the cells of a TSV are not quoted, since a quote closes before its cell ends: ``"Yes," he said``.

    Refuses a cell that begins with a quote and has an odd number of them. Returns whether cells are quoted: False.
    """
    for cell in re.finditer(rb'(?:\A(?:\xef\xbb\xbf)?|[\t\r\n])("[^\t\r\n]*)', data):
        if cell[1].count(b'"') % 2:
            raise _unclosed(path, data, cell.start(1), "\t")
    return False


def _check_commas(path: str, data: bytes) -> bool:
    """Decides that the cells of a CSV are quoted: text behind a closed quote (``"Weird Al" Yankovic``) costs no row.

    Refuses a quote that never closes, or closes in the middle of another line. Returns whether cells are quoted: True.
    """
    opening, closed, at = _find_opening(","), re.compile(_CLOSED), 0
    while found := opening.search(data, at):
        begin = found.start(2)
        quoted = closed.match(data, begin)
        if quoted is None:
            raise _unclosed(path, data, begin, ",")
        at = quoted.end()
        if data[at : at + 1] not in (b"", b",", b"\r", b"\n") and re.search(rb"[\r\n]", quoted[0]):
            raise _unclosed(path, data, begin, ",")
    return True


def _unclosed(path: str, data: bytes, begin: int, mark: str) -> CorpusError:
    cell = re.split(rb"[%b\r\n]" % mark.encode(), data[begin : begin + _SHOWN_BYTES], maxsplit=1)[0]
    line = data.count(b"\n", 0, begin) + 1
    return CorpusError(
        f"{path}: line {line}: the cell {show_cell(cell)} begins with a quote that is not closed in it: close it,"
        " or remove it; to write a quote itself, put the cell in quotes and double the quote"
    )


def show_cell(cell: bytes) -> str:
    """A piece of text in quotes, for a message. Bytes that cannot be printed are escaped."""
    text = cell.decode(errors="backslashreplace")
    shown = "".join(letter if letter.isprintable() else f"\\x{ord(letter):02x}" for letter in text)
    return f"'{shown}'"
