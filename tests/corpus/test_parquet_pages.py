"""Pages of Parquet that would fill memory are refused before they are decompressed, whatever the footer says."""

import io
import shutil
from contextlib import nullcontext, suppress
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.corpus import parquet_pages, table_limits
from pipeline.corpus.audio_rows import read_row
from pipeline.corpus.audio_tables import list_rows
from pipeline.corpus.parquet_columns import ParquetColumns
from pipeline.corpus.parquet_pages import PageGuard, count_page_bytes, read_page_header
from pipeline.corpus.table_columns import Memory, read_columns
from pipeline.errors import CorpusError

N_ROWS = 4_000


def write(path: Path, **options: object) -> Path:
    names = [f"{number:>500}" for number in range(N_ROWS)]
    audio = pa.array([{"bytes": b"x", "path": name} for name in names])
    table = pa.table({"audio": audio, "title": names, "n": range(N_ROWS)})
    settings = {"compression": "zstd", "use_dictionary": False, "data_page_size": 50_000, "write_batch_size": 100}
    pq.write_table(table, path, **(settings | options))
    return path


def count(path: Path, name: str, most_bytes: int = 10**9) -> int:
    row_group = pq.ParquetFile(path).metadata.row_group(0)
    [column] = [c for c in map(row_group.column, range(row_group.num_columns)) if c.path_in_schema == name]
    begin = min(column.data_page_offset, column.dictionary_page_offset or column.data_page_offset)
    with path.open("rb") as file:
        return count_page_bytes(file, begin, column.total_compressed_size, most_bytes).n_bytes


class Counting(io.FileIO):
    """A file that counts how often it is read."""

    n_reads = 0

    def read(self, size: int | None = -1) -> bytes:
        self.n_reads += 1
        return super().read(size)


@pytest.mark.parametrize("dictionary", [False, True])
@pytest.mark.parametrize("version", ["1.0", "2.0"])
@pytest.mark.parametrize("codec", ["none", "snappy", "zstd"])
def test_pages_are_counted(tmp_path: Path, dictionary: bool, version: str, codec: str) -> None:
    options = {"use_dictionary": dictionary, "data_page_version": version, "compression": codec}
    path = write(tmp_path / "a.parquet", **options, write_page_checksum=True)
    assert count(path, "title") == pytest.approx(504 * N_ROWS, rel=0.02)
    assert count(path, "n") == pytest.approx(8 * N_ROWS, rel=0.5)
    with pytest.raises(CorpusError, match=r"over [\d,]+ bytes in its pages; 1,000,000 are read"):
        count(path, "title", 1_000_000)


def test_names_in_large_pages_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table_limits, "LITTLE_BYTES", 500_000)
    path = write(tmp_path / "a.parquet")
    assert path.stat().st_size < 500_000
    with pytest.raises(CorpusError, match="bytes in its pages; 500,000 are read"):
        list(list_rows(str(path)))


@pytest.mark.parametrize("group_rows", [N_ROWS, 50])
def test_column_in_large_pages_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, group_rows: int) -> None:
    monkeypatch.setattr(table_limits, "LITTLE_BYTES", 1_000_000)
    path = write(tmp_path / "a.parquet", row_group_size=group_rows)
    assert path.stat().st_size < 1_000_000
    table, notes = read_columns(str(path), lambda column: True, Memory())
    assert table.column_names == ["n"]
    assert "column `title`: over" in notes[0]


def test_number_of_pages_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet_pages, "MOST_PAGES", 10)
    with pytest.raises(CorpusError, match="over 10 pages"):
        count(write(tmp_path / "a.parquet"), "title")


