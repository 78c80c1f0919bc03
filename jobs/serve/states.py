"""The published states of an index that a server answers from.

A run may publish while people look at results. So a server stays in the state that it has opened until it is asked to
take over the newest one, and keeps a few former states for pages that still show them.
"""

import contextlib
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property
from threading import Lock
from typing import Any

import pyarrow.compute as pc

from pipeline.errors import EarshotError
from pipeline.index import lease
from pipeline.index.handle import find_index
from pipeline.index.tables import among
from pipeline.schema import Row
from pipeline.search.client import Index
from pipeline.search.recent import Recent

MAX_OPEN = 4
"""States that are open at the same time. Each holds what its questions have looked up."""

LOOK_EVERY_S = 1.0
"""How often the journal is read for a newer state, at most."""

LOOK_S = 0.2
"""How long a request waits to be told whether a run writes."""

MAX_KEPT_FILES = 100_000

FILE_COLUMNS = (
    *("file_id", "audio_id", "uri", "status", "reason", "message", "note", "duration_s", "sample_rate_hz", "channels"),
    *("codec", "size_bytes", "modified_ns", "content_hash", "n_frames"),
)
"""The columns of a file that the page shows, besides the user's."""

OWN_COLUMNS = ("uri", "duration_s", "codec", "sample_rate_hz", "channels")
"""Columns of Earshot's own that are of use in filters."""


class StateGone(EarshotError):
    """The state that a request names is not open any more."""


class State:
    """One published state, with what many requests look up in it. Threads may share it."""

    def __init__(self, index: Index) -> None:
        self.index = index
        self.number: int = index.state
        self._files: Recent[str, Row | None] = Recent(MAX_KEPT_FILES)
        self._values: Recent[str, list[tuple[Any, int]]] = Recent(16)

    @cached_property
    def counts(self) -> dict[str, Any]:
        """Files, how many of them are indexed and failed, and hours of indexed audio."""
        files = self.index.to_arrow("files", ["status", "duration_s"])
        n_with = {status: pc.sum(pc.equal(files["status"], status)).as_py() or 0 for status in ("indexed", "failed")}
        hours = (pc.sum(files.filter(pc.equal(files["status"], "indexed"))["duration_s"]).as_py() or 0.0) / 3600
        return {"files": sum(n_with.values()), **n_with, "hours": hours}

    @cached_property
    def has_frames(self) -> bool:
        return bool(self.index.settings["frames"] != "none")

    def find_file(self, uri: str) -> Row | None:
        """The row of ``files`` for a uri; None where there is none."""
        return self.find_files([uri])[uri]

    def find_files(self, uris: Iterable[str]) -> dict[str, Row | None]:
        """The row of each uri. Of a uri that had several contents, the row that is not deleted."""
        wanted = set(uris)
        known = self._files.find(wanted)
        if new := wanted - known.keys():
            found: dict[str, Row | None] = dict.fromkeys(new)
            has_note = "note" in self._names
            columns = [name for name in FILE_COLUMNS if has_note or name != "note"] + self.index.metadata.names
            for row in self.index.to_arrow("files", columns, among("uri", new)).to_pylist():
                former = found[row["uri"]]
                if former is None or former["status"] == "deleted":
                    found[row["uri"]] = row
            self._files.keep(found)
            known |= found
        return known

    def count_values(self, column: str) -> list[tuple[Any, int]]:
        """The values of a column of indexed files and the number of files with each, the most frequent first."""
        if kept := self._values.find([column]):
            return kept[column]
        rows = self.index.to_arrow("files", [column], "status = 'indexed'")
        counted = rows.group_by(column).aggregate([([], "count_all")]).to_pydict()
        pairs = [pair for pair in zip(counted[column], counted["count_all"], strict=True) if pair[0] is not None]
        pairs.sort(key=lambda pair: (-pair[1], str(pair[0])))
        self._values.keep({column: pairs})
        return pairs

    @cached_property
    def columns(self) -> dict[str, str]:
        """The columns that filters may name and their types, the user's first."""
        own = self.index.to_arrow("files", list(OWN_COLUMNS), "false").schema
        return {column.name: str(column.type) for column in [*self.index.metadata, *own]}

    @cached_property
    def _names(self) -> list[str]:
        return list(self.index.to_arrow("files", where="false").column_names)


class States:
    """The open states of one index.

    Args:
        open_newest: opens the index as it is published now.

    Raises:
        EarshotError: there is no index, or this version cannot read it.
    """

    def __init__(self, path: str, open_newest: Callable[[], Index]) -> None:
        self.path = path
        self._open_newest = open_newest
        self._lock, self._opening = Lock(), Lock()
        self._current = State(open_newest())
        self._open = OrderedDict({self._current.number: self._current})
        self._newest = self._current.number
        self._looked_at = time.monotonic()
        self._looking = ThreadPoolExecutor(1, thread_name_prefix="lease")
        self._held: Future[bool] | None = None
        self._held_at, self._is_writing = 0.0, False

    @property
    def current(self) -> State:
        """The state that requests without ``at`` get."""
        return self._current

    def get(self, at: int | None) -> State:
        """The current state, or the one with the number ``at``.

        Raises:
            StateGone: it is not open any more.
        """
        if at is None:
            return self._current
        with self._lock:
            if at not in self._open:
                raise StateGone(f"state {at} of {self.path} is not open any more: take over the newest one")
            self._open.move_to_end(at)
            return self._open[at]

    def refresh(self) -> State:
        """Make the newest published state the current one."""
        with self._opening:  # of two at once, the one that has looked later is followed
            self._current = self._find_or_open()
            return self._current

    def open_newest(self) -> State:
        """The newest published state. The current one stays as it is."""
        with self._opening:
            return self._find_or_open()

    def _find_or_open(self) -> State:
        number = self.find_newest(fresh=True)
        with self._lock:
            if number in self._open:
                self._open.move_to_end(number)
                return self._open[number]
        state = State(self._open_newest())
        with self._lock:
            self._open[state.number] = state
            self._newest = max(self._newest, state.number)
            while len(self._open) > MAX_OPEN:
                oldest = next(each for each in self._open if each not in (self._current.number, state.number))
                del self._open[oldest]
        return state

    def find_newest(self, *, fresh: bool = False) -> int:
        """The number of the newest published state.

        Args:
            fresh: read the journal, also if that was done a moment ago.
        """
        if fresh or time.monotonic() - self._looked_at > LOOK_EVERY_S:
            self._newest = find_index(self.path).state
            self._looked_at = time.monotonic()
        return self._newest

    def is_writing(self) -> bool:
        """Whether a run writes to the index, as known a moment ago. It takes seconds to tell that of a lease which
        looks old, so another thread finds it out."""
        with self._lock:
            if self._held is None or (self._held.done() and time.monotonic() - self._held_at > LOOK_EVERY_S):
                self._held, self._held_at = self._looking.submit(lease.is_held, self.path), time.monotonic()
        with contextlib.suppress(TimeoutError):
            self._is_writing = self._held.result(timeout=LOOK_S)
        return self._is_writing
