"""Rows of Parquet and Arrow files are files of the corpus: listed, read, indexed and followed like others."""

import os
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import pipeline
from jobs.bench.hostile_tables import write_bomb
from pipeline.audio.source import resolve_uri
from pipeline.corpus import table_limits
from pipeline.corpus.audio_tables import list_rows
from pipeline.corpus.shards import find_member, is_sized, list_members, open_member
from pipeline.corpus.time_ranges import TimeRange
from pipeline.encoder.encoder import load_encoder
from pipeline.errors import CorpusError, FileFailure
from pipeline.run.driver import index_corpus
from pipeline.run.prepare import plan_corpus
from tests.helpers.contents import content, live
from tests.helpers.corpora import configure, index, listed
from tests.helpers.processes import print_of
from tests.helpers.runs import WideEncoder, in_place
from tests.helpers.shards import TABLES, sounds, write_rows, write_shard, write_table


@pytest.mark.parametrize("kind", TABLES)
def test_rows_are_named_by_their_paths(tmp_path: Path, kind: str) -> None:
    names = ["a.wav", "b", "a.wav", None, "", "3", "a.wav#2", ".h.txt", "ü, 'c'.wav"]
    data = [str(number).encode() * 10 for number in range(len(names))]
    table = write_rows(tmp_path / kind, list(zip(names, data, strict=True)), row_group_size=4)
    found = dict(list_members(str(table)))
    unique = ["a.wav", "b", "a.wav#2", "3", "4", "3#2", "a.wav#2#2", ".h.txt", "ü, 'c'.wav"]
    assert list(found) == [f"{table}#{name}" for name in unique]
    for uri, wanted in zip(found, data, strict=True):
        assert resolve_uri(uri) == (find_member(uri), TimeRange(), None) == (found[uri], TimeRange(), None)
        with open_member(found[uri]) as file:
            assert file.read() == wanted
    assert {is_sized(uri) for uri in found} == {not kind.endswith("parquet")}
    assert [row["uri"] for row in listed(table).values()] == sorted(found)
    with pytest.raises(FileFailure, match="no such member"):
        resolve_uri(f"{table}#none")


def test_tables_are_opened_only_where_a_source_names_them(tmp_path: Path) -> None:
    write_rows(tmp_path / "in" / "train" / "1.parquet", [("a", b"sound")])
    write_rows(tmp_path / "in" / "test" / "2.arrow", [("b", b"sound")])
    (tmp_path / "in" / "c.wav").write_bytes(b"sound")
    (tmp_path / "in" / "train" / "state.json").write_text("{}")
    (tmp_path / "in" / "list.parquet").write_bytes(
        write_table(tmp_path / "list.parquet", pa.table({"uri": ["c.wav"]})).read_bytes()
    )
    assert list(listed(tmp_path / "in")) == ["c.wav"]
    assert list(listed(tmp_path / "in" / "*" / "*.parquet")) == ["1.parquet#a"]
    assert list(listed(tmp_path / "in" / "**" / "*.arrow")) == ["2.arrow#b"]
    assert list(listed(tmp_path / "in" / "**" / "*.parquet")) == ["c.wav", "1.parquet#a"]
    found = listed(tmp_path / "in", extensions=["parquet", "arrow"])
    assert {name: row["reason"] for name, row in found.items()} == {
        "2.arrow#b": None,
        "1.parquet#a": None,
        "list.parquet": "not_audio",
    }
    row = found["1.parquet#a"]
    assert row["modified_ns"] == (tmp_path / "in" / "train" / "1.parquet").stat().st_mtime_ns


