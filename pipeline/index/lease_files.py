"""The lease files of an index, ``claim-N.json``, which ``lease`` uses: made, read, judged and removed."""

import contextlib
import errno
import json
import os
import re
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fsspec.implementations.local import LocalFileSystem

from pipeline import storage
from pipeline.processes import has_ended, name_processes

STALE_S = 60.0
"""Age of a lease from which its holder is watched, and taken for dead if its heart does not beat."""

_LEASE: dict[str, Any] = {
    **dict.fromkeys(("run_id", "host", "since", "processes"), str),
    **dict.fromkeys(("beat_s", "at"), (int, float)),
    "pid": int,
}
_LARGEST = 2.0**53
_SCRATCH, _PROBE = re.compile(r"claim-\d+\.json\..+"), re.compile(r"probe-[0-9a-f]{32}")


@dataclass(frozen=True)
class Clock:
    """The time as leases note it, that which only goes on, and how to wait."""

    now: Callable[[], float] = time.time
    monotonic: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep


CLOCK = Clock()


class LeaseFiles:
    """The lease files of an index: those in the folder ``root`` of ``store``, an fsspec file system."""

    def __init__(self, store: Any, root: str) -> None:
        self._fs, self._root = store, root

    def list(self) -> list[int]:
        """The numbers of the leases there are, ascending."""
        try:
            names = [Path(name).name for name in self._fs.ls(self._root, detail=False)]
        except FileNotFoundError:
            return []
        numbers = [name.removeprefix("claim-").removesuffix(".json") for name in names if name.startswith("claim-")]
        return sorted(int(number) for number in numbers if number.isdecimal())

    def create(self, number: int, values: dict[str, Any]) -> bool:
        """Make a lease unless there is one of that number; returns whether it was made."""
        data, path = json.dumps(values).encode(), self._at(number)
        try:
            if isinstance(self._fs, LocalFileSystem):
                _create_whole(path, data)
            else:
                self._fs.pipe_file(path, data, mode="create")
        except FileExistsError:
            return False
        return True

    def are_exclusive(self) -> bool:
        """Whether of two who create one file the second fails, as ``create`` needs it. Tried out in a store."""
        if isinstance(self._fs, LocalFileSystem):
            return True
        path = f"{self._root}/probe-{uuid.uuid4().hex}"
        try:
            for number in range(2):
                storage.retried(self._fs.pipe_file, path, str(number).encode(), mode="create")
        except FileExistsError:
            # Of a store that repeats a put whose answer was lost, the first may have been told so: what does it hold?
            return bool(self._fs.cat_file(path) == b"0")
        except (NotImplementedError, TypeError, ValueError):  # of drivers that do not know ``mode``
            return False
        except OSError as error:  # of servers that do not know the condition of the put
            if error.errno in (errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL):
                return False
            raise
        finally:
            with contextlib.suppress(Exception):  # it may not be there
                self._fs.rm_file(path)
        return False

    def read(self, number: int) -> dict[str, Any] | None:
        """What a lease says; None if it is gone, or not one of ours."""
        try:
            values = json.loads(self._fs.cat_file(self._at(number)))
        except (FileNotFoundError, ValueError, RecursionError):
            return None
        return values if isinstance(values, dict) and _is_ours(values) else None

    def is_alive(self, number: int, holder: dict[str, Any], clock: Clock = CLOCK) -> bool:
        """Whether the run that made the newest lease, which says ``holder``, is there and renews it."""
        if _is_dead(holder):
            return False
        return abs(clock.now() - holder["at"]) < STALE_S or self._beats(number, 2 * holder["beat_s"], clock)

    def _beats(self, number: int, timeout_s: float, clock: Clock) -> bool:
        """Watch whether the lease is renewed: clocks of two machines may differ by more than its age."""
        timeout_s = min(timeout_s, 2 * STALE_S)  # whatever the lease says
        until = clock.monotonic() + timeout_s
        while clock.monotonic() < until:
            clock.sleep(min(1.0, timeout_s / 4))
            if (newest := self.list()[-1:]) and newest != [number]:
                return True
        return False

    def remove(self, number: int) -> None:
        with contextlib.suppress(FileNotFoundError):
            self._fs.rm_file(self._at(number))

    def remove_unfinished(self, number: int) -> None:
        """Remove what was left by those who were killed while they wrote a lease to a disk, or tried a store out.

        It is old where the lease ``number`` was made much later, by the clock of the disk or store itself.
        """
        is_local = isinstance(self._fs, LocalFileSystem)
        now, unfinished = self._fs.modified(self._at(number)), _SCRATCH if is_local else _PROBE
        for name in self._fs.ls(self._root, detail=False):
            if unfinished.fullmatch(Path(name).name):
                with contextlib.suppress(FileNotFoundError):
                    if (now - self._fs.modified(name)).total_seconds() > STALE_S:
                        self._fs.rm_file(name)

    def _at(self, number: int) -> str:
        return f"{self._root}/claim-{number:09d}.json"


def _is_ours(values: dict[str, Any]) -> bool:
    """Whether a lease says what those of a run do; ``began`` was added later."""
    for name, kind in _LEASE.items():
        value = values.get(name)
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not isinstance(value, kind) or (kind is not str and not (is_number and abs(value) < _LARGEST)):
            return False
    is_process = 0 < values["pid"] < 2**31 and isinstance(values.get("began"), int | None)
    return is_process and values["beat_s"] > 0


def _is_dead(holder: dict[str, Any]) -> bool:
    """Whether it ran on this machine and is gone; elsewhere, also in another container, its heartbeat tells."""
    return holder["processes"] == name_processes() and has_ended(holder["pid"], holder.get("began"))


def _create_whole(path: str, data: bytes) -> None:
    """Create a local file with all of its content, or fail if there is one: a link is made whole or not at all."""
    scratch = f"{path}.{os.getpid()}.{threading.get_ident()}"
    try:
        with open(scratch, "wb") as file:
            file.write(data)
        try:
            os.link(scratch, path)
        except FileExistsError:
            raise
        except OSError:  # a disk without links
            with open(path, "xb") as file:
                try:
                    file.write(data)
                    file.flush()
                except OSError:  # half a lease would be nobody's
                    os.unlink(path)
                    raise
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(scratch)
