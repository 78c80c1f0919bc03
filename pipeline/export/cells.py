"""Values as cells of CSV that spreadsheets take for text and not for a formula, and cells as values again."""

import datetime as dt
import json
import math
import re
from collections.abc import Sequence
from typing import Any

from pipeline.formulas import guard, unguard

_TO_QUOTE = re.compile(r'[",\r\n]')

_NUMBER = re.compile(r"-?(?:0|[1-9]\d*)(?:\.\d+)?(?:e[+-]?\d+)?")


def format_cell(value: object) -> str:
    """A value as a cell: nothing for None, numbers in full, dates in ISO 8601, nested values as JSON."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, dt.date):
        return value.isoformat()
    return guard(value if isinstance(value, str) else format_json(value))


def format_row(cells: Sequence[object]) -> str:
    """A line of CSV (RFC 4180, with line feeds), its line break included.

    Python's writer leaves a carriage return unquoted, where readers would end the line.
    """
    return ",".join(_quote(format_cell(cell)) for cell in cells) + "\n"


def _quote(cell: str) -> str:
    if not _TO_QUOTE.search(cell):
        return cell
    doubled = cell.replace('"', '""')
    return f'"{doubled}"'


def read_number(cell: str) -> int | float | None:
    """The number that ``format_cell`` made this cell of; None if it is none, or was written in another way."""
    if not _NUMBER.fullmatch(cell):
        return None
    number = float(cell) if re.search(r"[.e]", cell) else int(cell)
    return number if repr(number) == cell else None


def read_cell(cell: str) -> Any:
    """A value of metadata from its cell."""
    if cell in ("", "true", "false"):
        return {"": None, "true": True, "false": False}[cell]
    number = read_number(cell)
    return unguard(cell) if number is None else number


def format_json(value: Any) -> str:
    """JSON in one line: dates in ISO 8601, bytes as hexadecimal digits, null for numbers that JSON does not have."""
    text = json.dumps(_to_plain(value), ensure_ascii=False)
    # Within strings, JSON allows these, but some programs end a line there.
    return re.sub("[\u0085\u2028\u2029]", lambda found: f"\\u{ord(found[0]):04x}", text)


def _to_plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(name): _to_plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_to_plain(each) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dt.date | dt.time):
        return value.isoformat()
    if isinstance(value, bytes):
        return value.hex()
    return value if isinstance(value, str | int | float) or value is None else str(value)
