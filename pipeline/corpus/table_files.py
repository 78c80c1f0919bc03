"""Reads tables that users make (CSV, JSON lines, Parquet) into Arrow. The types of columns fit all rows.

Names of columns lose blanks and quotes around them: the header ``uri, start_s`` names ``uri`` and ``start_s``.
"""

import codecs
import io
import json
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any

import pyarrow as pa

from pipeline import storage
from pipeline.corpus.csv_quoting import is_quoted, show_cell
from pipeline.corpus.text_limits import MOST_TEXT_TABLE_BYTES, check_csv, check_first_row, check_json
from pipeline.corpus.whole_parquet import read_whole_parquet
from pipeline.errors import CorpusError, one_line

SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet")
"""CSV with commas or with tabs, JSON lines, Parquet."""

KINDS = "CSV (.csv; with tabs, .tsv), JSON lines (.jsonl, .ndjson: an object on each line) or Parquet (.parquet)"

_MAX_BLOCK_BYTES = 2**31 - 1
_PIECE_BYTES = 2**20
_MIXED = re.compile(r"Column\(/(.*)\) changed from (\w+) to (\w+) in row (\d+)")
_TWICE = re.compile(r"Column\(/(.*)\) was specified twice in row (\d+)")
_IN_ROW = re.compile(r"in row (\d+)$")
_CELL_END = re.compile(rb"[,;\t\r\n\"]")
_SHOWN_BYTES = 30


def is_table_file(path: str) -> bool:
    """Whether a file is a table in one of these formats, by its name."""
    return path.lower().endswith(SUFFIXES)


def is_csv(path: str) -> bool:
    """Whether a file has no types, so that they are guessed from its values."""
    return path.lower().endswith((".csv", ".tsv"))


def read_table_file(path: str, as_text: Iterable[str] = ()) -> pa.Table:
    """The whole table. Several columns of CSV or Parquet may have the same name (``check_once``).

    Args:
        as_text: columns of a CSV file to read as text, whatever their values look like.

    Raises:
        CorpusError: it cannot be read, is too large, or has another extension; text is not UTF-8; a quote is not closed
            in its cell; a column of JSON holds values of several types, or occurs twice.
    """
    if not is_table_file(path):
        raise CorpusError(f"{path}: is no table by its name: give {KINDS}")
    try:
        with storage.fetched(path) as source, open(source, "rb") if isinstance(source, str) else source as file:
            table = _parse(path, file, set(as_text))
            return table.rename_columns([clean_name(name) for name in table.column_names])
    except CorpusError:
        raise
    except MemoryError:  # pyarrow's, too
        raise CorpusError(f"{path}: takes more memory than there is") from None
    except Exception as error:  # each store has errors of its own, and each reader
        raise CorpusError(f"{path}: cannot be read as a table: {one_line(error)}") from None


def clean_name(name: str) -> str:
    """The name of a column without blanks, quotes and a byte order mark around it."""
    name = name.strip().removeprefix("\ufeff").strip()
    is_quoted = len(name) > 1 and name[0] == name[-1] == '"'
    return name[1:-1].strip() if is_quoted else name


def check_once(path: str, table: pa.Table, names: Iterable[str]) -> None:
    """Refuse a table in which one of these columns occurs more than once.

    Raises:
        CorpusError: naming it.
    """
    for name in names:
        if table.column_names.count(name) > 1:
            raise CorpusError(_twice(path, name))


def _twice(where: str, name: str) -> str:
    return f"{where}: column `{name}` occurs twice: rename or remove one of them"


@contextmanager
def _naming(path: str) -> Iterator[None]:
    """Puts the path before the messages of errors."""
    try:
        yield
    except CorpusError as error:
        raise CorpusError(f"{path}: {error}") from None


