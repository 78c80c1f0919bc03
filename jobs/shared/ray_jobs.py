"""Ray Jobs: submit a run to a cluster, find it, follow it, stop it. Ray manages the jobs.

cluster = connect("http://head:8265")
name = cluster.submit(config)
for text in cluster.follow(name): ...
"""

import asyncio
import contextlib
import datetime as dt
import json
import logging
import os
import re
import tempfile
import time
import uuid
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import yaml

import jobs
import pipeline
from pipeline.config import Config, anchor
from pipeline.errors import ClusterError, EarshotError, IndexBusy, JobMissing, UsageError
from pipeline.run.ray_start import JOB_VARIABLE, PYTHON_VARIABLE, RUN_VARIABLE
from pipeline.schema import digest

HERE = "http://127.0.0.1:8265"
CONFIG_FILE = "earshot.yaml"

PYTHON = "python"
"""The Python of a job by default: the first of this name on the head."""

CONNECT_S = 10.0
"""A head may take this long to answer."""

RETRY_S = 2.0
RETRIES = 15
"""How often to connect again to a job that is followed."""

NO_ANSWER = ("ConnectionError", "ConnectTimeout", "ReadTimeout", "ClientConnectorError", "ServerDisconnectedError")
"""Errors of requests and aiohttp, by name, when nobody answers."""

NO_AGENT = "No available agent"
"""The dashboard's message when it knows no agent. An agent whose port is taken goes on without accepting jobs."""

AGENT_PORT = 52365
"""The default port of Ray's agent on each node."""

ENDED = ("succeeded", "failed", "stopped")


class Client(Protocol):
    """The part of ``ray.job_submission.JobSubmissionClient`` that is used here."""

    def submit_job(
        self, *, entrypoint: str, submission_id: str, runtime_env: dict[str, Any], metadata: dict[str, str]
    ) -> str: ...
    def list_jobs(self) -> list[Any]: ...
    def get_job_info(self, job_id: str) -> Any: ...
    def get_job_logs(self, job_id: str) -> str: ...
    def tail_job_logs(self, job_id: str) -> AsyncGenerator[str, None]: ...
    def stop_job(self, job_id: str) -> bool: ...


@dataclass(frozen=True)
class Job:
    """A job as Ray knows it. ``state`` is pending, running, succeeded, failed or stopped; times are UTC, ISO 8601."""

    name: str
    state: str
    run: str | None
    """The id of its run, as in the index; None for a job that is not Earshot's."""
    index: str | None
    started_at: str | None
    ended_at: str | None
    message: str
    """Ray's last message about it, one line."""

    @property
    def ended(self) -> bool:
        return self.state in ENDED


def find_address(given: str | None) -> str:
    """The address of the cluster's head: the given one, that of Ray's variables, or this machine.

    Raises:
        UsageError: it is not an http address.
    """
    if given is not None:
        if not given.startswith(("http://", "https://")):
            raise UsageError(f"--address {given}: expected the URL of the dashboard, like http://head:8265")
        return given.rstrip("/")
    for name in ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS"):
        if (value := os.environ.get(name, "")).startswith(("http://", "https://")):
            return value.rstrip("/")
    return HERE


