"""Every command, with its parameters and an example, is documented in ``jobs/README.md``."""

import re
from pathlib import Path

import pytest
from typer.main import get_command

from jobs.main import app
from jobs.reference import README, main, make_reference

ROOT = Path(__file__).parents[2]
COMMANDS = get_command(app).commands  # type: ignore[attr-defined]


def test_reference_is_up_to_date(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--check"]) == 0, capsys.readouterr().err


def test_reference_does_not_depend_on_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "40")
    assert make_reference() == README.read_text("utf-8")
    assert "\x1b" not in make_reference()


@pytest.mark.parametrize("name", COMMANDS)
def test_reference_has_every_parameter_and_an_example(name: str) -> None:
    [section] = re.findall(rf"^## earshot {name}\n(.*?)(?=^## )", README.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    assert re.search(rf"^earshot {name}\b[^\[\n]*\n```$", section, re.MULTILINE)
    for parameter in COMMANDS[name].params:
        [*_, last] = parameter.opts
        typed = last if last.startswith("-") else (parameter.metavar or last.upper())
        assert re.search(rf"^\| `[^`]*{re.escape(typed.replace('|', chr(92) + '|'))}[^`]*` \|", section, re.MULTILINE)
        assert parameter.help
