"""Ray Jobs: names, what a submission sends, and one line for every error."""

import json
import os
import re
from pathlib import Path

import pytest
import requests

from jobs.shared import ray_jobs as module
from jobs.shared.ray_jobs import CONFIG_FILE, Cluster, connect, explain, find_address, name_jobs
from pipeline.config import Config, anchor, load_config, make_config
from pipeline.errors import ClusterError, IndexBusy, JobMissing, UsageError
from pipeline.run.ray_start import JOB_VARIABLE, PYTHON_VARIABLE, RUN_VARIABLE
from tests.helpers.ray_jobs import ADDRESS, FakeClient


def test_submitted_configuration_equals_the_local_one(
    cluster: Cluster, client: FakeClient, config: Config, tmp_path: Path
) -> None:
    name = cluster.submit(config, python="/opt/python")
    sent = client.shipped[name]
    assert sent["entrypoint"] == "/opt/python -m jobs.main index earshot.yaml"
    metadata = client.jobs[name].metadata
    run = {JOB_VARIABLE: name, RUN_VARIABLE: metadata["earshot_run"]}
    assert sent["env_vars"] == run | {PYTHON_VARIABLE: "/opt/python"}  # for its workers
    assert re.fullmatch("[0-9a-f]{32}", metadata["earshot_run"])
    assert "py_modules" not in sent
    (tmp_path / CONFIG_FILE).write_text(sent["files"].pop(CONFIG_FILE))
    assert not sent["files"]  # nothing else is uploaded
    assert not Path(sent["working_dir"]).exists()
    assert load_config(tmp_path / CONFIG_FILE) == anchor(config)
    assert metadata["earshot_index"] == config.into
    assert make_config(json.loads(metadata["earshot_config"])) == anchor(config)


def test_ship_sends_both_packages_whole(cluster: Cluster, client: FakeClient, config: Config) -> None:
    sent = client.shipped[cluster.submit(config, ship=True, rebuild=True, allow_deletions=True)]
    assert sent["entrypoint"] == "python -m jobs.main index earshot.yaml --rebuild --allow-deletions"
    assert [Path(folder).name for folder in sent["py_modules"]] == ["pipeline", "jobs"]
    assert (Path(sent["py_modules"][0]) / "encoder/models/earshot-tiny").is_dir()
    assert (Path(sent["py_modules"][1]) / "main.py").is_file()
    assert sent["excludes"] == ["__pycache__"]
    assert PYTHON_VARIABLE not in sent["env_vars"]  # workers have the Python of their node


def test_attempts_are_numbered_and_only_one_runs(cluster: Cluster, client: FakeClient, config: Config) -> None:
    names = []
    for state in ("FAILED", "STOPPED", "SUCCEEDED"):
        names.append(cluster.submit(config))
        with pytest.raises(IndexBusy, match=rf"job {names[-1]} writes to it; .* `earshot stop {names[-1]}`"):
            cluster.submit(config)
        client.end(names[-1], state)
    stem = name_jobs(config.into)
    assert names == [f"{stem}-{attempt}" for attempt in (1, 2, 3)]
    assert stem.startswith("earshot-my-index-")
    assert name_jobs("/elsewhere/my index") != stem  # another index of the same name
    assert len({job.run for job in cluster.list_jobs()}) == 3
    client.add("raysubmit_1", "RUNNING", {})
    assert [job.name for job in cluster.list_jobs()] == names[::-1]
    assert {job.state for job in cluster.list_jobs()} == {"failed", "stopped", "succeeded"}


def test_follow_survives_broken_connections(
    cluster: Cluster, client: FakeClient, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RETRY_S", 0.0)
    name = cluster.submit(config)
    client.breaks = [0, 2, 1, 2]
    assert "".join(cluster.follow(name)) == "one\ntwo\nthree\n"
    client.breaks = [0] * 1_000
    with pytest.raises(ClusterError, match="WebSocket connection closed"):
        list(cluster.follow(name))
    assert len(client.breaks) == 1_000 - module.RETRIES - 1


def test_unknown_job_is_named(cluster: Cluster) -> None:
    for ask in (cluster.find, cluster.logs, cluster.stop, lambda name: list(cluster.follow(name))):
        with pytest.raises(JobMissing, match="x-1: no such job at http://head:8265"):
            ask("x-1")


def test_stop_returns_whether_the_job_was_running(cluster: Cluster, client: FakeClient, config: Config) -> None:
    name = cluster.submit(config)
    assert cluster.stop(name)
    client.end(name, "STOPPED")
    assert not cluster.stop(name)
    assert client.stopped == [name, name]


class AuthenticationError(Exception):
    """Recognised by its name, like Ray's."""


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (AuthenticationError("Authentication required: Unauthorized\n\nlong help"), "needs a token: set RAY_AUTH_MODE"),
        (AuthenticationError("Authentication failed: Forbidden\n\nlong help"), "refuses this token"),
        (AuthenticationError("RAY_AUTH_TOKEN_PATH is set but file cannot be opened"), "no token to send: none in ~/"),
        (requests.exceptions.ConnectTimeout("timed out"), "no Ray cluster answers here"),
        (requests.exceptions.ReadTimeout("timed out"), "no Ray cluster answers here"),
        (requests.exceptions.ConnectionError("refused"), "no Ray cluster answers here"),
        (requests.exceptions.InvalidURL("no host"), "no host"),
        (ConnectionError("Failed to connect to Ray at address"), "no Ray cluster answers here"),
        (RuntimeError("Request failed with status code 500:\n Traceback"), "status code 500: Traceback"),
        (
            RuntimeError(
                "Request failed with status code 500: No available agent to submit job, please try again later.."
            ),
            "agent's port, 52365: .*--dashboard-agent-listen-port PORT",
        ),
        (ValueError("package size 700MiB exceeds the maximum"), "exceeds the maximum"),
    ],
)
def test_cluster_error_is_one_line(error: Exception, said: str) -> None:
    with pytest.raises(ClusterError, match=said) as caught, explain(ADDRESS, "job"):
        raise error
    assert str(caught.value).startswith(f"{ADDRESS}: ")
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 1


def test_bug_is_not_called_a_cluster_error() -> None:
    for error in (TypeError("no"), FileNotFoundError("no such folder")):
        with pytest.raises(type(error)), explain(ADDRESS):
            raise error


def test_address_comes_from_option_variables_or_default(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    assert find_address(None) == "http://127.0.0.1:8265"
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")  # where drivers connect: not the dashboard
    assert find_address(None) == "http://127.0.0.1:8265"
    monkeypatch.setenv("RAY_ADDRESS", "https://ray.example/")
    assert find_address(None) == "https://ray.example"
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "http://other:8265")
    assert find_address(None) == "http://other:8265"
    assert find_address("http://head:8265/") == ADDRESS
    for wrong in ("head:8265", "ray://head:10001", "auto"):
        with pytest.raises(UsageError, match=f"--address {wrong}: expected the URL of the dashboard"):
            find_address(wrong)


def test_missing_head_is_reported_and_variables_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "http://127.0.0.1:1/")
    with pytest.raises(ClusterError, match=r"^http://127.0.0.1:2: no Ray cluster answers here"):
        connect("http://127.0.0.1:2")
    assert os.environ["RAY_API_SERVER_ADDRESS"] == "http://127.0.0.1:1/"
