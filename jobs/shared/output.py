"""Everything that commands print goes through here: tables and lines for people, JSON lines for programs.

File names, tags, notes and messages can contain anything. Characters that would steer a terminal, reverse the text or
break the line are shown as escapes, such as ``\\x1b``, and nothing is interpreted as markup. JSON writes them as
``\\u001b``, which programs read as the same value.
"""

import datetime as dt
import json
import os
import re
import sys
import unicodedata
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, is_dataclass
from io import TextIOWrapper
from typing import TYPE_CHECKING, Any, TextIO

from pipeline.credentials import without_credentials
from pipeline.words import show_path

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

_COLOUR = re.compile(r"\x1b\[[0-9;:]*m")


def escape(text: str, keep: str = "") -> str:
    """``text`` with escapes for invisible characters: control and format characters, and lone surrogates.

    These are C0 and C1 controls, direction marks, line separators, joiners and unassigned code points. Spaces of any
    width stay, and so do the characters in ``keep``.
    """
    if text.isprintable():
        return text
    return "".join(char if char in keep or _is_shown(char) else char.encode("unicode_escape").decode() for char in text)


def _is_shown(char: str) -> bool:
    return char.isprintable() or unicodedata.category(char) == "Zs"


def show(value: object) -> str:
    """A value in one line; nothing for None."""
    return "" if value is None else escape(str(value))


def to_text(value: object) -> "Text":
    """A value in one line, for rich, without markup; what ``fit_beside`` has made stays as it is."""
    from rich.text import Text

    return value if isinstance(value, Text) else Text(show(value))


