"""An index whose corpus has changed, a way to run commands on it, and a cluster whose client records every call."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from jobs.shared.ray_jobs import Cluster
from pipeline.config import Config, make_config
from pipeline.run.dispatch import Workers
from pipeline.run.driver import index_corpus
from tests.helpers.commands import Call, run_main
from tests.helpers.contents import KnownCorpus
from tests.helpers.ray_jobs import ADDRESS, FakeClient
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


@pytest.fixture
def client() -> FakeClient:
    return FakeClient()


@pytest.fixture
def cluster(client: FakeClient) -> Cluster:
    return Cluster(client, ADDRESS)


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return make_config({"sources": ["/data/sounds", "~/more"], "into": str(tmp_path / "my index")})


@pytest.fixture
def earshot(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], client: FakeClient) -> Any:
    """Run a command on the fake cluster; returns its exit code, stdout and stderr."""
    monkeypatch.setattr("ray.job_submission.JobSubmissionClient", lambda address: client)
    monkeypatch.setattr("requests.get", lambda *_, **__: None)
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", ADDRESS)

    return lambda *arguments: (run_main(*arguments), *capsys.readouterr())


@pytest.fixture
def file(config: Config, tmp_path: Path) -> Path:
    file = tmp_path / "run.yaml"
    file.write_text(yaml.safe_dump(config.model_dump(mode="json")))
    return file
