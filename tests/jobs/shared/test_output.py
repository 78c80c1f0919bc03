"""All printing goes through one module, so that any name can be shown on a terminal and read from JSON."""

import ast
import io
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

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
from pipeline.words import show_duration

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


@pytest.mark.parametrize(("text", "shown"), HOSTILE.items())
def test_invisible_characters_are_escaped(text: str, shown: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert escape(text) == shown
    print_line(text)
    print_error(text)
    assert capsys.readouterr() == (shown + "\n", shown + "\n")


@pytest.mark.parametrize(("text", "shown"), HOSTILE.items())
def test_table_escapes_titles_columns_and_cells(text: str, shown: str, capsys: pytest.CaptureFixture[str]) -> None:
    print_table(f"of {text}", [text, "n"], [(text, 1), (None, 2)], right=["n"])
    title, _, header, _, cell, *_ = capsys.readouterr().out.split("\n")
    assert title == f"of {shown}"
    assert header.strip().startswith(shown.rstrip("\u3000\xa0"))
    assert cell.strip().startswith(shown.rstrip("\u3000\xa0"))


def test_table_fits_the_terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    print_table("", ["a" * 30, "b"], [("\x1b" * 40, "雨" * 60), ("x" * 200, "[/x]" * 40)])
    lines = capsys.readouterr().out.split("\n")
    assert all(cell_len(line) <= 80 for line in lines)
    assert sum(line.count(r"\x") for line in lines) >= 38  # a fold may cut some


@given(st.dictionaries(st.text(st.characters(exclude_categories=())), st.text(st.characters(exclude_categories=()))))
def test_json_round_trips_in_visible_characters(values: dict[str, str]) -> None:
    for encoding in ("utf-8", "ascii", None):
        line = format_json(values, encoding)
        assert json.loads(line) == values
        assert escape(line) == line
        assert encoding == "utf-8" or line.isascii()


def test_json_is_valid_on_a_terminal_without_unicode(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii", errors="backslashreplace"))
    print_json([{"uri": "/ü/雨.wav"}])
    assert json.loads(raw.getvalue()) == {"uri": "/ü/雨.wav"}


def test_log_keeps_lines_and_drops_colours(capsys: pytest.CaptureFixture[str]) -> None:
    print_log(["\x1b[3", "6m(worker)\x1b[0m\ta\r", "\nb\x1b[2J\x07\n", "50%\r60%\nno e", "nd"])
    assert capsys.readouterr().out == "(worker)\ta\nb\\x1b[2J\\x07\n50%\\r60%\nno end"


def test_log_shows_everything_before_a_lost_connection() -> None:
    def follow() -> Iterator[str]:
        yield "one\nt"
        raise ClusterError("gone")

    texts = whole_lines(follow())
    assert [next(texts), next(texts)] == ["one\n", "t"]
    with pytest.raises(ClusterError):
        next(texts)


PRINTS = {"print", "echo", "secho", "input", "confirm", "prompt"}
"""Functions and methods that print."""


def test_only_the_output_module_prints() -> None:
    jobs = Path(__file__).parents[3] / "jobs"
    for file in sorted({*jobs.rglob("*.py")} - {jobs / "shared" / "output.py"}):
        for node in ast.walk(ast.parse(file.read_text())):
            where = f"{file.name}:{getattr(node, 'lineno', 0)}"
            if isinstance(node, ast.Call):
                called = node.func
                is_display = file.name in ("display.py", "steps.py") and isinstance(
                    called, ast.Attribute
                )  # prints only ``to_text``
                name = called.id if isinstance(called, ast.Name) else getattr(called, "attr", None)
                assert name not in PRINTS or is_display, where
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "sys":
                is_descriptor = file.name == "main.py" and node.attr == "stdout"  # it replaces a closed pipe
                assert node.attr not in ("stdout", "stderr", "__stdout__", "__stderr__") or is_descriptor, where
            if isinstance(node, ast.ImportFrom):
                named = {alias.name for alias in node.names}
                assert node.module != "sys" or not named & {"stdout", "stderr"}, where
                assert node.module != "rich" or "print" not in named, where


LONG = [f"/data/{'deep/' * 20}{name}.wav" for name in ("a", "b")]


def test_long_paths_take_one_line_each(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    print_table("of x", ["rank", "file", "message"], [(1, LONG[0], "m"), (2, LONG[1], "n")], ["rank"], paths="file")
    title, folder, *lines = capsys.readouterr().out.rstrip().split("\n")
    assert title == "of x"
    assert folder == f"files in /data/{'deep/' * 20}"
    assert [line.split() for line in lines[-2:]] == [["1", "a.wav", "m"], ["2", "b.wav", "n"]]


def test_nothing_is_folded_in_a_pipe(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    print_table("of x", ["file", "message"], [(LONG[0], "many words " * 30)], paths="file")
    last = capsys.readouterr().out.rstrip().split("\n")[-1]
    assert last.startswith(f" {LONG[0]}   many words")
    assert last.count("many words") == 30


def test_paths_are_links_on_a_terminal(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "a.wav").touch()
    shown = io.StringIO()
    console = Console(file=shown, force_terminal=True, width=200, legacy_windows=False)
    monkeypatch.setattr("rich.console.Console", lambda **_: console)
    odd = tmp_path / "b\x07.wav"
    odd.touch()
    print_table("x", ["file"], [(str(tmp_path / "a.wav"),), (str(odd),)], paths="file")
    assert f"{(tmp_path / 'a.wav').as_uri()}\x1b\\" in shown.getvalue()
    assert f"{tmp_path.as_uri()}/b%07.wav\x1b\\" in shown.getvalue()
    assert r"b\x07.wav" in shown.getvalue()


_LINK = re.compile(r"\x1b\]8;[^;]*;([^\x1b]*)\x1b\\")
_STYLE = re.compile(r"\x1b\[[0-9;]*m")


def print_found(monkeypatch: pytest.MonkeyPatch, uris: list[str], *, is_terminal: bool) -> list[str]:
    """The lines of a table of 80 columns whose second row is dim, as they reach the terminal, or a pipe."""
    shown = io.StringIO()
    colours: Any = "standard" if is_terminal else None
    console = Console(file=shown, force_terminal=is_terminal, width=80, legacy_windows=False, color_system=colours)
    monkeypatch.setenv("COLUMNS", "80")
    with monkeypatch.context() as patch:
        patch.setattr("rich.console.Console", lambda **_: console)
        rows = [(rank, uri, "0:01.00", "2.000") for rank, uri in enumerate(uris, 1)]
        numbers = ["rank", "from", "score"]
        print_table("x", ["rank", "file", *numbers[1:]], rows, numbers, paths="file", is_dim=[False, True, False])
    return shown.getvalue().splitlines()


@pytest.mark.parametrize("name", ["a", "a long name of a recording " * 5, "雨の音" * 20, "odd\x1b[2m]8;;\x07" * 4])
def test_links_and_dim_rows_keep_their_width_at_80_columns(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    files = [tmp_path / "north" / f"{name}.wav", tmp_path / "south" / f"{name} 2.wav"]
    for file in files:
        file.parent.mkdir()
        file.touch()
    uris = [*map(str, files), f"{files[1]}#t=1,2"]
    written = print_found(monkeypatch, uris, is_terminal=True)
    plain = [_STYLE.sub("", _LINK.sub("", line)) for line in written]
    assert plain == print_found(monkeypatch, uris, is_terminal=False)
    rows = [number for number, line in enumerate(plain) if line.rstrip().endswith("0:01.00   2.000")]
    assert len(rows) == 3
    assert {cell_len(plain[number].rstrip()) for number in rows} == {cell_len(plain[rows[0]].rstrip())}
    assert all(cell_len(plain[number]) <= 80 for number in rows)
    for number, file in zip(rows, [*files, files[1]], strict=True):
        assert _LINK.findall(written[number]) == [file.as_uri(), ""]
        assert ("\x1b[2m" in written[number]) is (number == rows[1])


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0, "0 s"), (119.4, "119 s"), (400, "6.7 min"), (7_200, "2.0 h"), (359_000, "99.7 h"), (4e6, "1,111 h")],
)
def test_durations_have_a_unit_that_fits(seconds: float, shown: str) -> None:
    assert show_duration(seconds) == shown
