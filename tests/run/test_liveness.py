"""Whether a run is dead, by its record, its process and its lease; and how `earshot status` shows that."""

import dataclasses
import datetime as dt
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.index.lease_files import STALE_S
from pipeline.processes import find_start
from pipeline.run.liveness import SILENT_S, judge
from pipeline.run.progress import Progress
from pipeline.run.record import Record, make_record, write_record
from tests.helpers.progress import record_of

ROOT = Path(__file__).parents[2]


def make(age_s: float = 0.0, **values: object) -> Record:
    at = dt.datetime.now(dt.UTC) - dt.timedelta(seconds=age_s)
    record = dataclasses.replace(make_record(Progress(index="/ix")), updated_at=at.isoformat())
    return dataclasses.replace(record, pid=7, processes="this machine", began=100, **values)  # type: ignore[arg-type]


def find(record: Record, *, here: str = "this machine", started: int | None = None, held: bool = False) -> str:
    return judge(
        record, "/ix", here=here, start_of=lambda pid: started if pid == 7 else 1, held=lambda path: held
    ).state


def test_process_decides_on_the_machine_of_the_run() -> None:
    assert find(make(), started=100) == "running"
    assert find(make(age_s=10 * SILENT_S), started=100) == "running"  # one long step
    assert find(make()) == "died"
    assert find(make(), held=True) == "died"  # its lease stays for a while
    assert find(make(), started=101) == "died"  # another process has its number


def test_record_and_lease_decide_elsewhere() -> None:
    assert find(make(), here="another") == "running"
    assert find(make(age_s=2 * SILENT_S), here="another", held=True) == "running"
    assert find(make(age_s=2 * SILENT_S), here="another") == "died"
    assert SILENT_S >= STALE_S  # so a lease that is still held has been renewed


@pytest.mark.parametrize("state", ["done", "failed", "stopped"])
def test_run_that_has_ended_is_not_dead(state: str) -> None:
    assert find(make(state=state)) == state


def test_record_without_processes_is_judged_by_its_age_and_lease(tmp_path: Path) -> None:
    write_record(str(tmp_path), make(age_s=2 * SILENT_S))
    values = json.loads((tmp_path / "run.json").read_text())
    del values["processes"], values["began"]
    (tmp_path / "run.json").write_text(json.dumps(values))
    record = record_of(tmp_path)
    assert find(record) == "died"
    assert find(record, held=True) == "running"


RUN = """
import sys, time
from pipeline.index.lease import Lease
from pipeline.run.progress import Progress
from pipeline.run.record import Keeper
with Lease(sys.argv[1], "a" * 32), Keeper(sys.argv[1], Progress(index=sys.argv[1], n_files=9, stage="encoding")):
    print("running", flush=True)
    time.sleep(600)
"""


def status(*arguments: str) -> str:
    command = [sys.executable, "-m", "jobs.main", "status", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True, timeout=120).stdout


def test_status_shows_whether_a_run_works_or_was_killed(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", RUN, str(tmp_path)], stdout=subprocess.PIPE, text=True, cwd=ROOT
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "running\n"
        record = record_of(tmp_path)
        assert (record.pid, record.began) == (process.pid, find_start(process.pid))
        assert f"{tmp_path}: running\n" in status(str(tmp_path))
        os.kill(process.pid, signal.SIGKILL)  # it stays a zombie for now
        while find_start(process.pid) is not None:
            pass
        told = status(str(tmp_path))
        assert f"{tmp_path}: died at {record.updated_at[:10]}" in told
        assert "run again to go on" in told
        assert "was doing" in told
        [values] = map(json.loads, status(str(tmp_path), "--json").splitlines())
        assert (values["state"], values["record"]["state"]) == ("died", "died")


def test_record_from_the_future_is_doubted_like_an_old_one() -> None:
    assert find(make(age_s=-2 * SILENT_S), here="another") == "died"
    assert find(make(age_s=-2 * SILENT_S), here="another", held=True) == "running"
