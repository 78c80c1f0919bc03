"""A cluster whose client records every call."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from jobs.shared.ray_jobs import Cluster
from pipeline.config import Config, make_config
from tests.helpers.commands import run_main
from tests.helpers.ray_jobs import ADDRESS, FakeClient


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