def test_faulty_table_is_a_row_or_an_error_of_one_line(tmp_path: Path) -> None:
    whole = write_rows(tmp_path / "whole.parquet", [("a", b"sound"), ("b", b"")]).read_bytes()
    (tmp_path / "cut.parquet").write_bytes(whole[:-20])
    write_rows(tmp_path / "empty.parquet", [])
    stream = write_rows(tmp_path / "whole.stream.arrow", [("a", b"sound" * 100)]).read_bytes()
    (tmp_path / "cut.arrow").write_bytes(stream[: len(stream) // 2])
    (tmp_path / "empty.arrow").write_bytes(b"")
    found = listed(tmp_path / "*.parquet", tmp_path / "*.arrow")
    assert {name: (row["reason"], row["hides_files"]) for name, row in found.items()} == {
        "cut.parquet": ("unreadable", True),
        "cut.arrow": ("unreadable", True),
        "empty.arrow": ("unreadable", True),
        "empty.parquet": ("not_audio", False),
        "whole.parquet#a": (None, False),
        "whole.parquet#b": (None, False),
        "whole.stream.arrow#a": (None, False),
    }
    with pytest.raises(CorpusError, match=r"cut\.parquet: cannot be read as a table"):
        listed(tmp_path / "cut.parquet")
    both = write_table(tmp_path / "both.parquet", pa.table({"x": [b"1"], "y": [b"2"]}))
    with pytest.raises(CorpusError, match=r"both\.parquet: several columns hold bytes \(x, y\)"):
        listed(both)


def test_files_packed_into_a_table_are_not_encoded_again(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for name, data in sounds(1, 3, 5):
        (tmp_path / "in" / name).write_bytes(data)
    (tmp_path / "in" / "other.wav").write_bytes(content(2).read_bytes())
    sections = {"corpus": {"extensions": ["wav", "parquet"]}}
    config = configure(tmp_path, tmp_path / "in", **sections)
    index(config)
    for name, _ in sounds(1, 3, 5):
        (tmp_path / "in" / name).unlink()
    write_rows(tmp_path / "in" / "packed.parquet", sounds(1, 3, 5))
    assert index(config).n_windows == 0
    shutil.move(tmp_path / "in" / "packed.parquet", tmp_path / "in" / "renamed.parquet")
    assert index(config).n_windows == 0
    assert [Path(row[0]).name for row in live(config.into)["files"]] == [
        "other.wav",
        *(f"renamed.parquet#{number}.wav" for number in (1, 3, 5)),
    ]


def test_equal_rows_are_stored_once(tmp_path: Path) -> None:
    """The run notices late: nothing tells that rows are equal before they are read."""
    data = [data for _, data in sounds(3, 5)]
    table = write_rows(tmp_path / "a.parquet", [(None, data[number % 2]) for number in range(12)], row_group_size=5)
    config = configure(tmp_path, table, run={"batch_s": 5.0})
    index(config)
    rest = configure(tmp_path / "two", write_rows(tmp_path / "b.parquet", sounds(3, 5)))
    index(rest)
    assert live(config.into)["frames"] == live(rest.into)["frames"]
    assert len(live(config.into)["clips"]) == 6 * len(live(rest.into)["clips"])
    assert index(config).n_windows == 0
    more = configure(tmp_path, table, tmp_path / "b.parquet")  # new rows, of which the index has the content
    index(more)
    assert live(more.into)["frames"] == live(rest.into)["frames"]


def test_rows_of_an_unreadable_table_stay_indexed(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    table = write_rows(tmp_path / "in" / "a.parquet", sounds(1, 3, 5))
    config = configure(tmp_path, tmp_path / "in", corpus={"extensions": ["parquet"]})
    index(config)
    before, whole = live(config.into)["clips"], table.read_bytes()
    table.write_bytes(whole[:-10])
    index(config)
    assert live(config.into)["clips"] == before
    with pytest.raises(CorpusError, match="and the index has 3 files in it; make it readable first"):
        index_corpus(config, stages=in_place(WideEncoder()), rebuild=True)
    table.write_bytes(whole)
    assert index(config).n_windows == 0
    assert [row[2] for row in live(config.into)["files"]] == [None] * 3
    write_rows(table, sounds(1))
    assert index(config).n_windows == 0
    assert [row[0] for row in live(config.into)["files"]] == [f"{table}#1.wav"]


def test_damaged_pages_are_failures_of_their_rows(tmp_path: Path) -> None:
    named = [(f"{k}.wav", content(k + 2).read_bytes()) for k in range(2)]
    options = {"row_group_size": 1, "compression": "zstd", "use_dictionary": False}
    table = write_rows(tmp_path / "a.parquet", named, **options)
    column = pq.ParquetFile(table).metadata.row_group(0).column(0)
    with table.open("r+b") as file:
        file.seek(column.data_page_offset + column.total_compressed_size // 2)
        file.write(b"x" * 200)
    config = configure(tmp_path, table)
    index(config)
    assert [row[2] for row in live(config.into)["files"]] == ["unreadable", None]


def test_row_without_bytes_fails_and_is_not_retried(tmp_path: Path) -> None:
    table = write_rows(tmp_path / "a.parquet", [("gone.wav", None), ("empty.wav", b""), *sounds(3)])
    config = configure(tmp_path, table)
    index(config)
    assert [row[2] for row in live(config.into)["files"]] == [None, "empty", "empty"]
    assert plan_corpus(config).n_failed_before == 2
    os.utime(table)
    index(config)
    assert [row[2] for row in live(config.into)["files"]] == [None, "empty", "empty"]


def test_similar_takes_rows_and_members_as_questions(tmp_path: Path) -> None:
    table = write_rows(tmp_path / "a.parquet", sounds(3, 5))
    shard = write_shard(tmp_path / "s.tar", sounds(3, 5))
    config = configure(tmp_path, table, encode={"device": "cpu"})
    index_corpus(config, stages=in_place(load_encoder(config.encode)))
    found = pipeline.open(config.into)
    for sound in (f"{table}#5.wav", f"{shard}#5.wav"):
        assert found.similar_to_file(sound, k=1)[0].uri == f"{table}#5.wav"
    with pytest.raises(FileFailure, match="no such member"):
        found.similar_to_file(f"{table}#none.wav")


# --- tables that are made to fill memory ------------------------------------------------------------------------------


def test_long_names_are_refused_before_they_are_copied(tmp_path: Path) -> None:
    bomb = write_bomb(tmp_path / "a.parquet", ["n" * 1_000_000] * 2_000)
    assert bomb.stat().st_size < 20_000
    program = (
        "import sys, pyarrow as pa; from pipeline.corpus.audio_tables import list_rows\n"
        "try: list(list_rows(sys.argv[1]))\n"
        "except Exception as error: print(error)\n"
        "print(pa.default_memory_pool().max_memory() < 64 * 2**20)"
    )
    assert print_of(program, bomb) == "a name of 1,000,000 bytes; 4,096 are allowed\nTrue\n"


def test_names_that_are_larger_than_the_file_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table_limits, "LITTLE_BYTES", 100_000)
    bomb = write_bomb(tmp_path / "a.parquet", ["n" * 4_000] * 200)
    with pytest.raises(CorpusError, match=r"more than \d+,\d+ bytes of names in a file of"):
        list(list_rows(str(bomb)))


def test_more_rows_than_a_file_can_mean_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table_limits, "FEW_ROWS", 1_000)
    bomb = write_bomb(tmp_path / "a.parquet", [str(number) for number in range(5_000)])
    assert 5_000 < bomb.stat().st_size < 64 * 5_000
    with pytest.raises(CorpusError, match="5,000 rows in a file of"):
        list(list_rows(str(bomb)))
    draw = np.random.default_rng(1)
    honest = write_rows(tmp_path / "b.parquet", [(str(number), draw.bytes(64)) for number in range(5_000)])
    assert len(list(list_rows(str(honest)))) == 5_000
