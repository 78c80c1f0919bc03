"""Results of searches, as tables and as JSON."""

import json

import pytest

from jobs.shared.hits import choose_columns, print_hits
from pipeline.search.clips import Hit


def test_hits_show_metadata_columns_of_any_name(capsys: pytest.CaptureFixture[str]) -> None:
    hit = Hit(1, "/a\n\x1b[2J.wav", 0.0, 10.0, 1.0, None, "c", {"[/x]\u202e": "[bold]"})
    print_hits("'[/x]' in ix", [hit], json=False, where=None)
    out = capsys.readouterr().out
    for part in ("'[/x]' in ix", r"[/x]\u202e", "[bold]", r"\x1b[2J"):
        assert part in out
    print_hits("", [hit], json=True, where=None)
    line = capsys.readouterr().out
    assert json.loads(line)["metadata"] == {"[/x]\u202e": "[bold]"}
    assert r"\u202e" in line


@pytest.mark.parametrize(
    ("where", "shown"),
    [
        (None, []),
        ("rig = 'a'", ["rig"]),
        ("`[/]` = 'a'", ["[/]"]),
        ("`site name` = 'a'", ["Site name"]),
        ("name = 'a'", []),
    ],
)
def test_shown_columns_are_those_in_where(where: str | None, shown: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    metadata = dict.fromkeys(("[/]", "Site name", "rig", "--"))
    hit = Hit(1, "/a.wav", 0.0, 1.0, 0.5, 0.5, "0", metadata)
    assert choose_columns([hit], where) == shown


def test_improbable_results_are_said_to_be(capsys: pytest.CaptureFixture[str]) -> None:
    hits = [Hit(rank, f"/{rank}.wav", 0.0, 1.0, 0.5, 0.02 / rank, "0", {}) for rank in (1, 2)]
    print_hits("x", hits, json=False, where=None)
    assert "the best probability is 0.020: it is likely that nothing here" in capsys.readouterr().out
    print_hits("x", [*hits, Hit(3, "/3.wav", 0.0, 1.0, 0.5, 0.2, "0", {})], json=False, where=None)
    assert "nothing here" not in capsys.readouterr().out
    print_hits("x", [Hit(1, "/1.wav", 0.0, 1.0, 0.5, None, "0", {})], json=False, where=None)
    assert "nothing here" not in capsys.readouterr().out
