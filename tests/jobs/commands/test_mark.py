"""``earshot mark``."""

import io
import json
import re
import shlex
import sys
from pathlib import Path

import pytest

import pipeline
from jobs.commands.mark import MANY
from pipeline.marks import table
from pipeline.marks.mark import Judgement
from tests.helpers.commands import Call, lines
from tests.helpers.contents import KnownCorpus

BELL = ("--start", "0.2", "--end", "0:00.60", "--text", "a bell ringing")


def test_mark_is_made_listed_and_taken_back(corpus: KnownCorpus, call: Call) -> None:
    into, uri = corpus.config.into, corpus.uri("b.wav")
    assert call("mark", into)[:2] == (0, f"no marks in {into}\n")
    code, out, _ = call("mark", into, uri, *BELL, "--verdict", "right", "--score", 2.144, "--who", "ada")
    assert (code, out) == (0, f"{uri} from 0:00.20 to 0:00.60: 'a bell ringing' is right, says ada\n")
    code, out, _ = call("mark", into)
    assert code == 0
    assert out.startswith(f"1 mark in {into}: 1 right\n")
    assert re.search(r"b\.wav +0:00\.20 +0:00\.60 +a bell ringing +right +ada +\d{4}-\d\d-\d\d \S+ +2\.144 *\n", out)
    [mark] = lines(call("mark", into, "--json")[1])
    assert (mark["uri"], mark["start_s"], mark["end_s"], mark["score"]) == (uri, 0.2, 0.6, 2.144)
    assert (mark["status"], mark["uris"], mark["first_frame"], mark["stop_frame"]) == ("here", [uri], 5, 15)
    [again] = lines(call("mark", into, uri, *BELL, "--verdict", "wrong", "--who", "bob", "--json")[1])
    assert (again["verdict"], again["who"], again["score"]) == ("wrong", "bob", None)
    assert call("mark", into, uri, *BELL, "--verdict", "none")[1].endswith("'a bell ringing' is taken back\n")
    assert call("mark", into)[1] == f"no marks in {into}\n"
    assert [row["verdict"] for row in lines(call("mark", into, "--history", "--json")[1])] == ["right", "wrong", "none"]


def test_lists_are_selected_by_file_text_verdict_and_who(corpus: KnownCorpus, call: Call) -> None:
    into = corpus.config.into
    for name, text, verdict, who in (
        ("a.wav", "a bell", "right", "ada"),
        ("b.wav", "a bell", "wrong", "bob"),
        ("b.wav", "rain", "unsure", "ada"),
    ):
        assert call("mark", into, corpus.uri(name), "--text", text, "--verdict", verdict, "--who", who)[0] == 0

    def verdicts(*arguments: str) -> list[str]:
        return [row["verdict"] for row in lines(call("mark", into, *arguments, "--json")[1])]

    assert verdicts() == ["right", "wrong", "unsure"]
    assert verdicts(corpus.uri("b.wav")) == ["wrong", "unsure"]
    assert verdicts("--text", "a bell") == ["right", "wrong"]
    assert verdicts("--who", "ada", "--text", "rain") == ["unsure"]
    assert verdicts("--verdict", "wrong") == ["wrong"]
    assert call("mark", into, "--text", "snow")[1] == f"no such marks in {into}\n"


def test_marks_whose_audio_is_gone_are_said_so(corpus: KnownCorpus, call: Call) -> None:
    into = corpus.config.into
    call("mark", into, corpus.uri("c.wav"), *BELL, "--verdict", "right")  # deleted since it was indexed
    call("mark", into, corpus.uri("a.wav"), *BELL, "--verdict", "wrong")  # moved
    assert call("reindex", into)[0] == 0
    out = call("mark", into)[1]
    assert out.startswith(f"2 marks in {into}: 1 right, 1 wrong; of 1, the audio is gone\n")
    assert re.search(r"c\.wav .* gone *\n", out)
    assert re.search(r"moved\.wav .* here *\n", out)
    assert [row["status"] for row in lines(call("mark", into, "--json")[1])] == ["gone", "here"]


