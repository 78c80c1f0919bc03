"""The table of marks: rows of writers at the same time are all kept, and the table stays small."""

import datetime as dt
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import lance
import pyarrow as pa
import pytest
from lance.fragment import write_fragments

from pipeline import storage
from pipeline.index import journal
from pipeline.marks import table
from pipeline.marks.table import append_rows, read_rows
from pipeline.schema import MARKS, make_mark_id
from tests.helpers.processes import ROOT

NOW = dt.datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=dt.UTC)


def make_rows(*texts: str, audio_id: str = "a" * 32) -> pa.Table:
    """A mark of the same two frames for each text."""
    said = {"audio_id": audio_id, "first_frame": 1, "stop_frame": 3, "verdict": "right", "who": "me", "uri": "/a.wav"}
    rows = [{**said, "text": text, "marked_at": NOW, "score": None} for text in texts]
    return pa.Table.from_pylist([{**row, "mark_id": make_mark_id(row)} for row in rows], schema=MARKS)


def texts_of(index: str) -> list[str]:
    return sorted(read_rows(index)["text"].to_pylist())


def opened(index: str) -> Any:
    return lance.dataset(journal.table_uri(index, "marks"))


def test_rows_are_read_as_they_were_appended(place: str) -> None:
    assert read_rows(place).equals(MARKS.empty_table())
    assert read_rows(place, columns=["text"]).equals(MARKS.empty_table().select(["text"]))
    rows = make_rows("a bell", 'it\'s "quoted"; 鳥\n')
    append_rows(place, rows)
    append_rows(place, make_rows("rain", audio_id="b" * 32))
    assert read_rows(place, f"audio_id = '{'a' * 32}'").sort_by("text").equals(rows.sort_by("text"))
    assert read_rows(place, "text = 'rain'")["text"].to_pylist() == ["rain"]
    assert read_rows(place).num_rows == 3
    assert read_rows(place, "text = 'rain'", ["verdict", "text"]).to_pylist() == [{"verdict": "right", "text": "rain"}]
    assert opened(place).schema.field("mark_id").metadata == {b"lance-schema:unenforced-primary-key": b"true"}


WRITER = """
import os, sys, time
from pipeline.marks.table import append_rows
from tests.marks.test_table import make_rows

place, name, n_rows = sys.argv[1], sys.argv[2], int(sys.argv[3])
print("ready", flush=True)
sys.stdin.readline()
for number in range(n_rows):
    append_rows(place, make_rows(f"{name}{number}"))
"""


def test_two_processes_that_create_the_table_and_append_at_once_lose_nothing(place: str) -> None:
    n_rows, environment = 20, {**os.environ, "PYTHONPATH": str(ROOT)}
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, place, name, str(n_rows)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=environment,
        )
        for name in ("one", "two")
    ]
    for writer in writers:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write("\n")
        writer.stdin.flush()
    for writer in writers:
        writer.communicate(timeout=300)
        assert writer.returncode == 0
    assert texts_of(place) == sorted(f"{name}{number}" for name in ("one", "two") for number in range(n_rows))


def at_once(n_threads: int, action: Any) -> None:
    """Call ``action`` with the number of each thread, in all threads at the same moment."""
    barrier = threading.Barrier(n_threads, timeout=60)

    def wait_and_act(number: int) -> None:
        barrier.wait()
        action(number)

    with ThreadPoolExecutor(n_threads) as pool:
        list(pool.map(wait_and_act, range(n_threads)))


@pytest.mark.parametrize("number", range(4))
def test_first_marks_of_many_writers_are_all_kept(place: str, number: int) -> None:
    """Of tables that Lance itself creates at the same time, the last one would replace the others."""
    index = storage.join(place, str(number))
    if not storage.is_url(index):
        Path(index).mkdir()
    at_once(5, lambda number: append_rows(index, make_rows(f"{number}")))
    assert texts_of(index) == [f"{number}" for number in range(5)]
    assert opened(index).version == 6
    if not storage.is_url(index):
        assert os.listdir(index) == ["marks.lance"]


