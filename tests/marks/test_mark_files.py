"""Marks in CSV and JSON lines: what is written is read as the same, and errors name their line."""

import csv
import datetime as dt
import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import pipeline
from pipeline.errors import UsageError
from pipeline.grid import Grid, frames_to_seconds
from pipeline.marks.mark import Judgement, Mark
from pipeline.marks.mark_files import Defaults, format_csv, parse_seconds, read_file, read_judgements
from pipeline.search.client import Index
from tests.helpers.tables import SILENT, write_index

HEAD = "uri,start_s,end_s,text,verdict"


def read(*lines: str, **defaults: str) -> list[Judgement]:
    return read_judgements("marks.csv", "\n".join(lines).encode(), Defaults(**defaults)).judgements


def make_mark(**values: Any) -> Mark:
    at = dt.datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=dt.UTC)
    usual = {"uri": "/a.wav", "start_s": 3.8, "end_s": 4.44, "text": "a bell", "verdict": "right", "score": 2.144}
    usual |= {"who": "ada", "marked_at": at, "status": "here", "uris": ("/a.wav",), "audio_id": "a" * 32}
    return Mark(**{**usual, "first_frame": 95, "stop_frame": 111, **values})


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(str.strip)


@given(
    uri=TEXTS,
    text=TEXTS,
    who=TEXTS,
    first=st.integers(0, 10**6),
    length=st.integers(1, 10**4),
    score=st.none() | st.floats(allow_nan=False, allow_infinity=False),
    at=st.datetimes(timezones=st.just(dt.UTC)),
)
def test_csv_that_is_written_is_read_as_the_same(
    uri: str, text: str, who: str, first: int, length: int, score: float | None, at: dt.datetime
) -> None:
    times = {"start_s": frames_to_seconds(first), "end_s": frames_to_seconds(first + length)}
    said = {"uri": uri, "text": text, "who": who, "score": score, "marked_at": at, **times}
    lines = list(format_csv([make_mark(**said), make_mark()]))
    assert all(line.endswith("\n") for line in lines)
    found = read_judgements("x.csv", "".join(lines).encode())
    assert found.unknown == []
    first_one, second = found.judgements
    assert {name: getattr(first_one, name) for name in said} == said
    assert (first_one.audio_id, first_one.verdict) == ("a" * 32, "right")
    assert (second.uri, second.text) == ("/a.wav", "a bell")


def test_no_text_of_a_csv_is_computed_by_a_spreadsheet() -> None:
    lines = format_csv([make_mark(uri="=1.wav", text="@SUM(A1)", who="'-x", score=-0.5)])
    [header, row] = csv.reader(lines)
    cells = dict(zip(header, row, strict=True))
    assert (cells["uri"], cells["text"], cells["who"], cells["score"]) == ("'=1.wav", "'@SUM(A1)", "''-x", "-0.5")


@pytest.fixture
def index(tmp_path: Path) -> Index:
    write_index(tmp_path / "index", {'/a, "b".wav': SILENT, "/c.wav": SILENT}, Grid())
    return pipeline.open(str(tmp_path / "index"))


def test_csv_of_an_index_makes_the_same_marks_in_another(index: Index, tmp_path: Path) -> None:
    shutil.copytree(index.path, tmp_path / "other")
    uri = '/a, "b".wav'
    index.mark(uri, "ein Vogel – 鳥\t; ruft", "right", score=-1.25e-7, who='Ada, "Countess"')
    index.mark(uri, "a bell", "wrong", start_s=0.04, end_s=0.12)
    index.mark(uri, "a bell", "unsure", start_s=0.04, end_s=0.12)
    index.mark("/c.wav", "rain", "right")
    index.mark("/c.wav", "rain", "none")
    index.mark_all([Judgement("/left.wav", "a horn", "right", 1.0, 3.52, audio_id="f" * 32)])
    other = pipeline.open(str(tmp_path / "other"))
    for history in (False, True):
        written = list(format_csv(index.marks(history=history)))
        made = other.mark_all(read_judgements("marks.csv", "".join(written).encode()).judgements)
        assert list(format_csv(other.marks(history=history))) == written
        assert other.marks(history=history) == index.marks(history=history)
        assert made.n_new == 3
    again = other.mark_all(read_judgements("marks.csv", "".join(written).encode()).judgements)
    assert (again.n_new, len(again)) == (0, 6)


def test_json_lines_of_hits_and_marks_are_read(index: Index) -> None:
    event = {"rank": 1, "uri": "/c.wav", "start_s": 0.04, "end_s": 0.2, "score": 2.5, "probability": 1.0}
    event |= {"peak_s": 0.1, "metadata": {"mic": "x"}}
    found = read_judgements("-", json.dumps(event).encode(), Defaults("a bell", "right"))
    assert found.unknown == []
    [mark] = index.mark_all(found.judgements)
    assert (mark.uri, mark.start_s, mark.end_s, mark.score, mark.text) == ("/c.wav", 0.04, 0.2, 2.5, "a bell")
    line = json.dumps({**asdict(mark), "marked_at": mark.marked_at.isoformat()})
    again = read_judgements("-", f"\n{line}\n\n{line}\n".encode())
    assert index.mark_all(again.judgements).n_new == 0
    assert [said.where for said in again.judgements] == ["-: line 2", "-: line 4"]


