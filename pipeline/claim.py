"""One writer per index: a lease that lives as long as its run, and is taken over when its run is dead.

The lease is a small file in the index, ``claim-N.json``. Whoever creates number N holds the index; the holder's
heartbeat creates N + 1 and removes N. Each file is made by a put that fails if there is one already, which local disks
and some object stores offer, so of two runs that reach for one number only one gets it. A store is tried out before the
first lease is taken. That keeps honest runs apart; should it fail (removed by force), the journal still lets only one
of them publish.

The answer to a put may get lost although the put was carried out. A driver that then tries it again is told that the
lease exists. So a run that is refused, or gets an error, reads the newest lease, and goes on if that is its own.
"""

import contextlib
import errno
import json
import os
import re
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from fsspec.implementations.local import LocalFileSystem

from pipeline import storage
from pipeline.errors import CommitConflict, IndexBusy, UsageError
from pipeline.processes import find_start, is_gone, name_processes

BEAT_S = 10.0
STALE_S = 60.0
"""Age of a lease from which its holder is watched, and taken for dead if its heart does not beat."""
STORES = "s3://, gs://, az:// or abfss://"
"""Stores that create files exclusively, as their drivers have it: Amazon's, Google's, Microsoft's, and many like S3."""
UNWRITTEN_S = 1.0
"""How long a lease may be there and not be written."""

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


def is_held(path: str | Path, *, clock: Clock = CLOCK) -> bool:
    """Whether a run seems to write to the index at ``path``: its process is not gone, and it renews its lease.

    Where the lease looks old, this waits for up to two heartbeats, as clocks of two machines may differ.
    """
    leases = Leases(*storage.find(str(path)))
    while numbers := leases.list():
        if (holder := leases.read(numbers[-1])) is not None:
            return leases.is_alive(numbers[-1], holder, clock)
        if leases.list()[-1:] == numbers[-1:]:
            return False  # it is not one of ours
    return False


class Claim:
    """Holds the index at ``path``, a folder or a URL, for the run ``run_id`` while the context is open.

    Args:
        beat_s: seconds between two heartbeats.
        leases: where the lease files are; by default in the index.

    Raises:
        IndexBusy: on entering, when a live run holds it; says which and since when.
        UsageError: it lies in a store that lets two runs create one file.
    """

    def __init__(
        self, path: str | Path, run_id: str, *, beat_s: float | None = None, leases: "Leases | None" = None
    ) -> None:
        self._path = str(path)
        self._leases = leases or Leases(*storage.find(self._path))
        self._mine: dict[str, Any] = {
            "run_id": run_id,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "since": time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime()),
            "beat_s": BEAT_S if beat_s is None else beat_s,
            "processes": name_processes(),
            "began": find_start(os.getpid()),
        }
        self._taken_by: dict[str, Any] | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="claim", daemon=True)

    def __enter__(self) -> "Claim":
        numbers = self._leases.list()
        if numbers:
            self._refuse_if_held(numbers[-1])
        elif not self._leases.are_exclusive():
            raise UsageError(
                f"{self._path}: this store creates a file that is there already, so two runs could write at once; an"
                f" index can lie in a folder, or in {STORES}"
            )
        number = max(numbers, default=0) + 1
        starting = IndexBusy(f"{self._path}: another run is starting here; wait for it, or stop it")
        taken = storage.retried(self._take, number) if storage.is_url(self._path) else self._take(number)
        if not taken:
            raise starting
        try:
            if self._leases.list()[-1:] != [number]:  # one that began later was faster, when no lease was there
                raise starting
        except BaseException:
            with contextlib.suppress(Exception):
                self._leases.remove(number)
            raise
        with contextlib.suppress(Exception):  # each store has errors of its own; a heartbeat removes what is left
            self._remove(numbers)
            self._leases.remove_unfinished(number)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        with contextlib.suppress(Exception):  # a store that does not answer: a lease that is left is taken over
            self._remove(number for number in self._leases.list() if self._owns(number))

    @property
    def lost(self) -> bool:
        """Whether another run has taken the index over: it held this one for dead."""
        return self._taken_by is not None

    def check(self) -> None:
        """Stop a run that has lost the index, rather than let it work on for nothing.

        Raises:
            CommitConflict: another run has taken the index over.
        """
        if (other := self._taken_by) is not None:
            raise CommitConflict(
                f"{self._path}: another run (process {other['pid']} on {other['host']}, since {other['since']}) has"
                " taken this index over, as this one had not renewed its claim in time; this one stops, what it"
                " published stays"
            )

    def _values(self) -> dict[str, Any]:
        return {**self._mine, "at": time.time()}

    def _is_mine(self, holder: dict[str, Any] | None) -> bool:
        return holder is not None and holder["run_id"] == self._mine["run_id"]

    def _owns(self, number: int) -> bool:
        return self._is_mine(self._leases.read(number))

    def _take(self, number: int) -> bool:
        """Create a lease; returns whether it is there and this run's own, whatever the store has answered."""
        try:
            return self._leases.create(number, self._values()) or self._owns(number)
        except Exception:  # each store has errors of its own
            if not self._owns(number):
                raise
            return True

    def _remove(self, numbers: Iterable[int]) -> None:
        for number in numbers:
            self._leases.remove(number)

    def _refuse_if_held(self, number: int) -> None:
        holder = self._read_written(number)
        if holder is None and (newer := [each for each in self._leases.list() if each > number]):
            self._refuse_if_held(newer[-1])  # its heart has beaten meanwhile
        if holder is not None and self._leases.is_alive(number, holder):
            raise IndexBusy(
                f"{self._path}: another run writes here (process {holder['pid']} on {holder['host']},"
                f" since {holder['since']}); wait for it, or stop it"
            )

    def _read_written(self, number: int) -> dict[str, Any] | None:
        """What a lease says; None if it is gone, or not one of ours."""
        holder = self._leases.read(number)
        if holder is None:  # on a disk without links it may not be written to its end yet
            time.sleep(UNWRITTEN_S)
            holder = self._leases.read(number)
        return holder

    def _beat(self) -> None:
        while not self._stop.wait(self._mine["beat_s"]) and not self.lost:
            with contextlib.suppress(Exception):  # each store has errors of its own; the next beat may reach it
                self._taken_by = self._renew()

    def _renew(self) -> dict[str, Any] | None:
        """Make the next lease and remove all that came before; returns the newest one where it is another run's."""
        numbers = self._leases.list()
        newest = self._read_written(numbers[-1]) if numbers else None
        if newest is not None and not self._is_mine(newest):
            return newest
        number = max(numbers, default=0) + 1
        if self._take(number):
            self._remove(numbers)
            return None
        return self._read_written(number)


class Leases:
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
    return holder["processes"] == name_processes() and is_gone(holder["pid"], holder.get("began"))


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