@pytest.mark.parametrize("n_texts", [1, 9])
def test_many_marks_are_counted_by_text(corpus: KnownCorpus, call: Call, n_texts: int) -> None:
    into, uri = corpus.config.into, corpus.uri("b.wav")
    made = pipeline.open(into).mark_all(
        [
            Judgement(
                uri,
                f"sound {number % n_texts}",
                "right" if number % 3 else "wrong",
                0.04 * (number % 7),
                who=f"{number}",
            )
            for number in range(3 * 7 * 9)
        ]
    )
    assert made.n_new == 189
    found = pipeline.open(into).marks()
    out = call("mark", into)[1]
    if n_texts == 1:
        assert "sound 0 " in out
        assert len(found) <= MANY
        return
    assert len(found) > MANY
    wrong = [mark.verdict for mark in found if mark.text == "sound 0"].count("wrong")
    assert re.search(rf"sound 0 +{7 - wrong} +{wrong} *\n", out)
    assert f"`earshot mark {shlex.quote(into)} --text TEXT` lists the marks of one text" in out
    assert call("mark", into, "--text", "sound 0")[1].startswith("7 marks in ")
    assert len(lines(call("mark", into, "--json")[1])) == len(found)


def test_table_fits_eighty_columns(corpus: KnownCorpus, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    into = corpus.config.into
    call("mark", into, corpus.uri("sub/d.wav"), *BELL, "--verdict", "unsure", "--who", "somebody")
    call("mark", into, corpus.uri("c.wav"), *BELL, "--verdict", "unsure", "--who", "somebody")
    call("reindex", into)
    monkeypatch.setenv("COLUMNS", "80")
    out = call("mark", into)[1]
    assert max(len(line) for line in out.splitlines()[1:] if not line.startswith("files in")) <= 80
    assert re.search(r"d\.wav +0:00\.20 +0:00\.60 +a bell ringing +unsure +somebody +here *\n", out)


def test_csv_in_and_out_is_the_same(corpus: KnownCorpus, call: Call, tmp_path: Path) -> None:
    into = corpus.config.into
    call("mark", into, corpus.uri("b.wav"), *BELL, "--verdict", "right", "--score", 1.5)
    call("mark", into, corpus.uri("a.wav"), "--text", 'a "horn", twice', "--verdict", "wrong")
    code, written, _ = call("mark", into, "--csv")
    assert (code, written.count("\n")) == (0, 3)
    (file := tmp_path / "marks.csv").write_text(written)
    assert call("mark", into, "--from", file) == (0, f"0 new marks from {file}; 2 that were there already\n", "")
    for uri in ("a.wav", "b.wav"):
        for row in lines(call("mark", into, corpus.uri(uri), "--json")[1]):
            times = ("--start", row["start_s"], "--end", row["end_s"])
            call("mark", into, row["uri"], *times, "--text", row["text"], "--verdict", "none")
    assert call("mark", into, "--csv")[1].count("\n") == 1
    lose_marks(Path(into))
    assert call("mark", into, "--from", file)[1] == f"2 new marks from {file}\n"
    assert call("mark", into, "--csv")[1] == written


def lose_marks(into: Path) -> None:
    (into / "marks.lance").rename(into.parent / "lost")


def test_answers_of_locate_are_marked(corpus: KnownCorpus, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    into = corpus.config.into
    found = call("locate", into, "a bell", "--threshold", "1e-4", "--json")[1]
    assert len(lines(found)) > 1
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(found.encode())))
    code, out, err = call("mark", into, "--from", "-", "--text", "a bell", "--verdict", "wrong")
    assert (code, out, err) == (0, f"{len(lines(found))} new marks from standard input\n", "")
    key = ("uri", "start_s", "end_s", "score")
    marks = lines(call("mark", into, "--json")[1])
    assert {tuple(row[name] for name in key) for row in marks} == {
        tuple(row[name] for name in key) for row in lines(found)
    }


