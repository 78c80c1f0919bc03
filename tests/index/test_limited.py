"""A function in a process of its own is stopped where it takes too long or too much, and where nobody waits for it."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.index.limited import Limits, Unfinished, call_limited
from pipeline.processes import find_start
from tests.helpers import endless
from tests.helpers.processes import ROOT

ENOUGH = Limits(60.0, 10**9)


def test_a_function_that_ends_has_done_its_work(tmp_path: Path) -> None:
    call_limited(endless.write, {"path": str(tmp_path / "a"), "text": "been here"}, ENOUGH)
    assert (tmp_path / "a").read_text() == "been here"


def test_an_error_is_told_in_one_line() -> None:
    with pytest.raises(Unfinished, match=r"^ValueError: one two$"):
        call_limited(endless.fail, {"message": "one\n  two"}, ENOUGH)


def test_a_process_that_dies_is_told() -> None:
    with pytest.raises(Unfinished, match=r"^its process was killed by SIGKILL, perhaps since memory ran out; `earshot"):
        call_limited(endless.die, {}, ENOUGH)
    with pytest.raises(Unfinished, match=r"memory ran out \(3\.1 GB were available\); `earshot optimize` on"):
        call_limited(endless.die, {}, replace(ENOUGH, available=3_100_000_000))


def test_a_function_that_never_ends_is_stopped(tmp_path: Path) -> None:
    began = time.monotonic()
    with pytest.raises(Unfinished, match=r"stopped after 1 s"):
        call_limited(endless.spin, {"path": str(tmp_path / "pid")}, Limits(1.0, 10**9))
    assert time.monotonic() - began < 10
    assert find_start(int((tmp_path / "pid").read_text())) is None


def test_a_function_that_takes_too_much_memory_is_stopped() -> None:
    with pytest.raises(Unfinished, match=r"stopped at \d+\.\d [MG]B of memory, the limit is 200\.0 MB"):
        call_limited(endless.grow, {}, Limits(60.0, 200_000_000))


def test_a_function_takes_a_share_of_the_memory_that_is_available() -> None:
    said = r"limit is 208\.0 MB \(80% of the 260\.0 MB that were available\); `earshot optimize` on a machine with more"
    with pytest.raises(Unfinished, match=said):
        call_limited(endless.grow, {}, Limits(60.0, 10**10, available=260_000_000))
    assert Limits(60.0, 10**9, available=10**10).most_bytes == 10**9
    assert Limits(60.0, 10**9).most_bytes == 10**9


def test_waiting_is_interrupted_by_what_the_caller_looks_at(tmp_path: Path) -> None:
    def tick() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        call_limited(endless.spin, {"path": str(tmp_path / "pid")}, ENOUGH, tick)
    assert find_start(int((tmp_path / "pid").read_text())) is None


SCRIPT = """
import sys
from pipeline.index.limited import Limits, call_limited
from tests.helpers import endless
call_limited(endless.spin, {"path": sys.argv[1]}, Limits(600.0, 10**9))
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_the_function_does_not_outlive_its_caller(tmp_path: Path, number: signal.Signals) -> None:
    noted = tmp_path / "pid"
    command = [sys.executable, "-c", SCRIPT, str(noted)]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL) as process:
        _wait(lambda: noted.exists() and noted.read_text() != "")
        child = int(noted.read_text())
        assert os.getsid(child) != os.getsid(process.pid)  # no terminal signals it
        process.send_signal(number)
    _wait(lambda: find_start(child) is None)


def _wait(is_done: object, most_s: float = 30.0) -> None:
    assert callable(is_done)
    until = time.monotonic() + most_s
    while not is_done():
        assert time.monotonic() < until
        time.sleep(0.02)
