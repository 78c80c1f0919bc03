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

    def __init__(self, path: str | Path, run_id: str) -> None:
        self._file = Path(path) / "claim.json"
        self._mine = {
            "run_id": run_id,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "since": time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime()),
        }
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="claim", daemon=True)

    def __enter__(self) -> "Claim":
        try:
            with self._file.open("x") as file:
                json.dump(self._mine, file)
        except FileExistsError:
            self._take_over()
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
        if holder is not None and self._is_alive(holder):
            raise IndexBusy(
                f"{self._file.parent}: another run writes here (process {holder['pid']} on {holder['host']},"
                f" since {holder['since']}); wait for it, or stop it"
            )
        scratch = self._file.with_name(f"claim.{self._mine['run_id']}.json")
        scratch.write_text(json.dumps(self._mine))
        scratch.replace(self._file)

    def _holder(self) -> dict[str, Any] | None:
        try:
            values: dict[str, Any] = json.loads(self._file.read_text())
        except (OSError, ValueError):
            return None
        return values

    def _is_alive(self, holder: dict[str, Any]) -> bool:
        if holder["host"] == self._mine["host"]:
            try:
                os.kill(holder["pid"], 0)
            except ProcessLookupError:
                return False
            except PermissionError:
                return True
        try:
            return time.time() - self._file.stat().st_mtime < STALE_S
        except OSError:
            return False

    def _beat(self) -> None:
        while not self._stop.wait(BEAT_S):
            with contextlib.suppress(OSError):
                os.utime(self._file)
