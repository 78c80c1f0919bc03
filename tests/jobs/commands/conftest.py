"""An index whose corpus has changed, and a way to run commands on it."""

from pathlib import Path

import pytest

from pipeline.run.dispatch import Workers
from pipeline.run.driver import index_corpus
from tests.helpers.commands import Call, run_main
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
def call(capsys: pytest.CaptureFixture[str]) -> Call:
    """Run a command with an encoder in this process; returns its exit code, stdout and stderr."""

    return lambda *arguments: (run_main(*arguments, workers=Workers(in_place(WideEncoder()))), *capsys.readouterr())
