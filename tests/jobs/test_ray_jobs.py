"""Talking to Ray Jobs, with a client that only remembers: names, what travels, what is said when something is wrong."""

import json
import os
import re
import sys
import time
from collections.abc import AsyncGenerator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import requests
import yaml

from jobs.main import main
from jobs.shared import ray_jobs as module
from jobs.shared.ray_jobs import CONFIG_FILE, Cluster, connect, explain, find_address, name_jobs
from pipeline.config import Config, anchor, load_config, make_config
from pipeline.errors import ClusterError, IndexBusy, JobMissing, UsageError
from pipeline.run.environment import JOB_VARIABLE, PYTHON_VARIABLE, RUN_VARIABLE
from pipeline.run.progress import STAGES, Progress
from pipeline.run.record import make_record, write_record

ADDRESS = "http://head:8265"
EACH = dict.fromkeys(STAGES, 1.0)


class FakeClient:
    """Jobs in a dictionary. Each connection to a log breaks after ``breaks`` texts, as often as it says."""

    def __init__(self) -> None:
        self.jobs: dict[str, Any] = {}
        self.shipped: dict[str, dict[str, Any]] = {}
        self.texts = ["one\n", "two\nthr", "ee\n"]
        self.breaks: list[int] = []
        self.stopped: list[str] = []

    def submit_job(
        self, *, entrypoint: str, submission_id: str, runtime_env: dict[str, Any], metadata: dict[str, str]
    ) -> str:
        if submission_id in self.jobs:
            raise RuntimeError(f"Request failed: Job with submission_id {submission_id} already exists.")
        folder = Path(runtime_env["working_dir"])
        self.shipped[submission_id] = {
            **runtime_env,
            "entrypoint": entrypoint,
            "files": {file.name: file.read_text() for file in folder.iterdir()},
        }
        self.add(submission_id, "RUNNING", metadata)
        return submission_id

    def add(self, name: str, state: str, metadata: dict[str, str]) -> None:
        self.jobs[name] = SimpleNamespace(
            submission_id=name,
            job_id=None,
            status=SimpleNamespace(value=state),
            metadata=metadata,
            message=f"Currently\nearshot: {state}\n",
            start_time=1_700_000_000_000 + len(self.jobs),
            end_time=None,
        )

    def end(self, name: str, state: str = "SUCCEEDED") -> None:
        self.jobs[name].status.value = state

    def list_jobs(self) -> list[Any]:
        return list(self.jobs.values())

    def get_job_info(self, job_id: str) -> Any:
        if job_id not in self.jobs:
            raise RuntimeError(f"Request failed with status code 404: Job {job_id} does not exist.")
        return self.jobs[job_id]

    def get_job_logs(self, job_id: str) -> str:
        return "".join(self.texts)

    async def tail_job_logs(self, job_id: str) -> AsyncGenerator[str, None]:
        stop = self.breaks.pop(0) if self.breaks else None
        for position, text in enumerate(self.texts):
            if position == stop:
                raise RuntimeError("WebSocket connection closed unexpectedly with close code 1006")
            yield text
        self.end(job_id)

    def stop_job(self, job_id: str) -> bool:
        self.stopped.append(job_id)
        return bool(self.jobs[job_id].status.value == "RUNNING")


@pytest.fixture
def client() -> FakeClient:
    return FakeClient()


@pytest.fixture
def cluster(client: FakeClient) -> Cluster:
    return Cluster(client, ADDRESS)


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return make_config({"sources": ["/data/sounds", "~/more"], "into": str(tmp_path / "my index")})