def test_table_is_merged_and_cleaned_beside_writers_that_lose_nothing(
    place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here clean-up deletes old versions at once, so that a writer may need one that is gone."""
    monkeypatch.setattr(table, "MOST_FRAGMENTS", 4)
    monkeypatch.setattr(table, "_A_LOOK", dt.timedelta(microseconds=1))
    n_rows = 8

    def write(writer: int) -> None:
        for number in range(n_rows):
            append_rows(place, make_rows(f"{writer}-{number}"))

    at_once(3, write)
    append_rows(place, make_rows("last"))
    assert texts_of(place) == sorted(
        [f"{writer}-{number}" for writer in range(3) for number in range(n_rows)] + ["last"]
    )
    marks = opened(place)
    assert len(marks.get_fragments()) < 3 * n_rows
    assert len(marks.versions()) < marks.version


def test_fragments_and_versions_stay_few(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "MOST_FRAGMENTS", 5)
    monkeypatch.setattr(table, "ROWS_PER_FRAGMENT", 12)
    monkeypatch.setattr(table, "_A_LOOK", dt.timedelta(microseconds=1))
    most = 0
    for number in range(60):
        append_rows(str(tmp_path), make_rows(f"{number:02d}"))
        fragments = [fragment.count_rows() for fragment in opened(str(tmp_path)).get_fragments()]
        assert sum(n < 12 for n in fragments) < 5
        most = max(most, len(opened(str(tmp_path)).versions()))
    assert texts_of(str(tmp_path)) == [f"{number:02d}" for number in range(60)]
    assert most <= 8
    assert len(list((tmp_path / "marks.lance" / "data").iterdir())) < 20


def test_recent_versions_stay_for_those_who_read_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    append_rows(str(tmp_path), make_rows("first"))
    reader = opened(str(tmp_path))
    monkeypatch.setattr(table, "MOST_FRAGMENTS", 2)
    for number in range(6):
        append_rows(str(tmp_path), make_rows(f"{number}"))
    assert len(opened(str(tmp_path)).get_fragments()) == 1
    assert reader.to_table()["text"].to_pylist() == ["first"]


def test_merging_leaves_rows_alone_that_are_not_committed_yet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "MOST_FRAGMENTS", 2)
    monkeypatch.setattr(table, "_A_LOOK", dt.timedelta(microseconds=1))
    append_rows(str(tmp_path), make_rows("first"))
    slow = opened(str(tmp_path))
    waiting = write_fragments(make_rows("slow"), slow.uri, mode="append", data_storage_version="2.2")
    for number in range(4):
        append_rows(str(tmp_path), make_rows(f"{number}"))
    now = opened(str(tmp_path))
    lance.LanceDataset.commit(now, lance.LanceOperation.Append(waiting), read_version=now.version)
    assert texts_of(str(tmp_path)) == ["0", "1", "2", "3", "first", "slow"]


@pytest.mark.parametrize("is_done", [True, False])
def test_append_whose_answer_was_lost_is_not_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_done: bool
) -> None:
    append_rows(str(tmp_path), make_rows("before"))
    real, calls = lance.write_dataset, list[int]()

    def write(*arguments: Any, **options: Any) -> Any:
        calls.append(1)
        done = real(*arguments, **options) if is_done or len(calls) > 1 else None
        if len(calls) == 1:
            raise OSError("Too many concurrent writers")
        return done

    monkeypatch.setattr(lance, "write_dataset", write)
    append_rows(str(tmp_path), make_rows("a", "b"))
    assert texts_of(str(tmp_path)) == ["a", "b", "before"]
    assert len(calls) == (1 if is_done else 2)


def test_a_row_that_another_writer_has_stored_does_not_stand_for_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    append_rows(str(tmp_path), make_rows("before"))
    rows, real, calls = make_rows("a", "b"), lance.write_dataset, list[int]()

    def write(*arguments: Any, **options: Any) -> Any:
        calls.append(1)
        if len(calls) == 1:
            real(rows.slice(0, 1), *arguments[1:], **options)
            raise OSError("Too many concurrent writers")
        return real(*arguments, **options)

    monkeypatch.setattr(lance, "write_dataset", write)
    append_rows(str(tmp_path), rows)
    assert set(texts_of(str(tmp_path))) == {"a", "b", "before"}


def test_folder_without_a_table_in_it_is_no_table(tmp_path: Path) -> None:
    (tmp_path / "marks.lance").mkdir()
    assert read_rows(str(tmp_path)).num_rows == 0
    append_rows(str(tmp_path), make_rows("a"))
    assert texts_of(str(tmp_path)) == ["a"]


def test_error_that_will_not_pass_is_raised_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "_PAUSES_S", (-1.0,))  # an error of its own
    with pytest.raises(FileNotFoundError):
        append_rows(str(tmp_path / "none"), make_rows("a"))
