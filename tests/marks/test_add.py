"""Judgements become marks: the newest one about the same part and text counts, and nothing is written by halves."""

import datetime as dt
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import lance
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

import pipeline
from pipeline import schema
from pipeline.errors import MarkedSince, UsageError
from pipeline.grid import Grid
from pipeline.index.handle import Generation, open_index
from pipeline.index.journal import table_uri
from pipeline.index.tables import among
from pipeline.marks.add import add_marks
from pipeline.marks.mark import Judgement, Mark
from pipeline.marks.read import count_marks, list_marks
from pipeline.marks.table import append_rows, read_rows
from pipeline.search.client import Index
from tests.helpers.tables import SILENT, write_index

LONG = np.zeros((700, 8), np.float16), np.zeros((3, 8), np.float16)
"""Vectors of a file of 28 s."""

BELL = Judgement("/a.wav", "a bell", "right", 3.8, 4.44, score=2.144, who="ada")


@pytest.fixture
def index(tmp_path: Path) -> Index:
    audios = {"/a.wav": LONG, "/it's, b.wav": SILENT, "/other/c.wav": SILENT}
    write_index(tmp_path / "index", audios, Grid(), copies={"/copy of a.wav": "/a.wav"})
    return pipeline.open(str(tmp_path / "index"))


@pytest.fixture
def live(index: Index) -> Generation:
    return open_index(index.path).live


def at(second: int) -> dt.datetime:
    return dt.datetime(2026, 1, 2, 3, 4, second, tzinfo=dt.UTC)


def verdicts(index: Index) -> list[tuple[str, str]]:
    return [(mark.text, mark.verdict) for mark in index.marks()]


def test_mark_says_what_was_heard_where_by_whom_and_when(index: Index) -> None:
    before = dt.datetime.now(dt.UTC)
    mark = index.mark("/a.wav", " a  bell ", "right", start_s=3.8, end_s=4.44, score=2.144, who="ada")
    [read] = index.marks()
    assert read == mark
    assert (mark.uri, mark.start_s, mark.end_s, mark.text, mark.verdict) == ("/a.wav", 3.8, 4.44, "a bell", "right")
    assert (mark.score, mark.who, mark.status) == (2.144, "ada", "here")
    assert before <= mark.marked_at <= dt.datetime.now(dt.UTC)
    assert (mark.first_frame, mark.stop_frame) == (95, 111)
    assert mark.audio_id == schema.make_audio_id("/a.wav")
    assert mark.uris == ("/a.wav", "/copy of a.wav")


def test_mark_without_times_is_of_the_whole_file(index: Index) -> None:
    mark = index.mark("/it's, b.wav", "silence", "unsure")
    assert (mark.start_s, mark.end_s, mark.first_frame, mark.stop_frame) == (0.0, 0.4, 0, 10)


def test_newest_mark_of_the_same_part_and_text_counts(index: Index) -> None:
    for verdict in ("right", "wrong", "unsure", "right", "wrong"):
        index.mark("/a.wav", "a bell", verdict, start_s=3.8, end_s=4.44)
    index.mark("/copy of a.wav", "a bell", "unsure", start_s=3.8, end_s=4.44)  # the same content
    assert verdicts(index) == [("a bell", "unsure")]
    index.mark("/a.wav", "a bell", "right", start_s=3.8, end_s=4.48)
    index.mark("/a.wav", "a siren", "wrong", start_s=3.8, end_s=4.44)
    index.mark("/other/c.wav", "a bell", "wrong")
    assert [(mark.uri, *said) for mark, said in zip(index.marks(), verdicts(index), strict=True)] == [
        ("/a.wav", "a siren", "wrong"),
        ("/a.wav", "a bell", "right"),
        ("/copy of a.wav", "a bell", "unsure"),
        ("/other/c.wav", "a bell", "wrong"),
    ]
    assert index.describe()["marks"] == count_marks(index.path) == 4
    history = index.marks(history=True)
    assert [mark.verdict for mark in history[:6]] == ["right", "wrong", "unsure", "right", "wrong", "unsure"]
    assert len(history) == 9
    assert [mark.marked_at for mark in history] == sorted(mark.marked_at for mark in history)


def test_mark_that_is_taken_back_is_none_until_it_is_made_again(index: Index) -> None:
    index.mark("/a.wav", "a bell", "right")
    index.mark("/a.wav", "a siren", "right")
    taken = index.mark("/a.wav", "a bell", "none")
    assert taken.verdict == "none"
    assert verdicts(index) == [("a siren", "right")]
    assert len(index.marks(history=True)) == 3
    index.mark("/a.wav", "a bell", "none")
    index.mark("/a.wav", "a bell", "wrong")
    assert verdicts(index) == [("a bell", "wrong"), ("a siren", "right")]