def test_the_configuration_travels_and_means_the_same_there(
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


def test_earshot_itself_is_sent_when_asked_for(cluster: Cluster, client: FakeClient, config: Config) -> None:
    sent = client.shipped[cluster.submit(config, ship=True, rebuild=True, allow_deletions=True)]
    assert sent["entrypoint"] == "python -m jobs.main index earshot.yaml --rebuild --allow-deletions"
    assert [Path(folder).name for folder in sent["py_modules"]] == ["pipeline", "jobs"]
    assert (Path(sent["py_modules"][0]) / "encoder/models/earshot-tiny").is_dir()
    assert (Path(sent["py_modules"][1]) / "main.py").is_file()
    assert sent["excludes"] == ["__pycache__"]
    assert PYTHON_VARIABLE not in sent["env_vars"]  # workers have the Python of their node


def test_every_attempt_has_a_name_and_only_one_is_at_work(cluster: Cluster, client: FakeClient, config: Config) -> None:
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


def test_a_log_is_followed_over_broken_connections(
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


def test_an_unknown_job_is_said_to_be_unknown(cluster: Cluster) -> None:
    for ask in (cluster.find, cluster.logs, cluster.stop, lambda name: list(cluster.follow(name))):
        with pytest.raises(JobMissing, match="x-1: no such job at http://head:8265"):
            ask("x-1")


def test_a_job_is_stopped(cluster: Cluster, client: FakeClient, config: Config) -> None:
    name = cluster.submit(config)
    assert cluster.stop(name)
    client.end(name, "STOPPED")
    assert not cluster.stop(name)
    assert client.stopped == [name, name]


class AuthenticationError(Exception):
    """By its name, as Ray's."""


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
def test_what_goes_wrong_is_one_line(error: Exception, said: str) -> None:
    with pytest.raises(ClusterError, match=said) as caught, explain(ADDRESS, "job"):
        raise error
    assert str(caught.value).startswith(f"{ADDRESS}: ")
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 1


def test_a_mistake_of_ours_is_not_explained_away() -> None:
    for error in (TypeError("no"), FileNotFoundError("no such folder")):
        with pytest.raises(type(error)), explain(ADDRESS):
            raise error


def test_the_address_is_given_or_found(monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_a_head_that_is_not_there_is_said_and_the_variables_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "http://127.0.0.1:1/")
    with pytest.raises(ClusterError, match=r"^http://127.0.0.1:2: no Ray cluster answers here"):
        connect("http://127.0.0.1:2")
    assert os.environ["RAY_API_SERVER_ADDRESS"] == "http://127.0.0.1:1/"


# --- commands ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def earshot(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], cluster: Cluster) -> Any:
    """The command line, at a cluster with a client that only remembers."""
    monkeypatch.setattr(module, "connect", lambda address: cluster)

    def run(*arguments: object) -> tuple[int | None, str, str]:
        monkeypatch.setattr(sys, "argv", ["earshot", *map(str, arguments)])
        with pytest.raises(SystemExit) as exit:
            main()
        out, err = capsys.readouterr()
        return exit.value.code if isinstance(exit.value.code, int) else 0, out, err

    return run


@pytest.fixture
def file(config: Config, tmp_path: Path) -> Path:
    file = tmp_path / "run.yaml"
    file.write_text(yaml.safe_dump(config.model_dump(mode="json")))
    return file


def test_submit_and_wait_ends_as_the_job_does(earshot: Any, client: FakeClient, file: Path) -> None:
    code, out, err = earshot("submit", file, "--wait", "--json")
    first, last = map(json.loads, out.splitlines())
    assert (code, first["address"], last) == (0, ADDRESS, {"job": first["job"], "state": "succeeded"})
    assert err == "one\ntwo\nthree\n"
    _, out, _ = earshot("submit", file)
    name = first["job"][:-1] + "2"
    assert out.startswith(f"submitted {name}; `earshot status {name}`")
    assert earshot("logs", name, "-f")[1] == "one\ntwo\nthree\n"


def test_submit_and_wait_fails_as_the_job_does(
    earshot: Any, client: FakeClient, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    end = client.end
    monkeypatch.setattr(client, "end", lambda name: end(name, "FAILED"))
    code, _, err = earshot("submit", file, "--wait")
    assert code == 1
    assert err.splitlines()[-1].endswith("-1: failed: RUNNING")
    for state, said, advice in (
        (
            "FAILED",
            "/opt/python -m: No module named 'jobs'",
            "; install Earshot in the Python of every node and name that ",
        ),
        ("FAILED", "sh: 1: /nope/python: not found", "; name the Python on the head with --python"),
        ("FAILED", "SIGKILL", "; submit it again to go on"),
        ("STOPPED", "as asked", "; submit it again to go on"),
        ("FAILED", "in/: no such file or folder", ""),
    ):

        def finish(name: str, state: str = state, said: str = said) -> None:
            end(name, state)
            client.jobs[name].message = said

        monkeypatch.setattr(client, "end", finish)
        last = earshot("submit", file, "--wait")[2].splitlines()[-1]
        assert f": {state.lower()}: {said}{advice}" in last
        assert not (last.endswith("go on") and not advice)


def test_a_wrong_configuration_is_never_sent(earshot: Any, client: FakeClient, file: Path) -> None:
    file.write_text("sources: [x]\ninto: y\nencode: {modle: z}\n")
    code, out, err = earshot("submit", file)
    assert (code, out) == (2, "")
    assert "unknown key `encode.modle`" in err
    assert not client.jobs


def test_jobs_logs_and_stop_say_what_is(earshot: Any, client: FakeClient, cluster: Cluster, config: Config) -> None:
    name = cluster.submit(config)
    assert name in earshot("jobs")[1]
    [listed] = map(json.loads, earshot("jobs", "--json")[1].splitlines())
    assert (listed["name"], listed["state"], listed["index"]) == (name, "running", config.into)
    assert earshot("logs", name) == (0, "one\ntwo\nthree\n", "")
    for arguments in ([], ["-f"]):  # whose texts end anywhere
        out = earshot("logs", name, "--json", *arguments)[1]
        assert [json.loads(line)["line"] for line in out.splitlines()] == ["one", "two", "three"]
    client.end(name, "RUNNING")
    assert earshot("stop", name)[1] == f"{name} is stopping; submit its configuration again to go on\n"
    client.end(name, "STOPPED")
    assert earshot("stop", name)[1] == f"{name} has already ended: stopped\n"
    assert json.loads(earshot("stop", name, "--json")[1]) == {"job": name, "stopped": False}


def test_status_shows_the_record_of_the_job(
    earshot: Any, client: FakeClient, cluster: Cluster, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, _, err = earshot("status")
    assert (code, err) == (2, f"earshot: {ADDRESS}: no Earshot job here; `earshot submit CONFIG` starts one\n")
    name = cluster.submit(config)
    assert "its record is not visible from here; its last line: three" in earshot("status")[1]
    Path(config.into).mkdir()
    Path(config.into, "run.json").write_text("{")
    assert "its record is unreadable: " in earshot("status")[1]
    progress = Progress(index=config.into, n_files=9, n_indexed=4, planned_s=7200.0, audio_s=3600.0, stage="encoding")
    write_record(config.into, make_record(progress))
    assert "it has not written a record yet" in earshot("status", name)[1]  # the record is of a run that was no job
    client.end(name, "STOPPED")
    assert "a later run has replaced its record" in earshot("status", name)[1]
    client.jobs[name].start_time = 4_000_000_000_000
    assert "it ended before it wrote a record" in earshot("status", name)[1]
    client.end(name, "RUNNING")
    monkeypatch.setenv(JOB_VARIABLE, name)
    write_record(config.into, make_record(progress))
    assert "it has not written a record yet" in earshot("status", name)[1]  # one of this name on another cluster
    progress.run_id = client.jobs[name].metadata["earshot_run"]
    write_record(config.into, make_record(progress))
    for arguments in ([], [name], [config.into]):
        told = earshot("status", *arguments)[1]
        assert "running" in told
        assert "4 of 9: 4 indexed" in told
        assert "1.00 h of about 2.00 h" in told
        values = json.loads(earshot("status", *arguments, "--json")[1])
        assert (values["job"], values["state"], values["record"]["n_done"]) == (name, "running", 4)
    client.end(name, "FAILED")
    client.jobs[name].message = "one\nthe driver died: SIGKILL"
    assert json.loads(earshot("status", "--json")[1])["state"] == "failed"  # Ray knows: it was killed
    told = earshot("status")[1]
    assert re.search(r"was doing +encoding *\n", told)
    assert re.search(r"error +the driver died: SIGKILL *\n", told)


def test_a_silent_run_is_not_said_to_be_well(earshot: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code, _, err = earshot("status", tmp_path)
    assert code == 2
    assert "no record of a run here" in err
    progress = Progress(planned_s=7200.0)
    for late_s in (20.0, 10.0, 0.0):
        progress.throughput.add(
            {"audio_s": 20.0, "decode_s": 1, "encode_s": 1, "write_s": 1}, time.monotonic() - late_s, EACH
        )
    write_record(str(tmp_path), make_record(progress))
    assert re.search(r"left +1 h 0 min", earshot("status", tmp_path)[1])
    assert f"{tmp_path}: running\n" in earshot("status", tmp_path)[1].replace("\n\n", "\n")
    monkeypatch.setattr("pipeline.run.liveness.SILENT_S", -1.0)
    told = earshot("status", tmp_path)[1]
    assert "running, but silent for less than a minute" in told
    assert not re.search(r"\bleft\b", told)


def test_a_name_that_is_neither_folder_nor_job_is_said_to_be_both(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["earshot", "status", "my-index", "--address", "http://127.0.0.1:2"])
    with pytest.raises(SystemExit):
        main()
    said = capsys.readouterr().err
    assert said.startswith("earshot: my-index: no such folder, and as the name of a job: http://127")
