"""What can be checked of a judgement without an index."""

import datetime as dt
from dataclasses import replace
from typing import Any

import pytest

from pipeline.errors import UsageError
from pipeline.marks.mark import Judgement, check, name_user

GOOD = Judgement("/a.wav", "a bell", "right", 1.0, 2.0)


def test_good_judgements_pass() -> None:
    for said in (
        GOOD,
        replace(GOOD, verdict="none"),
        replace(GOOD, end_s=None),
        replace(GOOD, uri="", audio_id="a" * 32),
    ):
        check(said)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"uri": ""}, "uri: is empty; give the file that was heard"),
        ({"text": " \t"}, "text: is empty; say what the sound was taken for"),
        ({"verdict": "rigth"}, "verdict 'rigth': expected right, wrong, unsure, or none to .*, did you mean right?"),
        ({"verdict": ""}, "verdict '': expected right, wrong, unsure, or none to take a mark back"),
        ({"start_s": -0.1}, "start -0.1 s: is no time in a file"),
        ({"start_s": float("nan")}, "start nan s: is no time in a file"),
        ({"start_s": float("inf"), "end_s": None}, "start inf s: is no time in a file"),
        ({"end_s": 1.0}, r"end 1.0 s: is not after the start \(1.0 s\)"),
        ({"end_s": float("nan")}, "end nan s: is no time in a file"),
        ({"end_s": float("inf")}, "end inf s: is no time in a file"),
        ({"end_s": 1e9}, r"end 1000000000\.0 s: is no time in a file"),
        ({"score": float("nan")}, "score nan: is not a finite number"),
        ({"audio_id": "A" * 32}, "audio_id 'A+': is no id: expected 32 hexadecimal digits"),
        ({"marked_at": dt.datetime(2026, 1, 2)}, "marked_at 2026-01-02 00:00:00: has no time zone"),
        ({"who": " "}, "who: is empty; give a name, or leave it out"),
    ],
)
def test_wrong_judgement_is_refused_by_its_value(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=f"^marks.csv: line 7: {message}") as caught:
        check(replace(GOOD, where="marks.csv: line 7", **changes))
    assert "\n" not in str(caught.value)
    with pytest.raises(UsageError, match=f"^{message}"):
        check(replace(GOOD, **changes))


def test_user_has_a_name_even_without_one_in_the_system(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOGNAME", "ada")
    assert name_user() == "ada"
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("os.getuid", lambda: 2**31 - 7)
    assert name_user() == f"uid {2**31 - 7}"