def test_table_with_a_wrong_line_makes_no_mark(corpus: KnownCorpus, call: Call, tmp_path: Path) -> None:
    into, file = corpus.config.into, tmp_path / "marks.csv"
    rows = [f"{corpus.uri('b.wav')},right", f"{corpus.uri('bb.wav')},right", f"{corpus.uri('a.wav')},rihgt"]
    file.write_text("\n".join(["uri,verdict", *rows]))
    code, out, err = call("mark", into, "--from", file, "--text", "a bell")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert f"{file}: line 3: {corpus.uri('bb.wav')}: is no file of {into}, did you mean {corpus.uri('b.wav')}?" in err
    assert err.endswith("; 1 more of 3 marks are wrong; nothing is stored\n")
    assert not (Path(into) / "marks.lance").exists()
    file.write_text("uri,verdict,remark\n" + rows[0])
    code, out, err = call("mark", into, "--from", file, "--text", "a bell")
    assert (code, out) == (0, f"1 new mark from {file}\n")
    assert err == f"earshot: {file}: columns that were not read: remark\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("b.wav", "--verdict", "right"), "--text: is missing; say what the sound was taken for"),
        (("b.wav", "--text", "x", "--verdict", "rigth"), "--verdict 'rigth': expected right, .*, did you mean right."),
        (("b.wav", "--text", " ", "--verdict", "right"), "text: is empty"),
        (("b.wav", *BELL[:2], "--text", "x"), "--start: to make a mark, give FILE, --text and --verdict, too"),
        (("--score", "1"), "--score: to make a mark, give FILE"),
        (("b.wav", "--start", "x", "--text", "x", "--verdict", "right"), "--start: 'x' is no time: give seconds"),
        (("b.wav", "--end", "99", "--text", "x", "--verdict", "right"), r"end 99 s: .*b\.wav lasts 1\.700 s"),
        (("b.wav", "--text", "x", "--verdict", "right", "--history"), "--history: lists marks; leave out --verdict"),
        (("b.wav", "--from", "x.csv"), "FILE: cannot be given with --from"),
        (("--history", "--from", "x.csv"), "--history: cannot be given with --from"),
        (("--from", "none.csv"), "none.csv: cannot be read: No such file"),
        (("--csv", "--json"), "--csv and --json: give one of them"),
        (("none.wav", "--text", "x", "--verdict", "right"), r"none\.wav: is no file of "),
        (("none.wav", "--json"), r"none\.wav: is no file of "),
        (("broken.wav", "--text", "x", "--verdict", "right"), r"broken\.wav: is not indexed, since it failed \(\w+\)"),
        (("c.wav", "--text", "x", "--verdict", "right"), r"c\.wav: is no longer in the index"),
    ],
)
def test_wrong_call_is_one_line(corpus: KnownCorpus, call: Call, arguments: tuple[str, ...], said: str) -> None:
    call("reindex", corpus.config.into)
    first, *others = arguments
    arguments = (corpus.uri(first) if first.endswith(".wav") else first, *others)
    code, out, err = call("mark", corpus.config.into, *arguments)
    assert (code, out) == (2, "")
    assert re.search(f"^earshot: .*{said}", err)
    assert err.count("\n") == 1
    assert not (Path(corpus.config.into) / "marks.lance").exists()


def test_index_shows_how_many_marks_it_has(corpus: KnownCorpus, call: Call) -> None:
    into = corpus.config.into
    assert not re.search(r"^ marks", call("info", into)[1], re.MULTILINE)
    call("mark", into, corpus.uri("b.wav"), *BELL, "--verdict", "right")
    assert re.search(r"^ marks +1 *$", call("info", into)[1], re.MULTILINE)
    assert json.loads(call("info", into, "--json")[1])["marks"] == 1
    assert call("verify", into)[0] == 0


def test_damaged_marks_are_told_and_the_index_answers(
    corpus: KnownCorpus, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    into = corpus.config.into
    call("mark", into, corpus.uri("b.wav"), *BELL, "--verdict", "right")
    monkeypatch.setattr(table, "_PAUSES_S", ())
    [file] = (Path(into) / "marks.lance" / "data").iterdir()
    file.unlink()
    code, out, err = call("mark", into)
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert err.startswith("earshot: the marks of the index are damaged: ")
    assert err.endswith("; restore the folder marks.lance from a copy\n")
    assert call("query", into, "a bell")[0] == 0
    assert call("verify", into)[0] == 0