def test_table_of_a_spreadsheet_is_read() -> None:
    lines = ["\ufeffuri;start_s;end_s;text;verdict;notes;", '"/a.wav";3,8;0:04,44;"bells; many";Right;what?;', ";;;;;;"]
    found = read_judgements("marks.csv", "\r\n".join([*lines, "/b.wav;;;x;WRONG"]).encode())
    assert found.unknown == ["notes"]
    one, other = found.judgements
    assert (one.uri, one.start_s, one.end_s, one.text, one.verdict) == ("/a.wav", 3.8, 4.44, "bells; many", "right")
    assert (other.start_s, other.end_s, other.verdict, other.where) == (0.0, None, "wrong", "marks.csv: line 4")
    [tabbed] = read(HEAD.replace(",", "\t"), "/a, b.wav\t1\t2\tx\tright")
    assert (tabbed.uri, tabbed.end_s) == ("/a, b.wav", 2.0)


def test_line_is_that_on_which_a_row_begins() -> None:
    said = read(HEAD, '/a.wav,,,"two', 'lines",right', "", "/b.wav,,,x,wrong")
    assert [each.where for each in said] == ["marks.csv: line 2", "marks.csv: line 5"]


def test_defaults_hold_for_rows_that_do_not_say_it() -> None:
    one, other = read("uri,verdict", "/a.wav,", "/b.wav,unsure", text="a bell", verdict="right", who="ada")
    assert (one.text, one.verdict, one.who) == ("a bell", "right", "ada")
    assert (other.text, other.verdict, other.who) == ("a bell", "unsure", "ada")


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["uri,text,verdict", "/a.wav,x,right,more"], "line 2: has 4 cells, and the first line 3: put cells"),
        ([HEAD, "/a.wav,1,2,x,right", "/b.wav,soon,2,x,right"], "line 3: 'soon' is no time: give seconds, like 75.48"),
        (
            [HEAD, "/a.wav,1,2,x,right", "/b.wav,1,2e,x,right", "/b.wav,x"],
            "line 3: .*; 1 more of 3 marks are wrong; noth",
        ),
        ([f"{HEAD},score", "/a.wav,1,2,x,right,high"], "line 2: score 'high': is no number"),
        (
            [f"{HEAD},marked_at", "/a.wav,1,2,x,right,monday"],
            "line 2: marked_at 'monday': is no time: expected one like",
        ),
        ([HEAD, '/a.wav,1,2,"x,right', "/b.wav,1,2,x,right"], "line 2: is no CSV: unexpected end of data; a cell"),
        ([HEAD, "/b.wav,1,2,x,right", '/a.wav,1,2,"x" y,right'], "line 3: is no CSV: .*expected after"),
        (["file,text,verdict", "/a.wav,x,right"], "has no column `uri`: it names the file"),
        (
            ["uri,text,verdct", "/a.wav,x,right"],
            "has no column `verdict`, did you call it verdct.: add it, or give --v",
        ),
        (["uri,verdict", "/a.wav,right"], "has no column `text`: add it, or give --text for all lines"),
        (["uri,text,text,verdict", "/a.wav,x,y,right"], "column `text` occurs twice"),
        ([""], "has no column `uri`"),
        (['{"uri": "/a.wav", "text": "x", "verdict": "right"}', "[1]"], "line 2: is no JSON object; give one on each"),
        (['{"uri": "/a.wav", "text": "x", "verdict": "right"}', '{"uri"'], "line 2: is no JSON object"),
        (['{"uri": "/a.wav", "text": "x"}'], "has no column `verdict`"),
        (['{"uri": "/a.wav", "text": "x", "verdict": "right", "start_s": [1]}'], r"line 1: '\[1\]' is no time"),
    ],
)
def test_wrong_file_is_refused_by_its_line(lines: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=f"^marks.csv: {message}") as caught:
        read(*lines)
    assert "\n" not in str(caught.value)


def test_text_in_another_encoding_is_refused_by_its_line() -> None:
    with pytest.raises(UsageError, match=r"^marks\.csv: line 2: is not UTF-8: save the table as UTF-8$"):
        read_judgements("marks.csv", f"{HEAD}\n/ä.wav,1,2,x,right".encode("latin-1"))


def test_file_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"none\.csv: cannot be read: No such file or directory"):
        read_file(str(tmp_path / "none.csv"))


@pytest.mark.parametrize(
    ("text", "seconds"), [("75.48", 75.48), (" 0 ", 0.0), ("1:15.48", 75.48), ("2:00:01", 7201.0), ("1e2", 100.0)]
)
def test_times_are_read_as_tables_show_them(text: str, seconds: float) -> None:
    assert parse_seconds(text) == pytest.approx(seconds, abs=1e-9)
