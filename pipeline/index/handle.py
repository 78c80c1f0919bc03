"""An index opened: what its journals say at one moment, read once and passed on.

index = find_index(path)         # or open_index, where there has to be an index
index.live.settings              # of the tables that readers see
index.live.open("clips")         # as they were published at that moment
index = index.refresh()          # what the journals say now
"""

import datetime as dt
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline import schema, storage
from pipeline.errors import IndexMismatch, IndexMissing
from pipeline.index import journal, tables
from pipeline.index.journal import DATA_TABLES, Failpoint, Published, get_settings, get_value, parse, refuse
from pipeline.index.tuning import Tuning, parse_tuning
from pipeline.schema import Row

_KINDS = ("create", "migrate", "configure", "restore", "switch", "tune")
"""The journal rows that a handle keeps: those whose ``detail`` says more than counts."""

STATES_PER_GENERATION = 1_000_000_000
"""More than a journal has rows."""


@dataclass(frozen=True)
class Generation:
    """Data tables and their journal at one moment. ``published`` is None where no run has made them yet."""

    path: str
    """The folder of the tables."""
    index: str
    """The folder of the index."""
    published: Published | None = None
    _rows: tuple[Row, ...] = field(default=(), repr=False)
    """``seq``, ``kind``, ``committed_at`` and ``detail`` of the journal rows of ``_KINDS``, newest first."""

    @property
    def exists(self) -> bool:
        return self.published is not None

    @property
    def seq(self) -> int:
        """The number of the newest journal row; -1 where there is none."""
        return self.published.seq if self.published else -1

    @property
    def versions(self) -> dict[str, int]:
        """The version of each table that is published."""
        return self.published.versions if self.published else {}

    def refresh(self) -> "Generation":
        """The same tables as they are published now."""
        return read_generation(self.path, self.index)

    @cached_property
    def format(self) -> int:
        """The format number of the tables.

        Raises:
            IndexMismatch: this code cannot read it.
        """
        newest = next(self._details("create", "migrate"), None)
        number = 0 if newest is None else int(get_value(newest, "format", int, self._where))
        journal.check_format(self.index, number)
        return number

    @cached_property
    def settings(self) -> dict[str, Any]:
        """What the tables were created with.

        Raises:
            IndexMissing: there are none. IndexMismatch: this code cannot read their format.
        """
        if not self.exists:
            journal.check_whole(self.path)
            advice = f"make one with `earshot index FOLDER --into {shlex.quote(self.index)}`"
            raise IndexMissing(f"{self.index}: no index here; {advice}")
        _ = self.format
        first = next((row for row in self._rows if row["seq"] == 0), None)
        return get_settings(parse(first["detail"], self._where) if first else {}, self._where)

    @cached_property
    def config(self) -> dict[str, Any] | None:
        """The configuration of the newest run, as ``Writer.configure`` got it; None before the first."""
        newest = next(self._details("configure"), None)
        return None if newest is None else get_value(newest, "config", dict, self._where)

    @cached_property
    def tuning(self) -> Tuning | None:
        """The newest measurement of the recall; None before the first."""
        newest = next((row for row in self._rows if row["kind"] == "tune"), None)
        if newest is None:
            return None
        return parse_tuning(parse(newest["detail"], self._where), newest["committed_at"], self._where)

    @property
    def mounts(self) -> list[str]:
        """The mount points of the indexed files, as ``Writer.configure`` or ``Writer.restore`` noted them last."""
        return next(self._all_mounts(), [])

    def mounts_until(self, seq: int) -> list[str]:
        """All mount points that were known at some time until the journal row ``seq``.

        The newest are not enough: a run that gives up a disk notes its mount points before it takes the files out.
        """
        return sorted(set().union(*self._all_mounts(seq)))

    def open(self, name: str) -> Any:
        """The table ``name`` as it was published, a ``lance.LanceDataset``."""
        return tables.open_published(self.path, name, self.published)

    def read_files(self) -> pa.Table:
        """The ledger as it was published, see ``tables.read_files``; empty where there are no tables."""
        return tables.read_files(self.path, self.published) if self.exists else schema.FILES.empty_table()

    @property
    def live_number(self) -> int:
        """The number of the generation that readers see; the journal of the first generation says it."""
        newest = next(self._details("switch"), None)
        if newest is None:
            return 1
        number = int(get_value(newest, "generation", int, self._where))
        if not 2 <= number <= self.seq + 2:  # each row of this kind adds one
            raise refuse(f"{self._where}: `generation` is {number}")
        return number

    @property
    def switched_at(self) -> dt.datetime | None:
        """When the live generation took the place of the one before it; None for the first."""
        return next((row["committed_at"] for row in self._rows if row["kind"] == "switch"), None)

    @property
    def former_recall(self) -> float | None:
        """The recall that was wanted of the generation before the live one; None where it was never measured. The
        journal of the first generation says it."""
        newest = next(self._details("switch"), {})
        return float(get_value(newest, "recall", (int, float), self._where)) if "recall" in newest else None

    @property
    def _where(self) -> str:
        return journal.table_uri(self.path, "batches")

    def _details(self, *kinds: str) -> Iterator[dict[str, Any]]:
        return (parse(row["detail"], self._where) for row in self._rows if row["kind"] in kinds)

    def _all_mounts(self, seq: int | None = None) -> Iterator[list[str]]:
        """The mount points of each journal row that notes them, newest first; the list may be empty."""
        for row in self._rows:
            if row["kind"] in ("configure", "restore") and (seq is None or row["seq"] <= seq):
                found = parse(row["detail"], self._where)
                if "mounts" in found:
                    yield [str(mount) for mount in get_value(found, "mounts", list, self._where)]


