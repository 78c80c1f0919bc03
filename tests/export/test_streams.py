"""Streams of bytes are files that other programs read."""

import io
import zipfile
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.export import streams
from pipeline.export.streams import parquet_stream, zip_stream

COLUMNS = pa.schema([("name", pa.string()), ("vector", pa.list_(pa.float32(), 4))])


def rows(n_rows: int) -> pa.RecordBatch:
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(np.arange(4 * n_rows, dtype=np.float32)), 4)
    return pa.RecordBatch.from_arrays([pa.array(["a"] * n_rows, pa.string()), vectors], schema=COLUMNS)


def test_zip_has_each_file_whole_and_is_always_the_same() -> None:
    content = {"a.txt": b"one" * 100_000, "鳥.wav": bytes(range(256)) * 1_000, "empty.txt": b""}
    pieces = [list(zip_stream((name, [data[:10], data[10:]]) for name, data in content.items())) for _ in range(2)]
    assert pieces[0] == pieces[1]
    with zipfile.ZipFile(io.BytesIO(b"".join(pieces[0]))) as archive:
        assert archive.testzip() is None
        assert {name: archive.read(name) for name in archive.namelist()} == content


def test_zip_gives_a_file_before_the_next_one_is_made() -> None:
    made: list[str] = []

    def files() -> Iterator[tuple[str, list[bytes]]]:
        for name in ("1.wav", "2.wav"):
            made.append(name)
            yield name, [b"sound" * 10_000]

    stream = zip_stream(files())
    assert len(next(stream)) > 40_000
    assert made == ["1.wav"]
    assert b"".join(stream)


def test_empty_zip_is_a_zip() -> None:
    assert zipfile.ZipFile(io.BytesIO(b"".join(zip_stream([])))).namelist() == []


@pytest.mark.parametrize("sizes", [[], [0], [3], [3, 0, 5]])
def test_parquet_has_all_rows(sizes: list[int]) -> None:
    table = pq.read_table(io.BytesIO(b"".join(parquet_stream(map(rows, sizes), COLUMNS, ["vector"]))))
    assert table.schema.equals(COLUMNS)
    assert table.equals(pa.Table.from_batches(map(rows, sizes), COLUMNS))


def test_parquet_says_last_what_its_rows_have_shown() -> None:
    seen: list[int] = []

    def read() -> Iterator[pa.RecordBatch]:
        for n_rows in (3, 5):
            seen.append(n_rows)
            yield rows(n_rows)

    stream = parquet_stream(read(), COLUMNS, ["vector"], lambda: {"seen": str(sum(seen))})
    assert pq.read_metadata(io.BytesIO(b"".join(stream))).metadata[b"seen"] == b"8"
    assert b"seen" not in pq.read_metadata(io.BytesIO(b"".join(parquet_stream([], COLUMNS)))).metadata


def test_parquet_is_made_group_by_group(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "GROUP_BYTES", 1)
    stream = parquet_stream(map(rows, [3, 5]), COLUMNS, ["vector"])
    pieces = [piece for piece in stream if piece]
    assert len(pieces) > 1
    assert pq.ParquetFile(io.BytesIO(b"".join(pieces))).num_row_groups == 2
