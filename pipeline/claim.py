"""One writer per index: a lease that lives as long as its run, and is taken over when its run is dead.

The lease is a small file in the index, ``claim-N.json``. Whoever creates number N holds the index; the holder's
heartbeat creates N + 1 and removes N. Each file is made by a put that fails if there is one already, which local disks
and object stores both offer, so of two runs that reach for one number only one gets it. That keeps honest runs apart;
should it fail (removed by force), the journal still lets only one of them publish.
"""

import contextlib
import json
import os
import socket
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Any

from fsspec.implementations.local import LocalFileSystem

from pipeline import storage
from pipeline.errors import IndexBusy
from pipeline.processes import find_start, is_gone, name_processes

BEAT_S = 10.0
STALE_S = 60.0
"""Age of a lease from which its holder is watched, and taken for dead if its heart does not beat."""
UNWRITTEN_S = 1.0
"""How long a lease may be there and not be written."""


def is_held(path: str | Path) -> bool:
    """Whether a run seems to write to the index at ``path``: its lease is young, and its process is not gone."""
    leases = _Leases(str(path))
    holder = leases.read(numbers[-1]) if (numbers := leases.list()) else None
    return holder is not None and abs(time.time() - holder["at"]) < STALE_S and not _is_dead(holder)


class Claim:
    """Holds the index at ``path``, a folder or a URL, for the run ``run_id`` while the context is open.

    Raises:
        IndexBusy: on entering, when a live run holds it; says which and since when.
    """

    def __init__(self, path: str | Path, run_id: str, *, beat_s: float = BEAT_S) -> None:
        self._path = str(path)
        self._leases = _Leases(self._path)
        self._mine: dict[str, Any] = {
            "run_id": run_id,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "since": time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime()),
            "beat_s": beat_s,
            "processes": name_processes(),
            "began": find_start(os.getpid()),
        }
        self._number = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="claim", daemon=True)

    def __enter__(self) -> "Claim":
        numbers = self._leases.list()
        if numbers:
            self._refuse_if_held(numbers[-1])
        self._number = max(numbers, default=0) + 1
        starting = IndexBusy(f"{self._path}: another run is starting here; wait for it, or stop it")
        if not self._leases.create(self._number, self._values()):
            raise starting
        if self._leases.list()[-1:] != [self._number]:  # one that began later was faster, when no lease was there
            self._leases.remove(self._number)
            raise starting
        for number in numbers:
            self._leases.remove(number)
        self._leases.remove_unfinished()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        with contextlib.suppress(Exception):  # a store that does not answer: a lease that is left is taken over
            if self._is_mine():
                self._leases.remove(self._number)

    def _values(self) -> dict[str, Any]:
        return {**self._mine, "at": time.time()}

    def _is_mine(self) -> bool:
        holder = self._leases.read(self._number)
        return holder is not None and holder["run_id"] == self._mine["run_id"]

    def _refuse_if_held(self, number: int) -> None:
        holder = self._leases.read(number)
        if holder is None:  # not one of ours; or, on a disk without links, not written to its end yet
            time.sleep(UNWRITTEN_S)
            holder = self._leases.read(number)
        if holder is None and (newer := [each for each in self._leases.list() if each > number]):
            self._refuse_if_held(newer[-1])  # its heart has beaten meanwhile
        if holder is None or _is_dead(holder):
            return
        if abs(time.time() - holder["at"]) < STALE_S or self._beats(number, 2 * holder["beat_s"]):
            raise IndexBusy(
                f"{self._path}: another run writes here (process {holder['pid']} on {holder['host']},"
                f" since {holder['since']}); wait for it, or stop it"
            )

    def _beats(self, number: int, timeout_s: float) -> bool:
        """Watch whether the lease is renewed: clocks of two machines may differ by more than its age."""
        until = time.monotonic() + timeout_s
        while time.monotonic() < until:
            time.sleep(min(1.0, timeout_s / 4))
            if self._leases.list()[-1:] != [number]:
                return True
        return False

    def _beat(self) -> None:
        while not self._stop.wait(self._mine["beat_s"]):
            try:
                if not self._is_mine() or not self._leases.create(self._number + 1, self._values()):
                    return  # taken over: the journal decides who publishes
                self._number += 1
                self._leases.remove(self._number - 1)
            except Exception:  # each store has errors of its own
                continue  # the next beat may reach it


class _Leases:
    """The lease files of an index."""

    def __init__(self, path: str) -> None:
        self._fs, self._root = storage.find(path)

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

    def read(self, number: int) -> dict[str, Any] | None:
        """What a lease says; None if it is gone, or not one of ours."""
        try:
            values = json.loads(self._fs.cat_file(self._at(number)))
        except (FileNotFoundError, ValueError):
            return None
        expected = {"run_id", "host", "pid", "since", "beat_s", "processes", "at"}
        return values if isinstance(values, dict) and values.keys() >= expected else None

    def remove(self, number: int) -> None:
        with contextlib.suppress(FileNotFoundError):
            self._fs.rm_file(self._at(number))

    def remove_unfinished(self) -> None:
        """Remove what was left by those who were killed while they wrote a lease to a disk."""
        if not isinstance(self._fs, LocalFileSystem):
            return
        for scratch in Path(self._root).glob("claim-*.json.*"):
            with contextlib.suppress(FileNotFoundError):
                if time.time() - scratch.stat().st_mtime > STALE_S:
                    scratch.unlink()

    def _at(self, number: int) -> str:
        return f"{self._root}/claim-{number:09d}.json"


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
                file.write(data)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(scratch)
