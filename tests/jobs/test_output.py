"""Everything that is printed goes through one module: whatever names hold, terminals show it and programs read it."""

import ast
import io
import json
import math
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console
from typer.testing import CliRunner

import pipeline
from jobs.commands.locate import explain_no_event
from jobs.main import app, main
from jobs.shared.display import Display
from jobs.shared.hits import choose_columns, print_hits
from jobs.shared.output import (
    escape,
    format_json,
    print_error,
    print_json,
    print_line,
    print_log,
    print_table,
    whole_lines,
)
from pipeline.errors import ClusterError
from pipeline.grid import Grid
from pipeline.run.progress import Progress
from pipeline.search.clips import Hit
from tests.helpers.tables import write_index

HOSTILE = {
    "\x1b[31mred": r"\x1b[31mred",
    "\x1b]0;title\x07": r"\x1b]0;title\x07",
    "a\nb\r\tc": r"a\nb\r\tc",
    "\x9b31m\x85\x7f": r"\x9b31m\x85\x7f",
    "abc\u202egpj.wav": r"abc\u202egpj.wav",
    "\u2066\u2069\u200e\u200f\u061c\u200b": r"\u2066\u2069\u200e\u200f\u061c\u200b",
    "\u2028\u2029\ufeff": r"\u2028\u2029\ufeff",
    "\udc80\U000e0001": r"\udc80\U000e0001",
    "[/x] [bold]b :smile: \\": "[/x] [bold]b :smile: \\",
    "ü 雨\u3000\xa0é e\u0301 🎧": "ü 雨\u3000\xa0é e\u0301 🎧",
}


def test_a_warning_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    def warn(**_: object) -> int:
        warnings.simplefilter("always")
        warnings.warn("it is slower:\nno compiler\x1b[31m, https://h/a?token=ab", RuntimeWarning, stacklevel=1)
        return 0

    with warnings.catch_warnings(), pytest.raises(SystemExit) as exit:
        main(warn)
    assert exit.value.code == 0
    said = "earshot: warning: it is slower: no compiler\\x1b[31m, https://h/a?token=***\n"
    assert capsys.readouterr() == ("", said)


