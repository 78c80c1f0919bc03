"""Rows of tables with audio are read in one pass, and from the newest version of their table."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from pipeline.corpus import audio_rows, audio_tables
from pipeline.errors import FileFailure
from tests.helpers.shards import AUDIO, TABLES, write_rows, write_table


class Counted:
    """A table that counts the groups and batches that are read from it."""

    def __init__(self, table: Any) -> None:
        self._table, self.begun, self.n_batches = table, list[int](), 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._table, name)

    def read_group(self, group: int) -> Iterator[pa.Array]:
        self.begun.append(group)
        for batch in self._table.read_group(group):
            self.n_batches += 1
            yield batch


def test_rows_in_order_take_one_pass(tmp_path: Path) -> None:
    data = [os.urandom(2**20) for _ in range(24)]
    table = write_rows(tmp_path / "a.parquet", [(None, each) for each in data], row_group_size=12)
    counted: list[Counted] = []

    def open_counted(path: str) -> Any:
        counted.append(Counted(audio_tables.open_table(path)))
        return counted[-1]

    cursors = audio_rows.Cursors(open_counted)
    assert [cursors.read(str(table), number) for number in range(24)] == data
    assert [(one.begun, one.n_batches) for one in counted] == [([0, 1], 24)]  # row by row
    assert cursors.read(str(table), 13) == data[13]
    assert cursors.read(str(table), 20) == data[20]
    assert [(one.begun, one.n_batches) for one in counted] == [([0, 1, 1], 33)]
    for number in range(audio_rows.OPEN_TABLES + 1):
        cursors.read(str(write_rows(tmp_path / f"{number}.parquet", [(None, b"x")])), 0)
    assert cursors.read(str(table), 21) == data[21]
    assert len(counted) == audio_rows.OPEN_TABLES + 3


def test_rewritten_table_is_opened_again(tmp_path: Path) -> None:
    for k in range(3):
        table = write_rows(tmp_path / "a.parquet", [(None, f"{k} {number}".encode()) for number in range(3 - k)])
        assert audio_rows.read_row(str(table), 0) == f"{k} 0".encode()
    with pytest.raises(LookupError):
        audio_rows.read_row(str(table), 1)
    table.unlink()
    with pytest.raises(FileNotFoundError):
        audio_rows.read_row(str(table), 0)


@pytest.mark.parametrize("kind", TABLES)
def test_row_without_bytes_is_empty(tmp_path: Path, kind: str) -> None:
    audio = [{"bytes": b"", "path": "b"}, {"bytes": None, "path": "c"}, None]
    table = write_table(tmp_path / kind, pa.table({"audio": pa.array(audio, AUDIO)}))
    assert audio_rows.read_row(str(table), 0) == b""
    for number in (1, 2):
        with pytest.raises(FileFailure, match="only a path: embed the files") as raised:
            audio_rows.read_row(str(table), number)
        assert raised.value.reason == "empty"