def prepare() -> None:
    """Make every text printable, also on terminals without UTF-8, and every warning one line."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    warnings.showwarning = _print_warning


def _print_warning(message: Warning | str, *_: object, **__: object) -> None:
    """Replaces ``warnings.showwarning``, which would add a path and a line of code."""
    print_error(f"earshot: warning: {without_credentials(' '.join(str(message).split()))}")


def print_line(text: str = "") -> None:
    """One line on stdout."""
    _write(escape(text) + "\n", sys.stdout)


def print_error(text: str, *, over: bool = False) -> None:
    """One line on stderr.

    Args:
        over: write over the last line of the terminal.
    """
    clear = "\r\x1b[K" if over and sys.stderr.isatty() else ""
    _write(f"{clear}{escape(text)}\n", sys.stderr)


def flush() -> None:
    """Flush stdout and stderr."""
    for stream in (sys.stdout, sys.stderr):
        stream.flush()


def print_log(texts: Iterable[str], *, to_stderr: bool = False) -> None:
    """The output of another program, line by line as it comes; line breaks and tabs stay, colours are removed."""
    for text in whole_lines(texts):
        plain = _COLOUR.sub("", text.replace("\r\n", "\n"))
        _write(escape(plain, keep="\n\t"), sys.stderr if to_stderr else sys.stdout)


def whole_lines(texts: Iterable[str]) -> Iterator[str]:
    """The same text, split after whole lines: a cluster splits it anywhere."""
    rest = ""
    try:
        for text in texts:
            whole, newline, rest = (rest + text).rpartition("\n")
            if newline:
                yield whole + newline
    except Exception:  # the connection is lost
        if rest:
            yield rest
        raise
    if rest:
        yield rest


def print_content(pieces: Iterable[bytes]) -> None:
    """The content of a text file, UTF-8 in whole lines, as it is; a terminal gets escapes for invisible characters."""
    for piece in pieces:
        if sys.stdout.isatty():
            _write(escape(piece.decode(), keep="\n\t"), sys.stdout)
        else:
            sys.stdout.buffer.write(piece)
    flush()


def _write(text: str, stream: TextIO) -> None:
    stream.write(text)
    stream.flush()


def print_json(rows: Iterable[Any]) -> None:
    """One JSON object per line; rows are dataclasses or mappings."""
    for row in rows:
        values = asdict(row) if is_dataclass(row) and not isinstance(row, type) else row
        _write(format_json(values, sys.stdout.encoding) + "\n", sys.stdout)


def format_json(values: Any, encoding: str | None = "utf-8") -> str:
    """JSON in one line of visible characters; of ASCII alone for an ``encoding`` other than Unicode."""
    is_unicode = (encoding or "").lower().replace("-", "").startswith("utf")
    text = json.dumps(values, ensure_ascii=not is_unicode, default=_to_json)
    # Other characters occur only inside strings, where JSON may write them as numbers.
    return text if text.isprintable() else "".join(c if _is_shown(c) else json.dumps(c)[1:-1] for c in text)


def _to_json(value: Any) -> str:
    """Dates and times of metadata."""
    if isinstance(value, dt.date):
        return value.isoformat()
    raise TypeError(f"{type(value).__name__} is no JSON")


def make_console(*, to_stderr: bool = False) -> "Console":
    """The console for tables and bars; give it only text from ``to_text``."""
    from rich.console import Console

    return Console(stderr=to_stderr, markup=False, emoji=False, highlight=False)


def print_table(
    title: str,
    columns: Sequence[str],
    rows: Iterable[Sequence[object]],
    right: Sequence[str] = (),
    whole: Sequence[str] = (),
    *,
    paths: str | None = None,
    is_dim: Sequence[bool] = (),
) -> None:
    """A table as wide as its content.

    On a terminal it fits the width. In a pipe or a file nothing is folded, unless COLUMNS says how wide it may be.

    Args:
        right, whole: the columns of numbers, and others that never fold.
        paths: the column of paths, which are shortened where there is no room; on a terminal they are links.
        is_dim: for each row, whether it matters less.
    """
    from rich import box
    from rich.table import Table

    console = _make_table_console()
    rows = list(rows)
    cells = [[to_text(value) for value in row] for row in rows]
    folder, at = "", -1
    if paths is not None:
        at = columns.index(paths)
        room = _find_room(cells, columns, at, console.width, {*right, *whole})
        folder, found = _fit_paths([row[at] for row in rows], room, link=console.is_terminal)
        cells = [[*row[:at], path, *row[at + 1 :]] for row, path in zip(cells, found, strict=True)]
    table = Table(header_style="bold", box=box.SIMPLE_HEAD, pad_edge=False, show_header=any(columns))
    for number, name in enumerate(columns):
        is_number = name in right
        table.add_column(
            to_text(name),
            justify="right" if is_number else "left",
            no_wrap=is_number or name in whole or number == at,
            overflow="fold",
        )
    for number, row in enumerate(cells):
        table.add_row(*row, style="dim" if number < len(is_dim) and is_dim[number] else None)
    # A title of the table itself would be folded to the table's width.
    console.print(to_text(title), style="italic", soft_wrap=True)
    if folder:
        console.print(to_text(f"files in {folder}"), style="italic", soft_wrap=True)
    console.print(table)


def fit_beside(names: Sequence[str], paths: Sequence[str]) -> list["Text"]:
    """Paths for the second of two columns, a line each. Where they are too long, a line before them names the folder
    that they have in common.

    Args:
        names: what the first column of the table holds.
    """
    from rich.text import Text

    console = _make_table_console()
    room = _find_room([[to_text(name), Text()] for name in names], ["", ""], 1, console.width, {""})
    folder, shown = _fit_paths(paths, room, link=console.is_terminal)
    if not folder:
        return shown
    _, [holder] = _fit_paths([folder.removesuffix("/")], room - len("in "), link=console.is_terminal)
    return [Text.assemble("in ", holder), *shown]


def _make_table_console() -> "Console":
    console = make_console()
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = UNFOLDED
    return console


UNFOLDED = 10_000
"""More characters than a line of a table has."""

LEAST_PATH, MOST_TEXT = 12, 30
"""Room for a path, at least; and room that is left to a column of other texts, if they are as long."""


def _find_room(cells: list[list["Text"]], columns: Sequence[str], at: int, width: int, whole: set[str]) -> int:
    """The room for the paths in column ``at``, in cells of the terminal."""
    from rich.cells import cell_len

    room = width - 2 - 3 * (len(columns) - 1)
    for number, name in enumerate(columns):
        if number != at:
            longest = max((row[number].cell_len for row in cells), default=0)
            room -= max(cell_len(show(name)), longest if name in whole else min(longest, MOST_TEXT))
    return max(LEAST_PATH, room)


def _fit_paths(uris: Sequence[object], room: int, *, link: bool) -> tuple[str, list["Text"]]:
    """The folder that paths have in common, and the rest of each in this room.

    Args:
        link: make them links.
    """
    from rich.style import Style
    from rich.text import Text

    from jobs.shared.path_column import find_link, fit_paths

    folder, shown = fit_paths([show_path(show(uri)) for uri in uris], room)
    links = [find_link(str(uri)) if link else None for uri in uris]
    return folder, [Text(path, style=Style(link=to) if to else "") for path, to in zip(shown, links, strict=True)]


def show_when(moment: str | None) -> str:
    """``2026-01-02T03:04:05.678+00:00`` -> ``2026-01-02 03:04:05``."""
    return "" if moment is None else moment[:19].replace("T", " ")


def show_left(seconds: float) -> str:
    """``5400`` -> ``1 h 30 min``: a time to wait."""
    minutes = round(seconds / 60)
    if minutes < 1:
        return "less than a minute"
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def show_time(seconds: float) -> str:
    """``75.48`` -> ``1:15.48``, as a player shows it."""
    minutes, rest = divmod(round(seconds * 100), 6000)
    hours, minutes = divmod(minutes, 60)
    return (f"{hours}:{minutes:02d}" if hours else f"{minutes}") + f":{rest // 100:02d}.{rest % 100:02d}"