def test_what_is_said_later_counts_whatever_the_clocks_say(live: Generation) -> None:
    """The clock of the one who marks first is an hour fast."""
    add_marks(live, [BELL], now=lambda: at(0) + dt.timedelta(hours=1))
    add_marks(live, [replace(BELL, verdict="wrong")], now=lambda: at(5))
    add_marks(live, [replace(BELL, verdict="unsure"), replace(BELL, verdict="right")], now=lambda: at(6))
    assert [mark.verdict for mark in list_marks(live, history=True)] == ["right", "wrong", "unsure", "right"]
    assert [mark.verdict for mark in list_marks(live)] == ["right"]


def test_older_mark_that_comes_later_does_not_replace_a_newer_one(live: Generation) -> None:
    add_marks(live, [replace(BELL, marked_at=at(5), verdict="wrong")])
    add_marks(live, [replace(BELL, marked_at=at(4), verdict="right")])
    assert [mark.verdict for mark in list_marks(live)] == ["wrong"]


def test_marks_that_are_there_already_are_not_stored_again(live: Generation) -> None:
    said = [replace(BELL, marked_at=at(second)) for second in (1, 2, 2)]
    assert add_marks(live, said).n_new == 2
    there = dt.timezone(dt.timedelta(hours=2))
    again = add_marks(live, [replace(BELL, marked_at=at(second).astimezone(there)) for second in (1, 2, 2)])
    assert (again.n_new, len(again)) == (0, 3)
    assert read_rows(live.index).num_rows == 2


def test_same_marks_at_the_same_time_count_the_same_for_every_reader(live: Generation) -> None:
    one, other = replace(BELL, marked_at=at(1)), replace(BELL, marked_at=at(1), verdict="wrong")
    add_marks(live, [one, other])
    [first] = list_marks(live)
    add_marks(live, [replace(other, text="x"), replace(one, text="x")])
    assert list_marks(live)[0] == first
    assert {mark.verdict for mark in list_marks(live)} == {first.verdict}


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"uri": "/none.wav"}, r"/none\.wav: is no file of .*index$"),
    ({"uri": "/elsewhere/c.wav"}, r"/elsewhere/c\.wav: is no file of .*, did you mean /other/c\.wav\?$"),
    ({"uri": "/cc.wav"}, r"/cc\.wav: is no file of .*, did you mean /other/c\.wav\?$"),
    ({"end_s": 28.1}, r"end 28\.1 s: /a\.wav lasts 28\.000 s$"),
    ({"start_s": 28.0, "end_s": 29.0}, r"start 28 s: /a\.wav lasts 28\.000 s$"),
    ({"verdict": "perhaps"}, "verdict 'perhaps': expected right"),
    ({"verdict": "none", "text": "a horn"}, r"/a\.wav: has no mark 'a horn' from 3\.8 to 4\.44 s that could be taken"),
    ({"audio_id": "x" * 31}, "audio_id 'x+': is no id"),
    (
        {"uri": "/gone.wav", "audio_id": "f" * 32, "end_s": None},
        "end: is missing, and no file of .* has the content f+",
    ),
]


