"""An index whose corpus has changed, and a way to run commands on it."""

import sys
from pathlib import Path

import pytest

from jobs.main import main
from pipeline.run.dispatch import Workers
from pipeline.run.driver import index_corpus
from tests.helpers.commands import Call
from tests.helpers.contents import KnownCorpus
from tests.helpers.runs import WideEncoder, in_place


@pytest.fixture
def corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> KnownCorpus:
    """An indexed corpus; since then a file was moved, one copied, one added, one deleted and one broken."""
    made = KnownCorpus(tmp_path, store={"optimize_every": 1_000})
    for number, name in enumerate(("a.wav", "b.wav", "c.wav", "sub/d.wav")):
        made.put(name, number + 2)
    index_corpus(made.config, stages=in_place(WideEncoder()))
    made.move("a.wav", "moved.wav")
    made.put("doubled.wav", 3)
    made.delete("c.wav")
    made.put("new.wav", 0)
    made.put("broken.wav", 7)
    monkeypatch.setenv("COLUMNS", "200")
    return made


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """Run a command with an encoder in this process; returns its exit code, stdout and stderr."""

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["earshot", *map(str, arguments)])
        with pytest.raises(SystemExit) as exit:
            main(obj=Workers(in_place(WideEncoder())))
        out, err = capsys.readouterr()
        return int(exit.value.code or 0), out, err

    return run
