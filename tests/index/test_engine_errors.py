"""Data files of an index that were cut short: every question that meets one says that the index is damaged."""

import re
from pathlib import Path
from typing import Any

import pytest

from jobs.shared.explain import explain
from pipeline.config import make_config
from pipeline.errors import EarshotError
from pipeline.run.driver import index_corpus
from pipeline.search.client import Index
from tests.helpers.commands import run_main
from tests.helpers.contents import SECTIONS
from tests.helpers.damage import write_cut
from tests.helpers.ears import Ear, open_with
from tests.helpers.fakes import noise, write_wav
from tests.helpers.runs import WideEncoder, in_place

SAYS = r"the index is damaged: [^\n]+; `earshot verify INDEX --repair` finds the damage [^\n]+"
ASKED = {"query": "clips", "similar": "clips", "locate": "frames"}
"""What each command reads that encodes its question first."""


def ask(index: Index, command: str) -> Any:
    """Ask what a command asks, without loading models."""
    if command == "similar":
        return index.similar(noise(1.0), 48_000)
    return index.search("a bell") if command == "query" else index.locate("a bell", threshold=0.01)


def told(line: str) -> None:
    assert re.fullmatch(SAYS, line), line
    assert not re.search(r"\.rs\b|rustc|cargo|LanceError", line)
    assert len(line) < 400


def say(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    code = run_main(*arguments)
    out, err = capsys.readouterr()
    assert (code, out) == (1, ""), err
    return str(err).removeprefix("earshot: ").removesuffix("\n")


@pytest.mark.parametrize("size", ["small", "large"])
@pytest.mark.parametrize(("command", "table"), [*ASKED.items(), ("locate", "files")])
def test_query_that_meets_half_a_data_file_reports_damage(command: str, table: str, size: str, tmp_path: Path) -> None:
    index = open_with(write_cut(tmp_path / "index", table, size), Ear())
    with pytest.raises((OSError, ValueError, RuntimeError)) as caught:
        ask(index, command)
    told(explain(caught.value))


@pytest.mark.parametrize("size", ["small", "large"])
@pytest.mark.parametrize("command", ["info", "failures"])
def test_command_that_meets_half_a_data_file_reports_damage(
    command: str, size: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told(say(capsys, command, write_cut(tmp_path / "index", "files", size)))


def make_and_cut(tmp_path: Path, table: str) -> Any:
    """The configuration of an index that a run has made, of which the data files of a table are cut."""
    (tmp_path / "sounds").mkdir()
    write_wav(tmp_path / "sounds" / "a.wav", noise(1.0))
    config = make_config({"sources": [str(tmp_path / "sounds")], "into": str(tmp_path / "index"), **SECTIONS})
    index_corpus(config, stages=in_place(WideEncoder()))
    for file in (tmp_path / "index" / f"{table}.lance" / "data").iterdir():
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    return config


def test_plan_that_meets_half_a_data_file_reports_damage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told(say(capsys, "plan", make_and_cut(tmp_path, "files").into))


def test_run_that_meets_damage_does_not_advise_to_run_again(tmp_path: Path) -> None:
    config = make_and_cut(tmp_path, "files")
    with pytest.raises(EarshotError) as caught:
        index_corpus(config, stages=in_place(WideEncoder()))
    said = str(caught.value)
    assert said.startswith(f"{config.into}: the run stopped, as the index is damaged: ")
    assert f"`earshot verify {config.into} --repair`" in said
    assert "run again" not in said
    assert not re.search(r"\.rs\b|rustc|cargo|LanceError", said)
