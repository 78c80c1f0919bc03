"""A fake client of Ray Jobs that records every call."""

from collections.abc import AsyncGenerator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

ADDRESS = "http://head:8265"


class FakeClient:
    """Jobs in a dictionary. The n-th connection to a log breaks after ``breaks[n]`` texts."""

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