@dataclass(frozen=True)
class Handle:
    """An index at one moment. Two handles are equal if no run has published in between.

    ``first`` holds the journal that says which generation is ``live``, that is, which tables readers see. Until the
    index is rebuilt, both are the same.
    """

    path: str
    first: Generation
    live: Generation

    def refresh(self) -> "Handle":
        """The same index as it is now."""
        return find_index(self.path)

    @property
    def state(self) -> int:
        """The number of the published state: that of the newest journal row. It also grows when a rebuilt generation,
        whose journal counts from 0, takes the place of another."""
        return (self.first.live_number - 1) * STATES_PER_GENERATION + self.live.seq

    @property
    def next_number(self) -> int:
        return self.first.live_number + 1

    def find_next(self) -> Generation:
        """The generation that would follow the live one: an unfinished rebuild, or nothing yet. Read at each call."""
        return read_generation(generation_path(self.path, self.next_number), self.path)


def generation_path(path: str, number: int) -> str:
    """The folder of the tables of a generation, from the second one on."""
    return storage.join(path, f"generation-{number}")


def find_index(path: str | Path) -> Handle:
    """The index at ``path``; where there is none, its ``live`` generation does not exist.

    Raises:
        IndexMismatch: the live generation is missing.
    """
    path = str(path)
    first = live = read_generation(path)
    if (number := first.live_number) > 1:
        live = read_generation(generation_path(path, number), path)
        if not live.exists:
            raise IndexMismatch(
                f"{live.path}: is missing, and the tables of the index are there since it was rebuilt: restore it from"
                " a copy"
            )
    return Handle(path, first, live)


def open_index(path: str | Path) -> Handle:
    """The index at ``path``, which has to be one that this code can read.

    Raises:
        IndexMissing: there is no index. IndexMismatch: this code cannot read its format; a generation is missing.
    """
    index = find_index(path)
    _ = index.live.settings
    return index


def read_generation(path: str | Path, index: str | None = None) -> Generation:
    """The tables at ``path``, of the index ``index``."""
    found = journal.find(path)
    return Generation(str(path), index or str(path)) if found is None else describe_generation(path, found, index)


def describe_generation(path: str | Path, batches: Any, index: str | None = None) -> Generation:
    """The tables at ``path`` as a version of their journal publishes them."""
    columns = ["seq", "kind", "committed_at", "detail"]
    kinds = ", ".join(map(repr, _KINDS))
    rows = batches.to_table(columns=columns, filter=f"kind IN ({kinds})").sort_by([("seq", "descending")]).to_pylist()
    return Generation(str(path), index or str(path), journal.newest(batches), tuple(rows))


# --- one generation takes the place of another ------------------------------------------------------------------------


def switch(index: Handle, run_id: str, failpoint: Failpoint = lambda step: None) -> None:
    """Make the next generation the live one, in one step. The recall that was wanted of the live one is noted.

    A live generation that is not the first gets a last row in its own journal before. So of this run and one that is
    still writing there, only one can publish.

    Args:
        index: as it was when this run began.

    Raises:
        CommitConflict: another run has written there since.
    """
    if index.live.path != index.first.path:
        failpoint("retire")
        _publish(index.live.path, index.live.published, run_id, "retire")
    failpoint("switch")
    recall = index.live.tuning.wanted if index.live.tuning else index.first.former_recall
    detail = {"generation": index.next_number} | ({} if recall is None else {"recall": recall})
    _publish(index.path, index.first.published, run_id, "switch", detail)


def _publish(path: str, last: Published | None, run_id: str, kind: str, detail: dict[str, float] | None = None) -> None:
    """Add a row to the journal at ``path`` that publishes the same versions as the row before it, ``last``."""
    if last is None:
        raise ValueError(f"{path}: no tables here")
    row = journal.make_row(last.seq + 1, schema.digest(kind, run_id), run_id, kind, last.versions, detail=detail or {})
    journal.publish(journal.open_journal(path), [row])


def drop_former_generations(index: Handle, older_than: dt.timedelta) -> list[str]:
    """Delete the tables that a generation has replaced, once readers have had time to leave them.

    Returns:
        The folders that were deleted.
    """
    switched_at = index.first.switched_at
    if switched_at is None or dt.datetime.now(dt.UTC) - switched_at < older_than:
        return []
    former = [journal.table_uri(index.path, name) for name in DATA_TABLES]
    former += [generation_path(index.path, number) for number in range(2, index.first.live_number)]
    return [folder for folder in former if delete_folder(folder)]


def delete_folder(folder: str) -> bool:
    """Delete a folder of tables with everything in it; returns whether it was there.

    The journal is deleted first: what an interrupted deletion leaves behind is no index.
    """
    fs, root = storage.find_store(folder)
    if not fs.exists(root):
        return False
    versions = f"{root}/batches.lance/_versions"
    if fs.exists(versions):
        fs.rm(versions, recursive=True)
    fs.rm(root, recursive=True)
    return True
