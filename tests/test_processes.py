"""Processes are told apart by number and start, and killing all descendants leaves none."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.processes import UNKNOWN, find_start, has_ended, name_processes
from tests.helpers.processes import print_of
from tests.helpers.waiting import wait_until


def test_process_is_known_by_number_and_start() -> None:
    began = find_start(os.getpid())
    assert began is not None
    assert not has_ended(os.getpid(), began)
    assert not has_ended(os.getpid(), None)
    assert has_ended(os.getpid(), began - 1)  # the number has another process now


def test_dead_process_has_ended_before_its_parent_notices() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        wait_until(lambda: find_start(process.pid) is None)
        assert has_ended(process.pid, None)
    assert has_ended(process.pid, None)


@pytest.mark.parametrize(
    ("now", "began", "is_over"),
    [
        *[(None, 5, True), (None, None, True), (6, 5, True)],
        *[(5, 5, False), (5, None, False), (UNKNOWN, 5, False), (5, UNKNOWN, False)],
    ],
)
def test_process_with_hidden_details_counts_as_running(now: int | None, began: int | None, is_over: bool) -> None:
    assert has_ended(1, began, lambda pid: now) == is_over


def test_name_of_this_machines_processes_is_stable() -> None:
    assert name_processes() == name_processes() != ""


TREE = """
import os, signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
depth = int(sys.argv[1])
command = [sys.executable, __file__, str(depth - 1)]
children = [subprocess.Popen(command, start_new_session=True) for _ in range(2 * (depth > 0))]
os.write(1, f"{os.getpid()}\\n".encode())
time.sleep(600)
"""

ENDER = """
import subprocess, sys
from pipeline.processes import kill_descendants
tree = subprocess.Popen([sys.executable, sys.argv[1], "2"], stdout=subprocess.PIPE, text=True)
print(*[tree.stdout.readline().strip() for _ in range(7)], flush=True)
kill_descendants()
"""


def test_all_descendants_are_killed(tmp_path: Path) -> None:
    """The descendants have their own sessions and ignore SIGTERM."""
    script = tmp_path / "tree.py"
    script.write_text(TREE)
    pids = [int(pid) for pid in print_of(ENDER, script).split()]
    assert len(set(pids)) == 7
    wait_until(lambda: all(has_ended(pid, None) for pid in pids))
