"""One writer per index: a lease that a run holds while it lives, and that another run takes over once it is dead.

The lease is a small file in the index, ``claim-N.json``. Whoever creates number N holds the index; the holder's
heartbeat creates N + 1 and removes N. Creating fails if the file exists, which local disks and some object stores can
guarantee, so of two runs that create one number only one succeeds. Before the first lease, the run tests whether the
store can. That keeps honest runs apart. If it fails, because somebody removed the files for example, the journal still
lets only one run publish.

A store may create a file and lose its answer. A client that retries is then told that the file exists. So a run that is
refused, or gets an error, reads the newest lease and continues if that is its own.
"""

import contextlib
import os
import socket
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Any

from pipeline import storage
from pipeline.errors import CommitConflict, IndexBusy, UsageError
from pipeline.index.lease_files import CLOCK, Clock, LeaseFiles
from pipeline.processes import find_start, name_processes

BEAT_S = 10.0
STORES = "s3://, gs://, az:// or abfss://"
"""Stores whose clients create files exclusively: Amazon's, Google's, Microsoft's, and many that speak S3."""
UNWRITTEN_S = 1.0
"""How long a lease file may exist before its content is written."""


def is_held(path: str | Path, *, clock: Clock = CLOCK) -> bool:
    """Whether a run seems to write to the index at ``path``: its process is alive, and it renews its lease.

    Where the lease looks old, this waits for up to two heartbeats, since the clocks of two machines may differ.
    """
    leases = LeaseFiles(*storage.find_store(str(path)))
    while numbers := leases.list():
        if (holder := leases.read(numbers[-1])) is not None:
            return leases.is_alive(numbers[-1], holder, clock)
        clock.sleep(UNWRITTEN_S)
        if leases.list()[-1:] == numbers[-1:] and leases.read(numbers[-1]) is None:
            return False  # not a lease of Earshot's
    return False


class Lease:
    """Holds the index at ``path``, a folder or a URL, for the run ``run_id`` while the context is open.

    Args:
        beat_s: seconds between two heartbeats.
        leases: the lease files; by default those in the index.

    Raises:
        IndexBusy: on entering, when a live run holds it; says which and since when.
        UsageError: the index is in a store where two runs can create the same file.
    """

    def __init__(
        self, path: str | Path, run_id: str, *, beat_s: float | None = None, leases: "LeaseFiles | None" = None
    ) -> None:
        self._path = str(path)
        self._leases = leases or LeaseFiles(*storage.find_store(self._path))
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
        self._thread = threading.Thread(target=self._beat, name="lease", daemon=True)

    def __enter__(self) -> "Lease":
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
            if self._leases.list()[-1:] != [number]:  # a run that began later was faster while there was no lease
                raise starting
        except BaseException:
            with contextlib.suppress(Exception):
                self._leases.remove(number)
            raise
        with contextlib.suppress(Exception):  # each store has errors of its own; a heartbeat removes the rest
            self._remove(numbers)
            self._leases.remove_unfinished(number)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        with contextlib.suppress(Exception):  # if the store does not answer, the next run takes the lease over
            self._remove(number for number in self._leases.list() if self._owns(number))

    @property
    def lost(self) -> bool:
        """Whether another run has taken the index over, believing this one dead."""
        return self._taken_by is not None

    def check(self) -> None:
        """Stop a run that has lost the index: its work would be in vain.

        Raises:
            CommitConflict: another run has taken the index over.
        """
        if (other := self._taken_by) is not None:
            raise CommitConflict(
                f"{self._path}: another run (process {other['pid']} on {other['host']}, since {other['since']}) has"
                " taken this index over, as this one had not renewed its lease in time; this one stops, what it"
                " published stays"
            )

    def _values(self) -> dict[str, Any]:
        return {**self._mine, "at": time.time()}

    def _is_mine(self, holder: dict[str, Any] | None) -> bool:
        return holder is not None and holder["run_id"] == self._mine["run_id"]

    def _owns(self, number: int) -> bool:
        return self._is_mine(self._leases.read(number))

    def _take(self, number: int) -> bool:
        """Create a lease; returns whether it exists and is this run's own, whatever the store answered."""
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
            self._refuse_if_held(newer[-1])  # its run has renewed it meanwhile
        if holder is not None and self._leases.is_alive(number, holder):
            raise IndexBusy(
                f"{self._path}: another run writes here (process {holder['pid']} on {holder['host']},"
                f" since {holder['since']}); wait for it, or stop it"
            )

    def _read_written(self, number: int) -> dict[str, Any] | None:
        """The content of a lease; None if it was removed or is not Earshot's."""
        holder = self._leases.read(number)
        if holder is None:  # on a disk without links it may not be complete yet
            time.sleep(UNWRITTEN_S)
            holder = self._leases.read(number)
        return holder

    def _beat(self) -> None:
        while not self._stop.wait(self._mine["beat_s"]) and not self.lost:
            with contextlib.suppress(Exception):  # each store has errors of its own; the next beat may reach it
                self._taken_by = self._renew()

    def _renew(self) -> dict[str, Any] | None:
        """Create the next lease and remove all earlier ones; returns the newest lease where it is another run's."""
        numbers = self._leases.list()
        newest = self._read_written(numbers[-1]) if numbers else None
        if newest is not None and not self._is_mine(newest):
            return newest
        number = max(numbers, default=0) + 1
        if self._take(number):
            self._remove(numbers)
            return None
        return self._read_written(number)
