"""Reads hits that a file holds: what `earshot query`, `locate` or `similar` prints with ``--json``, or a CSV export."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

from pipeline.errors import UsageError, suggest
from pipeline.export.cells import read_cell
from pipeline.export.labels import FIELDS, Label
from pipeline.export.texts import METADATA
from pipeline.formulas import unguard
from pipeline.grid import LONGEST_S
from pipeline.text_rows import decode, is_json, read_csv, read_json

NUMBERS = ("start_s", "end_s", "score", "probability", "peak_s", "low_hz", "high_hz")
WHOLE = ("rank", "sample_rate_hz")
NEEDED = ("uri", "start_s", "end_s")


def read_hits(path: str, data: bytes) -> list[Label]:
    """The hits in a file, in its order. Other columns, or fields, are metadata.

    Args:
        path: for messages. data: its content, UTF-8: JSON lines, or CSV with a header. No content: no hits.

    Raises:
        UsageError: it is neither; a row lacks uri or times, or has a value that is none; naming the line.
    """
    text = decode(path, data)
    rows = _read_json(path, text) if is_json(text) else _read_csv(path, text)
    return [_to_label(f"{path}: line {line}", row) for line, row in rows]


def _read_json(path: str, text: str) -> Iterator[tuple[int, dict[str, Any]]]:
    for line, row in read_json(path, text):
        said = row.pop("metadata", None) or {}
        if not isinstance(said, dict):
            raise UsageError(f"{path}: line {line}: `metadata` is no JSON object")
        yield line, {**{name: value for name, value in row.items() if value is not None}, "metadata": said}


def _read_csv(path: str, text: str) -> Iterator[tuple[int, dict[str, Any]]]:
    rows = read_csv(path, text)
    _, names = next(rows, (0, []))
    header = [unguard(name.strip()) for name in names]
    if missing := [name for name in NEEDED if name not in header] if text.strip() else []:
        like = suggest(missing[0], header)
        raise UsageError(
            f"{path}: has no column `{missing[0]}`{like}: give what `earshot locate --json` prints, or a CSV with"
            " the columns uri, start_s and end_s"
        )
    for line, cells in rows:
        yield line, _read_cells(f"{path}: line {line}", header, cells)


def _read_cells(where: str, header: list[str], cells: list[str]) -> dict[str, Any]:
    if len(cells) != len(header):
        raise UsageError(f"{where}: has {len(cells)} cells, and the header {len(header)}")
    row: dict[str, Any] = {"metadata": {}}
    for name, cell in zip(header, cells, strict=True):
        if name not in FIELDS:
            row["metadata"][name.removeprefix(METADATA)] = read_cell(cell)
        elif cell:
            row[name] = cell if name in (*NUMBERS, *WHOLE) else unguard(cell)
    return row


def _to_label(where: str, row: Mapping[str, Any]) -> Label:
    if missing := [name for name in NEEDED if name not in row]:
        raise UsageError(f"{where}: has no `{missing[0]}`")
    known = {name: _read_value(where, name, row[name]) for name in FIELDS if name in row}
    others = {name: value for name, value in row.items() if name not in FIELDS and name != "metadata"}
    label = Label(**known, metadata=others | row["metadata"])
    if not 0.0 <= label.start_s < label.end_s:
        raise UsageError(f"{where}: from {label.start_s} s to {label.end_s} s is no span of time")
    if label.end_s >= LONGEST_S:
        raise UsageError(
            f"{where}: `end_s` is {label.end_s}, which is longer than any file: give seconds below {LONGEST_S:.2f}"
        )
    return label


def _read_value(where: str, name: str, value: Any) -> Any:
    if name in NUMBERS or name in WHOLE:
        try:
            number = float(value)
        except (TypeError, ValueError, OverflowError):
            number = math.nan
        if isinstance(value, bool) or not math.isfinite(number) or (name in WHOLE and number != int(number)):
            raise UsageError(f"{where}: `{name}` is {value!r}, no {'whole ' if name in WHOLE else ''}number")
        return int(number) if name in WHOLE else number
    if not isinstance(value, str):
        raise UsageError(f"{where}: `{name}` is {value!r}, no text")
    return value