@pytest.mark.parametrize(("changes", "message"), WRONG)
def test_wrong_judgement_is_one_clear_line(live: Generation, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        add_marks(live, [replace(BELL, **changes)])
    assert "\n" not in str(caught.value)
    assert read_rows(live.index).num_rows == 0


def test_of_several_judgements_all_are_stored_or_none(live: Generation) -> None:
    wrong = replace(BELL, end_s=99.0, where="marks.csv: line 3")
    with pytest.raises(UsageError, match=r"^marks\.csv: line 3: end 99 s: .* lasts 28\.000 s; nothing is stored$"):
        add_marks(live, [BELL, wrong])
    with pytest.raises(UsageError, match=r"line 3: .*; 2 more of 4 marks are wrong; nothing is stored$"):
        add_marks(live, [BELL, wrong, replace(BELL, uri="/none.wav"), replace(BELL, text="")])
    assert list_marks(live) == []


def test_marks_of_no_judgements_are_none(live: Generation) -> None:
    assert add_marks(live, []) == []
    assert read_rows(live.index).num_rows == 0


def test_content_is_marked_that_was_heard_even_if_no_file_has_it_now(live: Generation) -> None:
    gone = replace(BELL, uri="/a.wav", audio_id="f" * 32)
    [mark] = add_marks(live, [gone])
    assert (mark.audio_id, mark.uri, mark.status, mark.uris) == ("f" * 32, "/a.wav", "gone", ())
    by_content = replace(BELL, uri="", audio_id=schema.make_audio_id("/a.wav"))
    [mark] = add_marks(live, [by_content])
    assert (mark.uri, mark.status) == ("/a.wav", "here")
    assert [mark.status for mark in list_marks(live, "/a.wav")] == ["gone", "here"]


def test_marks_of_a_file_are_those_of_its_content_under_every_name(index: Index) -> None:
    index.mark("/a.wav", "a bell", "right")
    index.mark("/it's, b.wav", "silence", "right")

    def texts(uri: str) -> list[str]:
        return [mark.text for mark in index.marks(uri)]

    assert texts("/a.wav") == texts("/copy of a.wav") == ["a bell"]
    assert texts("/it's, b.wav") == ["silence"]
    assert texts("/other/c.wav") == []
    with pytest.raises(UsageError, match=r"/none\.wav: is no file of "):
        texts("/none.wav")


def test_many_judgements_are_looked_up_together(live: Generation) -> None:
    uris = ("/a.wav", "/copy of a.wav")
    many = [replace(BELL, text=f"sound {number}", uri=uri) for number in range(600) for uri in uris]
    assert add_marks(live, many).n_new == 1_200
    with pytest.raises(UsageError, match=r"1,500 more of 1,501 marks are wrong"):
        add_marks(live, [replace(BELL, uri=f"/none {number}.wav") for number in range(1_501)])
    assert count_marks(live.index) == 600


def test_path_may_be_relative(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_index(tmp_path / "index", {str(tmp_path / "sub" / "a.wav"): SILENT}, Grid())
    opened = pipeline.open(str(tmp_path / "index"))
    monkeypatch.chdir(tmp_path)
    marks: list[Mark] = [opened.mark("sub/a.wav", "x", "right")]
    assert marks[0].uri == str(tmp_path / "sub" / "a.wav")
    assert opened.marks("sub/a.wav") == marks


# --- corrections ------------------------------------------------------------------------------------------------------


def test_correction_counts_against_the_mark_that_it_corrects(live: Generation) -> None:
    [first] = add_marks(live, [BELL], now=lambda: at(1))
    [second] = add_marks(live, [replace(BELL, verdict="wrong")], now=lambda: at(2))
    [undone] = add_marks(live, [replace(BELL, replaces=second.marked_at)], now=lambda: at(3))
    assert list_marks(live) == [undone]
    assert second.marked_at < undone.marked_at < at(3)
    [undone] = add_marks(live, [replace(BELL, verdict="none", replaces=undone.marked_at)], now=lambda: at(4))
    assert list_marks(live) == []
    assert first.marked_at == at(1)


def test_correction_of_a_mark_that_is_not_the_newest_is_refused_as_a_whole(live: Generation) -> None:
    [first] = add_marks(live, [BELL], now=lambda: at(1))
    add_marks(live, [replace(BELL, verdict="unsure", who="eve")], now=lambda: at(2))
    undo = replace(BELL, verdict="none", replaces=first.marked_at)
    with pytest.raises(
        MarkedSince, match=r"/a\.wav: 'a bell' was marked since by eve at 2026-01-02T03:04:02.* \(unsure"
    ):
        add_marks(live, [replace(BELL, text="rain"), undo])
    assert [(mark.text, mark.verdict) for mark in list_marks(live)] == [("a bell", "unsure")]
    with pytest.raises(MarkedSince):
        add_marks(live, [replace(BELL, text="never marked", replaces=at(1))])


@pytest.mark.parametrize("other_s", [1, 2, 5])
@pytest.mark.parametrize("is_last", [False, True])
def test_mark_of_someone_else_at_the_same_moment_stays_the_newest(
    live: Generation, other_s: int, is_last: bool
) -> None:
    """Both look at the table before either of them writes, as two servers may: so each writes what it would have
    written alone. The clock of the other one may be slow. There are several marks, since rows of the same time are
    ordered by their ids."""
    firsts = [replace(BELL, text=f"sound {number}") for number in range(12)]
    add_marks(live, firsts, now=lambda: at(2))
    others = [replace(said, verdict="unsure", who="eve") for said in firsts]
    undos = [replace(said, verdict="none", replaces=at(2)) for said in firsts]
    written = []
    for group in (others, undos):
        add_marks(live, group, now=lambda: at(other_s))
        rows = read_rows(live.index)
        is_new = pc.not_equal(rows["marked_at"], pa.scalar(at(2), rows["marked_at"].type))
        written.append(rows.filter(is_new))
        lance.dataset(table_uri(live.index, "marks")).delete(among("mark_id", written[-1]["mark_id"].to_pylist()))
    assert [len(rows) for rows in written] == [12, 12]
    for rows in written if is_last else reversed(written):
        append_rows(live.index, rows)
    assert [(mark.verdict, mark.who) for mark in list_marks(live)] == [("unsure", "eve")] * 12


@pytest.mark.parametrize("number", range(6))
def test_of_two_corrections_of_one_mark_the_first_stored_stays(live: Generation, number: int) -> None:
    """The other one has looked at the table before, and is stored after. Rows of the same time are ordered by their
    ids, of which either may be the greater one."""
    [mark] = add_marks(live, [BELL], now=lambda: at(1))
    undo = replace(BELL, verdict="none", replaces=mark.marked_at)
    eves = replace(undo, verdict="unsure", who=f"eve {number}")

    def let_eve_be_first() -> dt.datetime:
        add_marks(live, [eves], now=lambda: at(2))
        return at(2)

    with pytest.raises(MarkedSince, match=f"was marked since by eve {number} at .* \\(unsure"):
        add_marks(live, [replace(BELL, text="rain"), undo], now=let_eve_be_first)
    assert [(said.verdict, said.who) for said in list_marks(live)] == [("unsure", f"eve {number}")]
    assert [said.verdict for said in list_marks(live, history=True)] == ["right", "unsure"]


def test_correction_yields_to_a_mark_that_came_while_it_was_made(live: Generation) -> None:
    [mark] = add_marks(live, [BELL], now=lambda: at(1))

    def let_eve_be_first() -> dt.datetime:
        add_marks(live, [replace(BELL, verdict="unsure", who="eve")], now=lambda: at(2))
        return at(3)

    with pytest.raises(MarkedSince, match="by eve"):
        add_marks(live, [replace(BELL, verdict="none", replaces=mark.marked_at)], now=let_eve_be_first)
    assert [said.who for said in list_marks(live, history=True)] == ["ada", "eve"]


def test_of_writers_who_correct_one_mark_at_once_exactly_one_is_told_that_it_is_stored(live: Generation) -> None:
    [mark] = add_marks(live, [BELL], now=lambda: at(1))
    all_have_looked = threading.Barrier(4, timeout=60)

    def wait_for_the_others() -> dt.datetime:
        all_have_looked.wait()
        return at(2)

    def correct(who: str) -> str | None:
        undo = replace(BELL, verdict="wrong", who=who, replaces=mark.marked_at)
        try:
            add_marks(live, [undo], now=wait_for_the_others)
        except MarkedSince:
            return None
        return who

    with ThreadPoolExecutor(4) as threads:
        told = list(threads.map(correct, ["ada", "bob", "cy", "eve"]))
    [winner] = filter(None, told)
    assert [said.who for said in list_marks(live)] == [winner]
    assert [said.who for said in list_marks(live, history=True)] == ["ada", winner]


def test_correction_that_two_make_alike_is_made_once(live: Generation) -> None:
    [mark] = add_marks(live, [BELL], now=lambda: at(1))
    undo = replace(BELL, verdict="wrong", replaces=mark.marked_at)

    def send_it_before() -> dt.datetime:
        add_marks(live, [undo])
        return at(2)

    add_marks(live, [undo], now=send_it_before)
    assert [said.verdict for said in list_marks(live)] == ["wrong"]


def test_correction_that_is_sent_twice_is_made_once(live: Generation) -> None:
    [first] = add_marks(live, [BELL], now=lambda: at(1))
    undo = replace(BELL, verdict="wrong", replaces=first.marked_at)
    assert [add_marks(live, [undo]).n_new for _ in range(2)] == [1, 0]
    with pytest.raises(MarkedSince):
        add_marks(live, [replace(undo, verdict="unsure")], now=lambda: at(4))
    assert [mark.verdict for mark in list_marks(live)] == ["wrong"]


@pytest.mark.parametrize(
    "changes", [{"replaces": dt.datetime(2026, 1, 2)}, {"replaces": at(1), "marked_at": at(2)}], ids=["zone", "both"]
)
def test_correction_needs_a_time_with_its_zone_alone(live: Generation, changes: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="replaces 2026"):
        add_marks(live, [replace(BELL, **changes)])
