"""Rows of tables that people write as text: CSV, or JSON lines. A wrong one is refused by the line on which it begins.

``name`` is that of the file, for messages. ``corpus.table_files`` reads the tables of a corpus, of millions of rows.
"""

import csv
import io
import json
from collections.abc import Iterator
from typing import Any

from pipeline.errors import UsageError


def decode(name: str, data: bytes) -> str:
    """The text of a file, UTF-8, without a byte order mark.

    Raises:
        UsageError: it is not UTF-8.
    """
    try:
        return data.decode().removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UsageError(f"{name}: line {line}: is not UTF-8: save the table as UTF-8") from None


def is_json(text: str) -> bool:
    """Whether a text is JSON lines, and not CSV."""
    return text.lstrip().startswith("{")


def read_csv(name: str, text: str, separator: str = ",") -> Iterator[tuple[int, list[str]]]:
    """The rows of CSV that are not empty, the header first, each with the number of its line.

    Raises:
        UsageError: a quote is not closed, or is followed by other text.
    """
    reader, before = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True), 0
    while True:
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            said = f"is no CSV: {error}; a cell that begins with a quote ends with one, and quotes in it are doubled"
            raise UsageError(f"{name}: line {before + 1}: {said}") from None
        if cells:
            yield before + 1, cells
        before = reader.line_num


def read_json(name: str, text: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """The objects of JSON lines, each with the number of its line.

    Raises:
        UsageError: a line is something else.
    """
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            values = json.loads(line)
            if "\\u" in line:  # so may halves of characters be written, which no table can hold
                json.dumps(values, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise UsageError(f"{name}: line {number}: has half of a character (\\ud800 to \\udfff)") from None
        except (ValueError, RecursionError):
            values = None
        if not isinstance(values, dict):
            said = "is no JSON object; give one on each line, as `--json` prints them"
            raise UsageError(f"{name}: line {number}: {said}")
        yield number, values
