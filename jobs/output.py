"""What commands print: tables for people, JSON lines for programs."""

import datetime as dt
import json
import os
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, is_dataclass
from typing import Any


def print_json(rows: Iterable[Any]) -> None:
    """One JSON object per line; rows are dataclasses or mappings."""
    for row in rows:
        values = asdict(row) if is_dataclass(row) and not isinstance(row, type) else row
        sys.stdout.write(json.dumps(values, ensure_ascii=False, default=_to_json) + "\n")


def _to_json(value: Any) -> str:
    """Dates and times of metadata."""
    if isinstance(value, dt.date):
        return value.isoformat()
    raise TypeError(f"{type(value).__name__} is no JSON")


def print_table(
    title: str,
    columns: Sequence[str],
    rows: Iterable[Sequence[object]],
    right: Sequence[str] = (),
    whole: Sequence[str] = (),
) -> None:
    """A table as wide as it needs to be; ``right`` names the columns of numbers, ``whole`` others never folded."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(header_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    for name in columns:
        is_number = name in right
        table.add_column(
            name, justify="right" if is_number else "left", no_wrap=is_number or name in whole, overflow="fold"
        )
    for row in rows:
        table.add_row(*(Text(show(value)) for value in row))
    console = Console()
    console.print(
        Text(title, style="italic"), soft_wrap=True
    )  # as a title of the table it would be folded to the table's width
    console.print(table)


def show(value: object) -> str:
    """A value in one line: control characters of file names escaped, nothing for None."""
    if value is None:
        return ""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in str(value))


def show_hours(seconds: float) -> str:
    """``9000`` -> ``2.50 h``; short times in seconds."""
    return f"{seconds / 3600:.2f} h" if seconds >= 360 else f"{seconds:.0f} s"


def show_left(seconds: float) -> str:
    """``5400`` -> ``1 h 30 min``: a time to wait, as exact as one needs."""
    minutes = round(seconds / 60)
    if minutes < 1:
        return "less than a minute"
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def show_time(seconds: float) -> str:
    """``75.48`` -> ``1:15.48``, as a player shows it."""
    minutes, rest = divmod(round(seconds * 100), 6000)
    hours, minutes = divmod(minutes, 60)
    return (f"{hours}:{minutes:02d}" if hours else f"{minutes}") + f":{rest // 100:02d}.{rest % 100:02d}"


def show_bytes(n_bytes: float) -> str:
    """``1536000`` -> ``1.5 MB``."""
    for unit in ("B", "kB", "MB", "GB"):
        if n_bytes < 1000:
            return f"{n_bytes:.0f} {unit}" if unit == "B" else f"{n_bytes:.1f} {unit}"
        n_bytes /= 1000
    return f"{n_bytes:.1f} TB"


def show_path(uri: str) -> str:
    """A path below the current folder is shown from there."""
    here = os.getcwd() + os.sep
    return uri.removeprefix(here)
