"""One writer per index: who is refused, who takes over, and what is left behind."""

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from pipeline.claim import STALE_S, Claim
from pipeline.errors import IndexBusy


def write_claim(folder: Path, *, age_s: float = 0.0, **changes: Any) -> None:
    """A claim that another process left: by default a live one on this machine."""
    values = {"run_id": "other", "host": socket.gethostname(), "pid": os.getpid(), "since": "2026-01-02 03:04:05 UTC"}
    file = folder / "claim.json"
    file.write_text(json.dumps(values | changes))
    then = time.time() - age_s
    os.utime(file, (then, then))


def holder(folder: Path) -> str:
    return str(json.loads((folder / "claim.json").read_text())["run_id"])


@pytest.fixture
def dead_pid() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_holds_while_open_and_leaves_nothing(tmp_path: Path) -> None:
    with Claim(tmp_path, "a"):
        assert holder(tmp_path) == "a"
    assert list(tmp_path.iterdir()) == []


def test_second_holder_is_refused_and_told_by_whom_and_since_when(tmp_path: Path) -> None:
    with Claim(tmp_path, "a"):
        since = json.loads((tmp_path / "claim.json").read_text())["since"]
        with pytest.raises(IndexBusy) as refused, Claim(tmp_path, "b"):
            pass
        assert holder(tmp_path) == "a"
    text = str(refused.value)
    for part in (str(tmp_path), str(os.getpid()), socket.gethostname(), since):
        assert part in text
    assert "\n" not in text
    with Claim(tmp_path, "b"):
        assert holder(tmp_path) == "b"


def test_released_when_the_run_fails(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), Claim(tmp_path, "a"):
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []


def test_dead_process_is_taken_over_at_once(tmp_path: Path, dead_pid: int) -> None:
    write_claim(tmp_path, pid=dead_pid)
    with Claim(tmp_path, "a"):
        assert holder(tmp_path) == "a"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("age_s", [STALE_S / 2, STALE_S * 2])
def test_other_host_is_judged_by_its_heartbeat(tmp_path: Path, dead_pid: int, age_s: float) -> None:
    write_claim(tmp_path, host="elsewhere", pid=dead_pid, age_s=age_s)
    if age_s < STALE_S:
        with pytest.raises(IndexBusy, match="elsewhere, since 2026-01-02 03:04:05 UTC"), Claim(tmp_path, "a"):
            pass
        assert holder(tmp_path) == "other"
    else:
        with Claim(tmp_path, "a"):
            assert holder(tmp_path) == "a"


def test_number_of_a_dead_run_given_to_another_process_does_not_lock_for_ever(tmp_path: Path) -> None:
    for pid in (1, os.getpid()):  # 1 belongs to another user where tests are not run by root
        write_claim(tmp_path, pid=pid, age_s=STALE_S * 2)
        with Claim(tmp_path, "a"):
            assert holder(tmp_path) == "a"


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"pid": 1}'])
def test_unreadable_claim_is_respected_while_fresh(tmp_path: Path, text: str) -> None:
    file = tmp_path / "claim.json"
    file.write_text(text)  # as between making the file and writing into it
    with pytest.raises(IndexBusy), Claim(tmp_path, "a"):
        pass
    assert file.read_text() == text
    os.utime(file, (1, 1))
    with Claim(tmp_path, "a"):
        assert holder(tmp_path) == "a"


def test_a_claim_that_was_taken_over_is_not_removed_by_its_former_holder(tmp_path: Path) -> None:
    with Claim(tmp_path, "a"):
        write_claim(tmp_path)
    assert holder(tmp_path) == "other"


def test_heartbeat_touches_its_own_claim_only(tmp_path: Path) -> None:
    file = tmp_path / "claim.json"
    with Claim(tmp_path, "a", beat_s=0.01):
        os.utime(file, (1, 1))
        until = time.monotonic() + 10
        while file.stat().st_mtime < STALE_S and time.monotonic() < until:
            time.sleep(0.01)
        assert time.time() - file.stat().st_mtime < STALE_S
        write_claim(tmp_path)
        os.utime(file, (1, 1))
        time.sleep(0.1)
        assert file.stat().st_mtime == 1