def connect(given: str | None) -> "Cluster":
    """The cluster at the address that ``find_address`` returns.

    Raises:
        ClusterError: it does not answer, or refuses the token.
    """
    address = find_address(given)
    if os.environ.keys() & {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"}:
        os.environ.setdefault("RAY_AUTH_MODE", "token")  # read when Ray is imported
    import requests
    from ray.job_submission import JobSubmissionClient

    for name in (
        "ray.dashboard.modules.dashboard_sdk",
        "ray.dashboard.modules.job.sdk",
        "ray._private.runtime_env.packaging",
    ):
        logging.getLogger(name).setLevel(logging.ERROR)
    with explain(address):
        requests.get(f"{address}/api/version", timeout=CONNECT_S)  # Ray's own requests wait for minutes
        with _only_address(address):
            return Cluster(JobSubmissionClient(address), address)


@contextmanager
def _only_address(address: str) -> Iterator[None]:
    """Ray prefers its variables to the address that a client is given."""
    former = os.environ.get("RAY_API_SERVER_ADDRESS")
    os.environ["RAY_API_SERVER_ADDRESS"] = address
    try:
        yield
    finally:
        del os.environ["RAY_API_SERVER_ADDRESS"]
        if former is not None:
            os.environ["RAY_API_SERVER_ADDRESS"] = former


@contextmanager
def explain(address: str, job: str | None = None) -> Iterator[None]:
    """Turn any error between here and the cluster into one line.

    Raises:
        ClusterError, JobMissing: in place of the errors of Ray, requests and aiohttp.
    """
    try:
        yield
    except EarshotError:
        raise
    except Exception as error:
        import requests

        text = " ".join(str(error).split())
        kind = type(error).__name__
        if kind == "AuthenticationError":
            raise ClusterError(f"{address}: {_explain_refusal(text)}") from None
        if job is not None and re.search(r"status code 404|does not exist", text):
            raise JobMissing(f"{job}: no such job at {address}; `earshot jobs` lists them") from None
        if NO_AGENT in text:
            raise ClusterError(
                f"{address}: the agent that accepts jobs does not answer on the head: try again if the head has just"
                f" started; else another program may use the agent's port, {AGENT_PORT}: end it, or start the head"
                " with `ray start --head --dashboard-agent-listen-port PORT` and a free port"
            ) from None
        if isinstance(error, ConnectionError | TimeoutError) or kind in NO_ANSWER:
            raise ClusterError(
                f"{address}: no Ray cluster answers here; is its head running, and its port 8265 open or forwarded?"
            ) from None
        if not isinstance(error, RuntimeError | ValueError | requests.RequestException):
            raise
        raise ClusterError(f"{address}: {text[:500]}") from None


def _explain_refusal(text: str) -> str:
    if text.startswith("Authentication required"):
        return "needs a token: set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH"
    if not text.startswith("Authentication failed"):  # Ray has no token to send
        path = os.environ.get("RAY_AUTH_TOKEN_PATH")
        where = f"RAY_AUTH_TOKEN_PATH={path} is empty or cannot be read" if path else "none in ~/.ray/auth_token"
        return f"no token to send: {where}; set RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH, or RAY_AUTH_MODE=disabled"
    return "refuses this token: RAY_AUTH_TOKEN, or the file RAY_AUTH_TOKEN_PATH, must hold the cluster's token"


class Cluster:
    """A cluster's jobs. Each method raises the errors of ``explain``."""

    def __init__(self, client: Client, address: str) -> None:
        self._client, self.address = client, address

    def submit(
        self,
        config: Config,
        *,
        ship: bool = False,
        python: str = PYTHON,
        rebuild: bool = False,
        allow_deletions: bool = False,
    ) -> str:
        """Run ``earshot index`` with this configuration on the cluster; returns the name of the job.

        Args:
            ship: send this Earshot along; by default the job uses the one installed there.
            python: Python command on the cluster.

        Raises:
            IndexBusy: another job writes to this index.
        """
        config = anchor(config)
        attempts = [job for job in self.list_jobs() if job.index == config.into]
        if busy := [job for job in attempts if not job.ended]:
            name = busy[0].name
            raise IndexBusy(
                f"{config.into}: job {name} writes to it; `earshot logs {name} -f` follows it,"
                f" `earshot stop {name}` stops it"
            )
        # Ray never accepts a name twice, not even after the job has ended.
        stem, run_id = name_jobs(config.into), uuid.uuid4().hex
        numbers = [re.fullmatch(rf"{re.escape(stem)}-(\d+)", job.name) for job in attempts]
        options = [*(["--rebuild"] if rebuild else []), *(["--allow-deletions"] if allow_deletions else [])]
        name = f"{stem}-{1 + max((int(found[1]) for found in numbers if found), default=0)}"
        with tempfile.TemporaryDirectory() as folder, explain(self.address):
            values = config.model_dump(mode="json")
            Path(folder, CONFIG_FILE).write_text(yaml.safe_dump(values, sort_keys=False, allow_unicode=True), "utf-8")
            variables = {JOB_VARIABLE: name, RUN_VARIABLE: run_id}
            environment: dict[str, Any] = {"working_dir": folder, "env_vars": variables}
            if python != PYTHON:  # for the driver to check: Ray itself would wait for a missing one
                variables[PYTHON_VARIABLE] = python
            if ship:
                environment["py_modules"] = [str(Path(module.__file__ or "").parent) for module in (pipeline, jobs)]
                environment["excludes"] = ["__pycache__"]
            return self._client.submit_job(
                entrypoint=" ".join([f"{python} -m jobs.main index {CONFIG_FILE}", *options]),
                submission_id=name,
                runtime_env=environment,
                metadata={"earshot_run": run_id, "earshot_index": config.into, "earshot_config": json.dumps(values)},
            )

    def list_jobs(self) -> list[Job]:
        """The jobs that Earshot submitted, newest first."""
        with explain(self.address):
            found = [_read_job(info) for info in self._client.list_jobs()]
        return sorted((job for job in found if job.run), key=lambda job: job.started_at or "", reverse=True)

    def find(self, name: str) -> Job:
        """A job by its name."""
        with explain(self.address, name):
            return _read_job(self._client.get_job_info(name))

    def logs(self, name: str) -> str:
        """The output of a job so far."""
        self.find(name)
        with explain(self.address, name):
            return self._client.get_job_logs(name)

    def follow(self, name: str) -> Iterator[str]:
        """The output of a job as it comes, until it ends. A broken connection is opened again."""
        self.find(name)
        n_seen = n_broken = 0
        while True:
            position = 0
            try:
                for text in _tail(self._client, name):
                    fresh = text[max(0, n_seen - position) :]  # a new connection starts from the beginning
                    position += len(text)
                    n_seen, n_broken = max(n_seen, position), 0
                    if fresh:
                        yield fresh
                if self.find(name).ended:
                    return
            except JobMissing:
                raise
            except Exception as error:
                n_broken += 1
                if n_broken > RETRIES:
                    with explain(self.address, name):
                        raise error
            time.sleep(RETRY_S)

    def stop(self, name: str) -> bool:
        """Ask a job to stop; returns whether it was running."""
        self.find(name)
        with explain(self.address, name):
            return self._client.stop_job(name)


def name_jobs(index: str) -> str:
    """The common beginning of the names of all jobs of an index."""
    name = re.sub(r"[^A-Za-z0-9_.-]+", "-", os.path.basename(index.rstrip("/")))
    return f"earshot-{name}-{digest('job', index)[:8]}"


def _read_job(info: Any) -> Job:
    metadata = info.metadata or {}
    messages = (info.message or "").strip().splitlines()
    # Ray's own first line may come anywhere among the job's lines.
    lines = [line for line in messages if not line.startswith("Running entrypoint for job")] or messages
    return Job(
        name=info.submission_id or info.job_id or "",
        state=str(getattr(info.status, "value", info.status)).lower(),
        run=metadata.get("earshot_run"),
        index=metadata.get("earshot_index"),
        started_at=_show(info.start_time),
        ended_at=_show(info.end_time),
        message=" ".join(lines[-1].removeprefix("earshot: ").split()) if lines else "",
    )


def _show(milliseconds: int | None) -> str | None:
    if milliseconds is None:
        return None
    return dt.datetime.fromtimestamp(milliseconds / 1000, dt.UTC).isoformat(timespec="milliseconds")


def _tail(client: Client, name: str) -> Iterator[str]:
    """Ray's asynchronous log, for synchronous code."""
    loop = asyncio.new_event_loop()
    stream = client.tail_job_logs(name)
    try:
        with contextlib.suppress(StopAsyncIteration):
            while True:
                yield loop.run_until_complete(anext(stream))
    finally:
        with contextlib.suppress(Exception):
            loop.run_until_complete(stream.aclose())
        loop.close()
