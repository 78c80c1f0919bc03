"""Processes of this machine, from Linux's ``/proc``: whether one has ended, and killing those that this one started."""

import contextlib
import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path


def name_processes() -> str:
    """A name for the set of processes that a process number belongs to: a boot of a machine, and a container on it."""
    try:
        return f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return socket.gethostname()


UNKNOWN = -1
"""The start of a process that exists, but hides its details from this one."""


def find_start(pid: int) -> int | None:
    """When the process ``pid`` began, in clock ticks since the machine started.

    None if there is no such process, or it has ended and waits for its parent to notice.
    """
    if fields := _read_stat(pid):
        return None if fields[0] in ("Z", "X") else int(fields[19])
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        pass
    return UNKNOWN


def has_ended(pid: int, began: int | None, start_of: Callable[[int], int | None] = find_start) -> bool:
    """Whether the process that had the number ``pid`` and began at ``began`` has ended.

    Args:
        began: from ``find_start``; None if it was not noted: then any process with this number counts.
        start_of: looks up when a process began.
    """
    now = start_of(pid)
    return now is None or (now != began and began not in (None, UNKNOWN) and now != UNKNOWN)


def find_descendants(pid: int) -> set[int]:
    """The living processes that one has started, and their descendants."""
    children: dict[int, list[int]] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        fields = _read_stat(int(folder.name))
        if fields is not None and fields[0] not in ("Z", "X"):
            children.setdefault(int(fields[1]), []).append(int(folder.name))
    found: set[int] = set()
    left = [pid]
    while left:
        fresh = [child for child in children.get(left.pop(), ()) if child not in found]
        found.update(fresh)
        left += fresh
    return found


def kill_descendants() -> None:
    """Kill all descendants of this process."""
    stopped: set[int] = set()
    while fresh := find_descendants(os.getpid()) - stopped:
        for pid in fresh:  # stopped first, so that it starts no others meanwhile
            _signal(pid, signal.SIGSTOP)
        stopped |= fresh
    for pid in stopped:
        _signal(pid, signal.SIGKILL)


def _signal(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)


def _read_stat(pid: int) -> list[str] | None:
    """The fields of ``/proc/PID/stat`` from the third on: state, parent, ..., and the start at index 19."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return None
    return text.rpartition(")")[2].split()
