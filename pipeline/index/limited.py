"""A function, called in a process of its own with limits of time and memory: some of the engine's work may never end.

The process is killed where it exceeds a limit, and where this process ends or is interrupted. It belongs to no
terminal, so that Ctrl-C reaches this process only.
"""

import ctypes
import importlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.credentials import without_credentials
from pipeline.words import show_bytes

LOOK_EVERY_S = 0.1

SHARE = 0.8
"""Of the memory that is available: beyond, the system would soon kill some process, perhaps another one."""

_ELSEWHERE = "`earshot optimize` on a machine with more memory does it"
_SET_DEATH_SIGNAL = 1  # prctl(2): PR_SET_PDEATHSIG


class Unfinished(Exception):
    """The function failed, or exceeded a limit. The message is one line."""


@dataclass(frozen=True)
class Limits:
    """What one call may take."""

    seconds: float
    n_bytes: int
    """Memory of its own: file pages that the system may drop do not count."""
    available: int | None = None
    """Memory that was available at the beginning: a call may take ``SHARE`` of it at most. None where nobody knows."""

    @property
    def most_bytes(self) -> int:
        return self.n_bytes if self.available is None else min(self.n_bytes, int(SHARE * self.available))

    def explain_memory(self) -> str:
        """Where the limit is due to the machine: why, and what to do."""
        if self.available is None or self.most_bytes == self.n_bytes:
            return ""
        return f" ({SHARE:.0%} of the {show_bytes(self.available)} that were available); {_ELSEWHERE}"


def call_limited(
    function: Callable[..., None],
    values: dict[str, Any],
    limits: Limits,
    tick: Callable[[], object] = lambda: None,
    variables: Mapping[str, str] = {},
) -> None:
    """Call ``function(**values)`` in a process of its own, and wait.

    Args:
        function: of a module that another process can import. values: as JSON holds them.
        tick: called about once a second meanwhile. What it raises ends the call.
        variables: of the environment, beside those of this process.

    Raises:
        Unfinished: see there.
    """
    call = json.dumps([os.getpid(), function.__module__, function.__qualname__, values])
    environment = {**os.environ, **variables, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-c", "from pipeline.index.limited import main; main()"]
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=said, stderr=said, env=environment, start_new_session=True
        )
        try:
            assert process.stdin is not None
            with suppress(BrokenPipeError), process.stdin as calls:  # it may have ended already
                calls.write(call.encode())
            _watch(process, limits, tick)
        finally:
            process.kill()
            process.wait()
        if process.returncode:
            said.seek(0)
            raise Unfinished(_explain(process.returncode, said.read().decode(errors="replace"), limits))


def _watch(process: subprocess.Popen[bytes], limits: Limits, tick: Callable[[], object]) -> None:
    """Wait until the process has ended."""
    began = ticked = time.monotonic()
    while True:
        try:
            process.wait(LOOK_EVERY_S)
            return
        except subprocess.TimeoutExpired:
            now = time.monotonic()
        if now - began > limits.seconds:
            raise Unfinished(f"stopped after {limits.seconds:,.0f} s, which is far more than it should take")
        if (n_bytes := _own_bytes(process.pid)) > limits.most_bytes:
            raise Unfinished(
                f"stopped at {show_bytes(n_bytes)} of memory, the limit is {show_bytes(limits.most_bytes)}"
                f"{limits.explain_memory()}"
            )
        if now - ticked >= 1.0:
            ticked = now
            tick()


def _own_bytes(pid: int) -> int:
    try:
        found = re.search(r"RssAnon:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    except OSError:  # it has just ended
        return 0
    return int(found[1]) * 1024 if found else 0


def _explain(code: int, said: str, limits: Limits) -> str:
    lines = [line for line in said.splitlines() if line.strip()]
    why = without_credentials(lines[-1].strip()[:300]) if lines else ""
    ended = f"its process was killed by {signal.Signals(-code).name}" if code < 0 else ""
    if code == -signal.SIGKILL:
        left = "" if limits.available is None else f" ({show_bytes(limits.available)} were available)"
        ended += f", perhaps since memory ran out{left}; {_ELSEWHERE}"
    return ": ".join(filter(None, (ended, why))) or f"its process ended with code {code}"


def main() -> None:
    """The process that calls the function: gets the call as JSON on its standard input."""
    with suppress(AttributeError):  # Linux only
        ctypes.CDLL(None).prctl(_SET_DEATH_SIGNAL, signal.SIGKILL)
    parent, module, name, values = json.load(sys.stdin)
    if os.getppid() != parent:  # it died before the line above
        os._exit(1)
    try:
        getattr(importlib.import_module(module), name)(**values)
    except Exception as error:
        print(f"{type(error).__name__}: {' '.join(str(error).split())}", file=sys.stderr)
        sys.stderr.flush()
        os._exit(1)
    os._exit(0)  # threads of the engine may still be running