def test_tiny_pages_are_counted_without_a_read_for_each(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", data_page_size=1, write_batch_size=1, compression="none")
    column = pq.ParquetFile(path).metadata.row_group(0).column(3)
    with Counting(path) as file:
        found = count_page_bytes(file, column.data_page_offset, column.total_compressed_size, 10**9)
    assert found.n_pages == N_ROWS
    assert found.n_bytes > 8 * N_ROWS
    assert file.n_reads <= 2 + column.total_compressed_size / 50_000


@pytest.mark.parametrize("block_bytes", [1_000, 100_000, 10**9])
def test_tiny_pages_of_audio_are_guarded_without_a_read_for_each(tmp_path: Path, block_bytes: int) -> None:
    """Beside each block, at most the header that its end cuts off is read."""
    path = write(tmp_path / "a.parquet", data_page_size=1, write_batch_size=1, compression="none")
    column = pq.ParquetFile(path).metadata.row_group(0).column(3)
    begin, n_bytes = column.data_page_offset, column.total_compressed_size
    with Counting(path) as file:
        guard = PageGuard(file, begin, n_bytes, 1_000)
        guard.seek(begin)
        data = b"".join(iter(lambda: guard.read(min(block_bytes, begin + n_bytes - guard.tell())), b""))
    assert data == path.read_bytes()[begin : begin + n_bytes]
    assert file.n_reads <= 4 + 2 * n_bytes / block_bytes


def test_pages_of_all_columns_are_counted_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.parquet", row_group_size=N_ROWS // 4)
    for most, is_refused in ((200, False), (30, True)):
        monkeypatch.setattr(parquet_pages, "MOST_PAGES", most)
        with path.open("rb") as file:
            columns = ParquetColumns(file)
            columns.check_pages(range(4), "n", 10**9)
            with pytest.raises(CorpusError, match=f"over {most} pages") if is_refused else nullcontext():
                columns.check_pages(range(4), "title", 10**9)


def test_pages_of_audio_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = pa.table({"audio": pa.array([{"bytes": b"x" * 9, "path": f"{number}"} for number in range(100)])})
    pq.write_table(table, tmp_path / "a.parquet", data_page_size=1, write_batch_size=1, use_dictionary=False)
    assert read_row(str(tmp_path / "a.parquet"), 99) == b"x" * 9
    monkeypatch.setattr(parquet_pages, "MOST_PAGES", 50)
    shutil.copy(tmp_path / "a.parquet", tmp_path / "b.parquet")
    with pytest.raises(CorpusError, match="over 50 pages"):
        read_row(str(tmp_path / "b.parquet"), 99)


def test_pages_that_columns_share_are_refused(tmp_path: Path) -> None:
    """Each column is asked for once; here one stands for several that lie at the same place."""
    with write(tmp_path / "a.parquet", compression="none").open("rb") as file:
        columns = ParquetColumns(file)
        for name in ("audio.path", "title", "n"):
            assert columns.check_pages([0], name, 10**9) > 0
        with pytest.raises(CorpusError, match="more bytes in its columns than the file has"):
            sum(columns.check_pages([0], "n", 10**9) for _ in range(100))


def test_damaged_pages_are_invalid(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", data_page_size=1_000, write_batch_size=1)
    row_group = pq.ParquetFile(path).metadata.row_group(0)
    column, data = row_group.column(2), path.read_bytes()
    draw = np.random.default_rng(1)
    for _ in range(200):
        damaged = bytearray(data)
        for at in draw.integers(0, 200, 3):
            damaged[column.data_page_offset + at] = draw.integers(256)
        (tmp_path / "b").write_bytes(damaged)
        with (tmp_path / "b").open("rb") as file, suppress(CorpusError):
            assert count_page_bytes(file, column.data_page_offset, column.total_compressed_size, 10**9).n_bytes >= 0
    (tmp_path / "b").write_bytes(data[: column.data_page_offset] + bytes(1_000))
    with (tmp_path / "b").open("rb") as file, pytest.raises(CorpusError, match="an invalid page at byte"):
        count_page_bytes(file, column.data_page_offset, column.total_compressed_size, 10**9)


SIZES = bytes.fromhex("15001502151200")
"""A page that takes one byte, and nine in the file: the fields 1 to 3, and the end."""

MANY = b"\xff" * 8 + b"\x01"
"""A count of 2^57 - 1."""


def test_lists_in_a_header_are_passed_over() -> None:
    contents = [b"\x31\1\2\1", b"\x23ab", b"\x27" + bytes(16), b"\xf5\x02\x04\x06", b"\x28\x02ab\0", b"\x2c\0\0"]
    lists = b"".join(b"\x19" + content for content in contents)
    header = read_page_header(SIZES[:-1] + lists + b"\0" + b"behind", 0)
    assert header == (1, 9, len(SIZES) + len(lists))


@pytest.mark.parametrize("kind", range(1, 13))
def test_lists_longer_than_their_header_are_refused(kind: int) -> None:
    """Some kinds of values take no bytes of their own, or are passed over unread: such a list would never end."""
    is_long = b"\x19" + bytes([0xF0 | kind]) + MANY
    nested = b"\x19\x19" + bytes([0xF0 | kind]) + MANY
    for header in (is_long, nested, SIZES[:-1] + is_long):
        with pytest.raises(CorpusError, match="an invalid page at byte 7"):
            read_page_header(header + bytes(1_000), 7)
