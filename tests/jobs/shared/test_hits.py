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
