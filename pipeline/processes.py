"""Processes of this machine, as Linux shows them in ``/proc``: whether one is still there, and how to end those that
this one has started."""

import contextlib
import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path


def name_processes() -> str:
    """A name for what process numbers count in: this machine since it was started, and this container on it."""
    try:
        return f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return socket.gethostname()


UNKNOWN = -1
"""When a process began that is there, but of which this one may not see more."""


def find_start(pid: int) -> int | None:
    """When the process ``pid`` began, in clock ticks since the machine was started; None: it is not there, or dead and
    only waits for its parent to notice."""
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
    """Whether the process that had the number ``pid``, and began then, is not there any more.

    Args:
        began: as ``find_start`` told; None where that was not noted: then any process of this number is taken for it.
        start_of: looks a process up.
    """
    now = start_of(pid)
    return now is None or (now != began and began not in (None, UNKNOWN) and now != UNKNOWN)


def find_descendants(pid: int) -> set[int]:
    """The processes that one has started, and those that these have, which are alive."""
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
    """End all that this process has started, and all that these have started, at once."""
    stopped: set[int] = set()
    while fresh := find_descendants(os.getpid()) - stopped:
        for pid in fresh:  # stopped first: it starts no others while the rest are found
            _signal(pid, signal.SIGSTOP)
        stopped |= fresh
    for pid in stopped:
        _signal(pid, signal.SIGKILL)


def _signal(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)


def _read_stat(pid: int) -> list[str] | None:
    """The fields of ``/proc/PID/stat`` from the third on: state, parent, ..., and at 19 when it began."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return None
    return text.rpartition(")")[2].split()
