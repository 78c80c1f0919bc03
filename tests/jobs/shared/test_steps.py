"""The progress of work in steps."""

import io

import pytest
from rich.console import Console

from jobs.shared import steps
from jobs.shared.steps import Steps


def make_console(*, is_terminal: bool) -> Console:
    return Console(file=io.StringIO(), force_terminal=is_terminal, width=80)


def text_of(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_off_a_terminal_a_line_comes_when_it_is_due(monkeypatch: pytest.MonkeyPatch) -> None:
    console = make_console(is_terminal=False)
    with Steps("cutting", "sounds", json=False, console=console) as shown:
        shown(1, 2_000)
        assert text_of(console) == ""
        monkeypatch.setattr(steps, "LINE_EVERY_S", 0.0)
        shown(1_000, 2_000)
    assert text_of(console) == "cutting: 1,000 of 2,000 sounds\n"


def test_a_terminal_has_a_bar() -> None:
    console = make_console(is_terminal=True)
    with Steps("cutting", "sounds", json=False, console=console) as shown:
        shown(500, 2_000)
    assert "cutting" in text_of(console)
    assert "500/2000" in text_of(console)


def test_json_shows_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps, "LINE_EVERY_S", 0.0)
    for is_terminal in (True, False):
        console = make_console(is_terminal=is_terminal)
        with Steps("cutting", "sounds", json=True, console=console) as shown:
            shown(1, 2)
        assert text_of(console) == ""
