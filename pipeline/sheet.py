"""A table that a person has made in, an Arrow table out: CSV, JSON lines or Parquet. Types are those of all rows."""

import io
import json
import re
from collections.abc import Iterable
from typing import Any

import pyarrow as pa

from pipeline import storage
from pipeline.errors import CorpusError
from pipeline.read import one_line

SUFFIXES = (".csv", ".jsonl", ".ndjson", ".parquet")

_MAX_BLOCK_BYTES = 2**31 - 1
_MIXED = re.compile(r"Column\(/(.*)\) changed from (\w+) to (\w+) in row (\d+)")


def is_sheet(path: str) -> bool:
    """Whether a file can be read, by its name."""
    return path.lower().endswith(SUFFIXES)


def read_sheet(path: str, as_text: Iterable[str] = ()) -> pa.Table:
    """The table, whole.

    Args:
        as_text: columns of a CSV file that are text, whatever they look like.

    Raises:
        CorpusError: it cannot be read; a column of JSON holds values of several types.
    """
    try:
        with storage.fetched(path) as source, open(source, "rb") if isinstance(source, str) else source as file:
            return _parse(path, file, as_text)
    except CorpusError:
        raise
    except Exception as error:  # each store has errors of its own, and each reader
        raise CorpusError(f"{path}: cannot be read as a table: {one_line(error)}") from None


def _parse(path: str, file: Any, as_text: Iterable[str]) -> pa.Table:
    if path.lower().endswith(".parquet"):
        import pyarrow.parquet as pq

        return pq.read_table(file)
    data = file.read()
    # In one block: the types of a column are inferred from the first.
    block_bytes = min(max(len(data) + 1, 2**20), _MAX_BLOCK_BYTES)
    if path.lower().endswith(".csv"):
        from pyarrow import csv

        return csv.read_csv(
            io.BytesIO(data),
            read_options=csv.ReadOptions(block_size=block_bytes),
            parse_options=csv.ParseOptions(newlines_in_values=True),
            # `null` and `NA` may be names.
            convert_options=csv.ConvertOptions(
                column_types=dict.fromkeys(as_text, pa.string()), strings_can_be_null=True, null_values=[""]
            ),
        )
    from pyarrow import json as arrow_json

    try:
        return arrow_json.read_json(io.BytesIO(data), arrow_json.ReadOptions(block_size=block_bytes))
    except pa.ArrowInvalid as error:
        if (mixed := _MIXED.search(str(error))) is None:
            raise
        raise CorpusError(_explain_mixed(path, data, *mixed.groups())) from None


def _explain_mixed(path: str, data: bytes, column: str, before: str, here: str, row: str) -> str:
    lines = [line for line in data.splitlines() if line.strip()]
    value = json.loads(lines[int(row)]).get(column)
    return f"{path}: row {int(row) + 1}: column `{column}` is {value!r}, {here} where the rows before have {before}"