@pytest.mark.parametrize(("text", "shown"), HOSTILE.items())
def test_a_text_is_shown_as_it_is_or_as_an_escape(text: str, shown: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert escape(text) == shown
    print_line(text)
    print_error(text)
    assert capsys.readouterr() == (shown + "\n", shown + "\n")


@pytest.mark.parametrize(("text", "shown"), HOSTILE.items())
def test_a_table_shows_titles_columns_and_cells_literally(
    text: str, shown: str, capsys: pytest.CaptureFixture[str]
) -> None:
    print_table(f"of {text}", [text, "n"], [(text, 1), (None, 2)], right=["n"])
    title, _, header, _, cell, *_ = capsys.readouterr().out.split("\n")
    assert title == f"of {shown}"
    assert header.strip().startswith(shown.rstrip("\u3000\xa0"))
    assert cell.strip().startswith(shown.rstrip("\u3000\xa0"))


def test_a_table_keeps_to_the_width_of_the_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    print_table("", ["a" * 30, "b"], [("\x1b" * 40, "雨" * 60), ("x" * 200, "[/x]" * 40)])
    lines = capsys.readouterr().out.split("\n")
    assert all(cell_len(line) <= 80 for line in lines)
    assert sum(line.count(r"\x") for line in lines) >= 38  # but for those that a fold has cut


@given(st.dictionaries(st.text(st.characters(exclude_categories=())), st.text(st.characters(exclude_categories=()))))
def test_json_is_read_as_what_was_written_and_holds_nothing_unseen(values: dict[str, str]) -> None:
    for encoding in ("utf-8", "ascii", None):
        line = format_json(values, encoding)
        assert json.loads(line) == values
        assert escape(line) == line
        assert encoding == "utf-8" or line.isascii()


def test_json_is_json_on_a_terminal_without_unicode(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii", errors="backslashreplace"))
    print_json([{"uri": "/ü/雨.wav"}])
    assert json.loads(raw.getvalue()) == {"uri": "/ü/雨.wav"}


# --- what other programs say ------------------------------------------------------------------------------------------


def test_a_log_keeps_its_lines_and_loses_its_colours(capsys: pytest.CaptureFixture[str]) -> None:
    print_log(["\x1b[3", "6m(worker)\x1b[0m\ta\r", "\nb\x1b[2J\x07\n", "50%\r60%\nno e", "nd"])
    assert capsys.readouterr().out == "(worker)\ta\nb\\x1b[2J\\x07\n50%\\r60%\nno end"


def test_what_came_before_a_cluster_was_gone_is_shown() -> None:
    def follow() -> Iterator[str]:
        yield "one\nt"
        raise ClusterError("gone")

    texts = whole_lines(follow())
    assert [next(texts), next(texts)] == ["one\n", "t"]
    with pytest.raises(ClusterError):
        next(texts)


# --- every command ----------------------------------------------------------------------------------------------------


def test_hits_show_columns_of_any_name(capsys: pytest.CaptureFixture[str]) -> None:
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
def test_of_many_columns_those_are_shown_that_are_asked_for(
    where: str | None, shown: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    metadata = dict.fromkeys(("[/]", "Site name", "rig", "--"))
    hit = Hit(1, "/a.wav", 0.0, 1.0, 0.5, 0.5, "0", metadata)
    assert choose_columns([hit], where) == shown


@pytest.mark.parametrize(
    ("min_duration_s", "where", "said"),
    [
        (0.0, "codec = 'none'", "no indexed file where codec = 'none'"),
        (0.0, "codec = 'flac'", "no event reaches a probability of 0.3 where codec = 'flac'; try a lower --threshold"),
        (0.0, None, "no event reaches a probability of 0.3; try a lower --threshold, or `earshot query`"),
        (2.5, None, "no event of 2.5 s or more reaches a probability of 0.3; try a lower --threshold or --min-"),
    ],
)
def test_why_no_event_was_found_is_told(min_duration_s: float, where: str | None, said: str, tmp_path: Path) -> None:
    vectors = np.zeros((10, 8), np.float16), np.zeros((1, 8), np.float16)
    write_index(tmp_path / "index", {"/a.wav": vectors}, Grid())
    assert explain_no_event(pipeline.open(str(tmp_path / "index")), 0.3, min_duration_s, where).startswith(said)


def test_info_and_failures_show_columns_and_names_of_any_kind(tmp_path: Path) -> None:
    uri = "/a\n\u202e[/x].wav"
    metadata = pa.table({"uri": [uri], "[/x]": ["[/y]"]})
    write_index(
        tmp_path / "i", {uri: (np.zeros((10, 8), np.float16), np.zeros((1, 8), np.float16))}, Grid(), {}, metadata
    )
    result = CliRunner().invoke(app, ["info", str(tmp_path / "i")])
    assert result.exit_code == 0, result.exception
    assert "[/x] (string)" in result.stdout
    assert CliRunner().invoke(app, ["failures", str(tmp_path / "i")]).stdout == "no failures\n"


@pytest.mark.parametrize(
    "arguments", [["info", "/no\x1b[31m\u202e[/x]"], ["info", "x", "--no\x1b[31m\u202e[/x]"], ["\x1b[31m\u202e[/x]"]]
)
def test_a_mistake_is_told_without_what_it_would_do_to_a_terminal(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["earshot", *arguments])
    with pytest.raises(SystemExit) as exit:
        main()
    assert exit.value.code == 2
    err = capsys.readouterr().err
    assert r"\x1b[31m\u202e[/x]" in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("is_terminal", [True, False])
def test_the_display_shows_what_a_run_says_literally(is_terminal: bool) -> None:
    out = io.StringIO()
    console = Console(file=out, force_terminal=is_terminal, width=100, _environ={})
    progress = Progress(n_files=3)
    progress.stage = "[/x] \u202e:smile:"
    progress.reasons["[bold]"] += 1
    with Display(json=False, console=console) as display:
        display._shown_at = -math.inf
        display.update(progress)
    assert r"[/x] \u202e:smile:" in out.getvalue()
    assert "1 [bold]" in out.getvalue()


PRINTS = {"print", "echo", "secho", "input", "confirm", "prompt"}
"""Functions and methods that print, as far as commands might call them."""


def test_nothing_is_printed_but_by_the_one_module() -> None:
    jobs = Path(__file__).parents[2] / "jobs"
    for file in sorted({*jobs.rglob("*.py")} - {jobs / "shared" / "output.py"}):
        for node in ast.walk(ast.parse(file.read_text())):
            where = f"{file.name}:{getattr(node, 'lineno', 0)}"
            if isinstance(node, ast.Call):
                called = node.func
                is_display = file.name == "display.py" and isinstance(called, ast.Attribute)  # a line of ``to_text``
                name = called.id if isinstance(called, ast.Name) else getattr(called, "attr", None)
                assert name not in PRINTS or is_display, where
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "sys":
                is_descriptor = file.name == "main.py" and node.attr == "stdout"  # where a closed pipe is replaced
                assert node.attr not in ("stdout", "stderr", "__stdout__", "__stderr__") or is_descriptor, where
            if isinstance(node, ast.ImportFrom):
                named = {alias.name for alias in node.names}
                assert node.module != "sys" or not named & {"stdout", "stderr"}, where
                assert node.module != "rich" or "print" not in named, where
