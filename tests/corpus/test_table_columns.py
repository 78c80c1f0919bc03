"""Metadata of tables with audio is read as it is, and in bounded memory."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from jobs.bench.hostile_tables import write_bomb, write_large_texts
from pipeline.config import CorpusConfig
from pipeline.corpus import table_columns, table_limits
from pipeline.corpus.discover import list_corpus
from pipeline.corpus.metadata import read_metadata
from pipeline.corpus.table_columns import Memory, read_columns
from pipeline.errors import CorpusError
from tests.helpers.processes import print_of
from tests.helpers.shards import write_table

KB = 1_024
N_ROWS = 2_000


def read(path: Path, memory: Memory | None = None) -> tuple[dict[str, list[Any]], list[str]]:
    table, notes = read_columns(str(path), lambda column: True, memory or Memory())
    return table.to_pydict(), notes


def write_like_bomb(path: Path, **columns: list[Any]) -> Path:
    """A table in the format of its name; texts that occur again are stored once in all."""
    n_rows = len(next(iter(columns.values())))
    names = [f"{number}.wav" for number in range(n_rows)]
    if path.suffix == ".parquet":
        return write_bomb(path, names, **columns)
    audio = pa.array([{"bytes": b"x", "path": name} for name in names])
    coded = {name: pa.array(values) for name, values in columns.items()}
    texts = {name: values.dictionary_encode() for name, values in coded.items() if values.type == pa.string()}
    return write_table(path, pa.table({"audio": audio, **coded, **texts}))


@pytest.fixture(params=["a.parquet", "file.arrow", "stream.arrow"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return tmp_path / str(request.param)


def test_repeated_texts_are_read_as_they_are(path: Path) -> None:
    titles = ["one", None, "two", "one"] * 50
    table, notes = read_columns(str(write_like_bomb(path, title=titles)), lambda column: True, Memory())
    assert table.schema.field("title").type == pa.string()
    assert table["title"].to_pylist() == titles
    assert notes == []


def test_column_with_a_large_text_is_left_out_alone(path: Path) -> None:
    write_like_bomb(path, title=["short", "x" * 70_000], n=[1, 2])
    found, notes = read(path)
    assert found == {"n": [1, 2]}
    assert notes == [f"{path}: column `title`: a text of 70,000 bytes; 65,536 are allowed: left out"]


def test_columns_are_counted_together(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is small enough by itself. One that does not fit takes no room from the others."""
    monkeypatch.setattr(table_columns, "SHARE_BYTES", 1_500 * KB)
    columns = {f"text{number}": ["x" * KB] * 1_000 for number in range(3)}
    write_like_bomb(path, **columns, n=[1] * 1_000)
    found, notes = read(path)
    assert list(found) == ["text0", "n"]
    assert len(notes) == 2
    assert "column `text2`: over 2," in notes[1]


def test_numbers_count_by_their_width(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A column of equal numbers is stored in a few bytes."""
    monkeypatch.setattr(table_columns, "SHARE_BYTES", 3 * 8 * N_ROWS)
    write_like_bomb(path, **{f"n{number}": [7] * N_ROWS for number in range(40)})
    found, notes = read(path)
    if path.suffix == ".parquet":
        assert len(found) == 3 + path.stat().st_size // (8 * N_ROWS)
        assert len(found) + len(notes) == 40
    else:
        assert len(found) == 40


def test_tables_are_counted_together(path: Path) -> None:
    write_like_bomb(path, text=["x" * KB] * 1_000)
    memory = Memory(2_500 * KB)
    assert [len(read(path, memory)[0]) for _ in range(4)] == [1, 1, 0, 0]


def test_metadata_may_be_as_large_as_its_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table_columns, "SHARE_BYTES", 0)
    titles = [f"{number:>1000}" for number in range(1_000)]
    draw = np.random.default_rng(1)
    audio = pa.array([{"bytes": draw.bytes(1_500), "path": title[-9:]} for title in titles])
    write_table(path, pa.table({"audio": audio, "title": titles}))
    assert read(path, Memory(0)) == ({"title": titles}, [])


def test_many_rows_are_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table_limits, "FEW_ROWS", 10)
    monkeypatch.setattr(table_limits, "ROW_BYTES", 100_000)
    write_like_bomb(path, n=[1] * 100)
    with pytest.raises(CorpusError, match="100 rows in a file of"):
        read(path)


def test_many_large_columns_take_little_memory(tmp_path: Path) -> None:
    bomb = write_large_texts(tmp_path / "a.parquet")
    assert bomb.stat().st_size < 200_000
    program = (
        "import sys, pyarrow as pa; from pipeline.corpus.table_columns import Memory, read_columns\n"
        "_, notes = read_columns(sys.argv[1], lambda column: True, Memory())\n"
        "print(len(notes), pa.default_memory_pool().max_memory() < 512 * 2**20)"
    )
    assert print_of(program, bomb) == "5 True\n"


def test_columns_that_fit_are_metadata(path: Path) -> None:
    write_like_bomb(path, title=["short", "x" * 70_000], n=[1, 2])
    found = read_metadata(list_corpus([str(path)]), [], CorpusConfig(), pa.schema([]))
    assert found.table["n"].to_pylist() == [1, 2]
    assert [note for note in found.notes if "left out" in note] == list(found.notes)


def test_views_of_one_long_text_are_refused(tmp_path: Path) -> None:
    """Each row of such a column may refer to the same bytes."""
    views = pa.array(["x" * 70_000, None, "short"], pa.string_view())
    table = pa.table(
        {"audio": pa.array([b"x"] * 3), "long": views, "fits": pa.array(["a", None, "b" * 20], pa.string_view())}
    )
    found, notes = read(write_table(tmp_path / "file.arrow", table))
    assert found == {"fits": ["a", None, "b" * 20]}
    assert "column `long`: a text of 70,000 bytes" in notes[0]
