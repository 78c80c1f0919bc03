"""One writer per index: a claim that lives as long as its run, and is taken over when its run is dead.

The claim is a small file in the index with a heartbeat. It keeps honest runs apart; should it
fail (removed by force, clocks that disagree), the journal still lets only one of them publish.
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

from pipeline.errors import IndexBusy

BEAT_S = 5.0
STALE_S = 60.0


class Claim:
    """Holds the index at ``path`` for the run ``run_id`` while the context is open.

    Raises:
        IndexBusy: on entering, when a live run holds it; says which and since when.
    """

    def __init__(self, path: str | Path, run_id: str, *, beat_s: float = BEAT_S) -> None:
        self._file = Path(path) / "claim.json"
        self._mine = {
            "run_id": run_id,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "since": time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime()),
        }
        self._beat_s = beat_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="claim", daemon=True)

    def __enter__(self) -> "Claim":
        try:
            file = self._file.open("x")
        except FileExistsError:
            self._take_over()
        else:
            try:
                with file:
                    file.write(json.dumps(self._mine))
            except OSError:  # a full disk: an empty claim would hold off the next run
                self._file.unlink(missing_ok=True)
                raise
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        if self._holder() == self._mine:
            self._file.unlink(missing_ok=True)

    def _take_over(self) -> None:
        holder = self._holder()
        if holder is None and self._is_fresh():  # just made by another run, which has yet to write its name
            raise IndexBusy(f"{self._file.parent}: another run is starting here; wait for it, or stop it")
        if holder is not None and self._is_alive(holder):
            raise IndexBusy(
                f"{self._file.parent}: another run writes here (process {holder['pid']} on {holder['host']},"
                f" since {holder['since']}); wait for it, or stop it"
            )
        scratch = self._file.with_name(f"claim.{self._mine['run_id']}.json")
        try:
            scratch.write_text(json.dumps(self._mine))
            scratch.replace(self._file)
        finally:
            scratch.unlink(missing_ok=True)

    def _holder(self) -> dict[str, Any] | None:
        try:
            values = json.loads(self._file.read_text())
        except (OSError, ValueError):
            return None
        return values if isinstance(values, dict) and values.keys() >= self._mine.keys() else None

    def _is_alive(self, holder: dict[str, Any]) -> bool:
        if holder["host"] == self._mine["host"]:
            try:
                os.kill(holder["pid"], 0)
            except ProcessLookupError:
                return False
            except PermissionError:
                pass  # there is such a process, of another user: the run, or one that has its number now
        return self._is_fresh()

    def _is_fresh(self) -> bool:
        try:
            return time.time() - self._file.stat().st_mtime < STALE_S
        except OSError:
            return False

    def _beat(self) -> None:
        while not self._stop.wait(self._beat_s):
            with contextlib.suppress(OSError):
                if self._holder() == self._mine:
                    os.utime(self._file)
