"""The lease files of an index, ``claim-N.json``: created, read, judged and removed for ``lease``."""

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
"""From this age of a lease on, a run watches whether its holder renews it, and takes the holder for dead if not."""

_LEASE: dict[str, Any] = {
    **dict.fromkeys(("run_id", "host", "since", "processes"), str),
    **dict.fromkeys(("beat_s", "at"), (int, float)),
    "pid": int,
}
_LARGEST = 2.0**53
_SCRATCH, _PROBE = re.compile(r"claim-\d+\.json\..+"), re.compile(r"probe-[0-9a-f]{32}")


@dataclass(frozen=True)
class Clock:
    """The time of day, a monotonic time, and how to wait."""

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
        """Create a lease unless one of that number exists; returns whether it was created."""
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
        """Whether creating a file that exists fails, as ``create`` needs it. In an object store, this tries it."""
        if isinstance(self._fs, LocalFileSystem):
            return True
        path = f"{self._root}/probe-{uuid.uuid4().hex}"
        try:
            for number in range(2):
                storage.retried(self._fs.pipe_file, path, str(number).encode(), mode="create")
        except FileExistsError:
            # A client that repeats a put whose answer was lost may have failed at the first one: look at the content.
            return bool(self._fs.cat_file(path) == b"0")
        except (NotImplementedError, TypeError, ValueError):  # clients that do not know ``mode``
            return False
        except OSError as error:  # servers that do not know the condition of the put
            if error.errno in (errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL):
                return False
            raise
        finally:
            with contextlib.suppress(Exception):  # it may not exist
                self._fs.rm_file(path)
        return False

    def read(self, number: int) -> dict[str, Any] | None:
        """The content of a lease; None if it was removed or is not Earshot's."""
        try:
            values = json.loads(self._fs.cat_file(self._at(number)))
        except (FileNotFoundError, ValueError, RecursionError):
            return None
        return values if isinstance(values, dict) and _is_ours(values) else None

    def is_alive(self, number: int, holder: dict[str, Any], clock: Clock = CLOCK) -> bool:
        """Whether the run that created the newest lease, with the content ``holder``, is alive and renews it."""
        if _is_dead(holder):
            return False
        return abs(clock.now() - holder["at"]) < STALE_S or self._beats(number, 2 * holder["beat_s"], clock)

    def _beats(self, number: int, timeout_s: float, clock: Clock) -> bool:
        """Watch whether the run renews the lease: the clocks of two machines may differ by more than its age."""
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
        """Remove files of runs that were killed while they wrote a lease to a disk or tried a store.

        A file counts as left over if it is much older than the lease ``number``, by the clock of the disk or store.
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
    """Whether a lease has the fields that runs write; ``began`` was added later."""
    for name, kind in _LEASE.items():
        value = values.get(name)
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not isinstance(value, kind) or (kind is not str and not (is_number and abs(value) < _LARGEST)):
            return False
    is_process = 0 < values["pid"] < 2**31 and isinstance(values.get("began"), int | None)
    return is_process and values["beat_s"] > 0


def _is_dead(holder: dict[str, Any]) -> bool:
    """Whether the holder ran on this machine and has ended. In another container, only its heartbeat tells."""
    return holder["processes"] == name_processes() and has_ended(holder["pid"], holder.get("began"))


def _create_whole(path: str, data: bytes) -> None:
    """Create a local file with all of its content, or fail if it exists: a link is atomic."""
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
                except OSError:  # half a lease belongs to nobody
                    os.unlink(path)
                    raise
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(scratch)