def _parse(path: str, file: Any, as_text: set[str]) -> pa.Table:
    if path.lower().endswith(".parquet"):
        with _naming(path):
            return read_whole_parquet(file)
    if not is_csv(path):
        with _naming(path):
            check_first_row(file)
    data = file.read(MOST_TEXT_TABLE_BYTES + 1)
    if len(data) > MOST_TEXT_TABLE_BYTES:
        raise CorpusError(f"{path}: over {MOST_TEXT_TABLE_BYTES:,} bytes of text: split it, or write it as Parquet")
    _check_encoding(path, data)
    # In one block: Arrow infers the types of columns from the first block.
    block_bytes = min(max(len(data) + 1, 2**20), _MAX_BLOCK_BYTES)
    if is_csv(path):
        table = _parse_csv(path, data, block_bytes, as_text)
        called_so = {name for name in table.column_names if clean_name(name) in as_text}
        return table if called_so <= as_text else _parse_csv(path, data, block_bytes, as_text | called_so)
    from pyarrow import json as arrow_json

    with _naming(path):
        check_json(data)
    try:
        return arrow_json.read_json(pa.BufferReader(data), arrow_json.ReadOptions(block_size=block_bytes))
    except pa.ArrowInvalid as error:
        if mixed := _MIXED.search(str(error)):
            raise CorpusError(_explain_mixed(path, data, *mixed.groups())) from None
        if twice := _TWICE.search(str(error)):
            raise CorpusError(_twice(f"{path}: row {int(twice[2]) + 1}", twice[1])) from None
        said = _IN_ROW.sub(lambda row: f"in row {int(row[1]) + 1}", one_line(error))
        raise CorpusError(f"{path}: cannot be read as a table: {said}") from None


def _parse_csv(path: str, data: bytes, block_bytes: int, as_text: set[str]) -> pa.Table:
    from pyarrow import csv

    mark = "\t" if path.lower().endswith(".tsv") else ","
    quoted = is_quoted(path, data, mark)
    with _naming(path):
        check_csv(data, mark, quoted)
    quote, types = '"' if quoted else False, dict.fromkeys(as_text, pa.string())
    parse = csv.ParseOptions(delimiter=mark, quote_char=quote, newlines_in_values=True)
    # `null` and `NA` may be names.
    convert = csv.ConvertOptions(column_types=types, strings_can_be_null=True, null_values=[""])
    return csv.read_csv(pa.BufferReader(data), csv.ReadOptions(block_size=block_bytes), parse, convert)


def _check_encoding(path: str, data: bytes) -> None:
    """Refuse text that is not UTF-8. Arrow would read it as bytes from CSV, and as text from JSON."""
    decoder, view = codecs.getincrementaldecoder("utf-8")(), memoryview(data)
    for first in range(0, len(data), _PIECE_BYTES):
        n_held = len(decoder.getstate()[0])
        try:
            decoder.decode(view[first : first + _PIECE_BYTES], final=first + _PIECE_BYTES >= len(data))
        except UnicodeDecodeError as error:
            raise CorpusError(_explain_encoding(path, data, first - n_held + error.start)) from None


def _explain_encoding(path: str, data: bytes, at: int) -> str:
    """The message about a byte that is not UTF-8: its line, and the text around it in its cell."""
    first = max(0, at - _SHOWN_BYTES)
    begin = max((first, *(end.end() for end in _CELL_END.finditer(data, first, at))))
    end = _CELL_END.search(data, at, at + _SHOWN_BYTES)
    cell = data[begin : end.start() if end else at + _SHOWN_BYTES]
    line = data.count(b"\n", 0, at) + 1
    return f"{path}: line {line}: {show_cell(cell)} is not UTF-8: save the table as UTF-8"


def _explain_mixed(path: str, data: bytes, column: str, before: str, here: str, row: str) -> str:
    rows = (line for line in io.BytesIO(data) if line.strip())
    value = json.loads(next(islice(rows, int(row), None))).get(column)
    return f"{path}: row {int(row) + 1}: column `{column}` is {value!r}, {here} where the rows before have {before}"
