"""Marks in files: CSV, as spreadsheets read and write it, and JSON lines, as `--json` prints them.

The columns are named like those of hits: ``uri, start_s, end_s, text, verdict, score, who, marked_at, status,
audio_id``. What ``format_csv`` writes, ``read_judgements`` reads as the same marks.
"""

import csv
import datetime as dt
import io
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from pipeline import storage
from pipeline.errors import UsageError, one_line, suggest
from pipeline.formulas import guard, unguard
from pipeline.marks.mark import Judgement, Mark, collect
from pipeline.text_rows import decode, is_json, read_csv, read_json

COLUMNS = ("uri", "start_s", "end_s", "text", "verdict", "score", "who", "marked_at", "status", "audio_id")
"""Columns of a CSV file that is written. All but ``status``, which is no judgement, are read."""

FOUND = ("rank", "peak_s", "probability", "file_id", "clip_id", "metadata", "uris", "first_frame", "stop_frame")
"""What hits and marks have besides: it may be there, and is not read."""

_SEPARATORS = ",;\t"
_CLOCK = re.compile(r"(?:(\d+):)?(\d+):(\d+(?:\.\d+)?)")


@dataclass(frozen=True)
class Defaults:
    """What holds for rows that do not say it themselves."""

    text: str | None = None
    verdict: str | None = None
    who: str | None = None


@dataclass(frozen=True)
class MarkFile:
    """What a file of marks says, and its columns that say nothing that is known."""

    judgements: list[Judgement]
    unknown: list[str]


Cells = tuple[int, Mapping[str, str]]
"""The number of a line, and its values by column; empty ones are left out."""


def read_file(path: str) -> bytes:
    """The content of a file, local or in a store.

    Raises:
        UsageError: it cannot be read.
    """
    try:
        with storage.fetched(path) as source, open(source, "rb") if isinstance(source, str) else source as file:
            return bytes(file.read())
    except Exception as error:  # each store has errors of its own
        raise UsageError(f"{path}: cannot be read: {one_line(error)}") from None


def read_judgements(name: str, data: bytes, defaults: Defaults = Defaults()) -> MarkFile:
    """The judgements in a file: JSON lines if it begins with a brace, else CSV with commas, semicolons or tabs.

    Args:
        name: of the file, for messages.

    Raises:
        UsageError: naming the line: it is not UTF-8, a cell cannot be read, or a column is missing.
    """
    text = decode(name, data)
    columns, rows = _read_json(name, text) if is_json(text) else _read_csv(name, text)
    given = {key for key in ("text", "verdict", "who") if getattr(defaults, key) is not None}
    _check_columns(name, columns, given)
    judgements = collect(rows, lambda row: _to_judgement(f"{name}: line {row[0]}", row[1], defaults))
    return MarkFile(judgements, [column for column in columns if column and column not in (*COLUMNS, *FOUND)])


def format_csv(marks: Iterable[Mark]) -> Iterator[str]:
    """The lines of a CSV file. No text in it is a formula of a spreadsheet (``pipeline.formulas``)."""
    for row in (COLUMNS, *([_format(getattr(mark, name)) for name in COLUMNS] for mark in marks)):
        line = io.StringIO()
        csv.writer(line).writerow(row)  # it quotes cells that have characters of its line end, which is \r\n
        yield line.getvalue().removesuffix("\r\n") + "\n"


def _format(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return guard(value)
    return value.isoformat() if isinstance(value, dt.datetime) else str(value)


# --- lines into cells -------------------------------------------------------------------------------------------------


def _read_csv(name: str, text: str) -> tuple[list[str], list[Cells]]:
    head = text.partition("\n")[0]
    separator = max(_SEPARATORS, key=head.count)
    lines = read_csv(name, text, separator)
    _, columns = next(lines, (0, []))
    columns = [column.strip() for column in columns]
    rows = list[Cells]()
    for number, cells in lines:
        if any(cell.strip() for cell in cells[len(columns) :]):
            message = f"has {len(cells)} cells, and the first line {len(columns)}: put cells with a separator in quotes"
            raise UsageError(f"{name}: line {number}: {message}")
        named = {column: unguard(cell) for column, cell in zip(columns, cells, strict=False) if cell.strip()}
        if separator == ";":  # of a spreadsheet where decimals have commas
            named |= {key: named[key].replace(",", ".") for key in ("start_s", "end_s", "score") if key in named}
        if named:
            rows.append((number, named))
    return columns, rows


def _read_json(name: str, text: str) -> tuple[list[str], list[Cells]]:
    columns: dict[str, None] = {}
    rows = list[Cells]()
    for number, values in read_json(name, text):
        columns |= dict.fromkeys(values)
        rows.append((number, {key: cell for key, value in values.items() if (cell := _to_cell(value)).strip()}))
    return list(columns), rows


def _to_cell(value: object) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value)


# --- cells into judgements --------------------------------------------------------------------------------------------


def _check_columns(name: str, columns: list[str], given: set[str]) -> None:
    if "uri" not in columns and "audio_id" not in columns:
        raise UsageError(f"{name}: {_miss('uri', columns)}: it names the file that was heard")
    for column in ("text", "verdict"):
        if column not in columns and column not in given:
            raise UsageError(f"{name}: {_miss(column, columns)}: add it, or give --{column} for all lines")
    if twice := [column for column in columns if column and columns.count(column) > 1]:
        raise UsageError(f"{name}: column `{twice[0]}` occurs twice: rename or remove one of them")


def _miss(column: str, columns: list[str]) -> str:
    like = suggest(column, [other for other in columns if other not in (*COLUMNS, *FOUND)])
    return f"has no column `{column}`{like.replace('you mean', 'you call it')}"


def _to_judgement(where: str, cells: Mapping[str, str], defaults: Defaults) -> Judgement:
    said = Judgement(
        uri=cells.get("uri", ""),
        text=cells.get("text", defaults.text or ""),
        verdict=cells.get("verdict", defaults.verdict or "").strip().lower(),
        who=cells.get("who", defaults.who),
        audio_id=cells.get("audio_id"),
        where=where,
    )
    try:
        return replace(
            said,
            start_s=parse_seconds(cells["start_s"]) if "start_s" in cells else 0.0,
            end_s=parse_seconds(cells["end_s"]) if "end_s" in cells else None,
            score=_parse_number("score", cells["score"]) if "score" in cells else None,
            marked_at=_parse_time(cells["marked_at"]) if "marked_at" in cells else None,
        )
    except ValueError as error:
        raise said.error(str(error)) from None


def parse_seconds(text: str) -> float:
    """``75.48``, or ``1:15.48`` as players and tables show it.

    Raises:
        ValueError: it is neither.
    """
    if clock := _CLOCK.fullmatch(text.strip()):
        hours, minutes, seconds = clock.groups()
        return 3600 * int(hours or 0) + 60 * int(minutes) + float(seconds)
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"{text!r} is no time: give seconds, like 75.48, or 1:15.48") from None


def _parse_number(column: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"{column} {text!r}: is no number") from None


def _parse_time(text: str) -> dt.datetime:
    try:
        at = dt.datetime.fromisoformat(text.strip())
    except ValueError:
        raise ValueError(f"marked_at {text!r}: is no time: expected one like 2026-01-02T03:04:05+00:00") from None
    return at.replace(tzinfo=dt.UTC) if at.tzinfo is None else at
