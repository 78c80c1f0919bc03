"""The vector indexes: built, extended and merged, so that a search need not read every vector.

A vector index (``IVF_RQ``, one bit a number, by dot product) holds about D / 8 + 15 bytes a row. It has *segments*: one
over the rows that were there when it was built, and one for each time it was extended. Rows that no segment covers are
scanned by each search, so new rows are found at once. Every change is one version of the table, which a publication
then shows to readers; it is made in a process of its own, since the engine's training may never end.

The number of partitions tells for how many rows they were trained, so nothing else need be stored.
"""

import datetime as dt
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from pipeline.index import engine_errors
from pipeline.index.changes import Changes
from pipeline.index.journal import Failpoint
from pipeline.index.limited import Limits, Unfinished, call_limited
from pipeline.index.memory import find_available
from pipeline.index.search_settings import ALL_PARTITIONS
from pipeline.index.vector_build import COLUMN as COLUMN
from pipeline.index.vector_build import FRUGAL, ROWS_PER_PARTITION, make_step, open_version
from pipeline.index.vector_build import NAME as NAME

VECTORS_TO_INDEX = 10_000
"""From this many rows on, a table gets a vector index: fewer are scanned as fast."""

PARTITIONS = {"clips": 500, "pools": 128}
"""The tables that get one, and the number of partitions of a million rows. Each search of ``pools`` reads all of them;
one of ``clips`` may leave some out. Fewer partitions are built and read as a whole in less time."""

GROWTH_TO_TRAIN = 4
"""The partitions are trained again once a table has this many times the rows that they were trained for."""

MAX_SEGMENTS = 8
MERGE_RATIO = 4
"""Segments are merged into a new one while they have less than this many times the rows collected so far. So each row
is copied a few times, however often a table grows."""

MAX_UNINDEXED_SHARE, MAX_UNINDEXED = 0.05, 5_000
"""A run extends an index that leaves out more rows, or a larger share of them."""

LEAST_S, SECONDS_A_NUMBER = 120.0, 4e-7
"""How long a step may take: this, and so much for each number of a vector that it reads. A million vectors of 1,024
numbers took 25 to 46 CPU seconds: ten times that, for the machine may be busy or its store slow, are seven minutes."""

OWN_BYTES = 4 * 10**9
"""Memory that a step may take beside the sample that partitions are trained on: twice what was measured."""


@dataclass(frozen=True)
class VectorIndex:
    """The vector index of a version of a table."""

    n_rows: int
    """Of the table, deleted ones aside; so in ``segments``."""
    segments: tuple[int, ...]
    """The number of rows that each covers, oldest first."""
    n_bytes: int
    built_at: dt.datetime
    """When its oldest segment was written."""

    @property
    def n_indexed(self) -> int:
        return sum(self.segments)

    @property
    def n_unindexed(self) -> int:
        return self.n_rows - self.n_indexed


def read_index(table: Any) -> VectorIndex | None:
    """The vector index of ``table``, a ``lance.LanceDataset``; None where it has none."""
    found = next((index for index in table.describe_indices() if index.name == NAME), None)
    if found is None:
        return None
    n_rows = {fragment.fragment_id: fragment.count_rows() for fragment in table.get_fragments()}
    return VectorIndex(
        sum(n_rows.values()),
        tuple(sum(n_rows.get(number, 0) for number in segment.fragment_ids) for segment in found.segments),
        sum(segment.size_bytes or 0 for segment in found.segments),
        min(segment.created_at for segment in found.segments),
    )


def describe(tables: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The vector indexes of those ``tables`` that have one, by name, for a person: numbers and texts."""
    found = {name: read_index(table) for name, table in tables.items()}
    return {
        name: {
            "rows_indexed": index.n_indexed,
            "rows_unindexed": index.n_unindexed,
            "segments": len(index.segments),
            "bytes": index.n_bytes,
            "built_at": index.built_at.isoformat(timespec="milliseconds"),
        }
        for name, index in found.items()
        if index is not None
    }


def find_damage(table: Any, n_probes: int = 1) -> str | None:
    """One line that says why a search cannot read the vector index of ``table``: files of it are lost or damaged. None
    if it can, or if there is no index.

    Args:
        n_probes: read this many partitions of each segment, beside the files' own tables of contents.
    """
    if all(index.name != NAME for index in table.describe_indices()):
        return None
    zero = np.zeros(table.schema.field(COLUMN).type.list_size, np.float32)
    near = {"column": COLUMN, "q": zero, "k": 1, "nprobes": n_probes, "metric": "dot"}
    # Twice, for an error that the engine does not explain may pass, and building an index anew may take hours.
    return _search(table, near) and _search(table, near)


def _search(table: Any, near: dict[str, Any]) -> str | None:
    """Search the vector index only. Returns why that failed, if damage may be the reason."""
    try:
        table.to_table(columns=["_distance"], nearest=near, fast_search=True)
    except BaseException as error:  # a damaged page makes Lance's own code panic, which is no Exception
        if not engine_errors.is_damage(error):
            raise  # such as a store that does not answer
        return engine_errors.tidy(str(error))[:300]
    return None


# --- what to do -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Step:
    """A change of a vector index, to be made by ``make_step``."""

    name: str
    """Of the table."""
    n_partitions: int | None
    """Of an index that is built; None where one is extended ..."""
    n_merged: int
    """... and merges this many of its newest segments into the new one."""
    n_rows: int
    """That are read."""

    @property
    def verb(self) -> str:
        if self.n_partitions is not None:
            return "built"
        return "extended" if self.n_rows else "merged"


def can_have_index(table: Any) -> bool:
    """Whether the engine can index vectors of this dimension: IVF_RQ takes multiples of 8 only."""
    return bool(table.schema.field(COLUMN).type.list_size % 8 == 0)


def plan_step(name: str, table: Any, *, all_rows: bool = False) -> Step | None:
    """What the vector index of a table needs; None where it needs nothing.

    Args:
        all_rows: cover the new rows, however few they are.
    """
    n_rows = table.count_rows()
    if name not in PARTITIONS or not can_have_index(table):
        return None
    index = read_index(table)
    if n_rows >= VECTORS_TO_INDEX:
        trained_for = None if index is None else count_trained(name, len(table.get_ivf_model(NAME).centroids))
        if trained_for is None or n_rows >= GROWTH_TO_TRAIN * max(trained_for, VECTORS_TO_INDEX / 2):
            return Step(name, count_partitions(name, n_rows), 0, n_rows)
    if index is None:
        return None
    n_new = index.n_unindexed
    if n_new <= (0 if all_rows else min(MAX_UNINDEXED_SHARE * n_rows, MAX_UNINDEXED)):
        n_new = 0
    n_merged = _count_merged(index.segments, n_new)
    return Step(name, None, n_merged, n_new) if n_new or n_merged else None


def _count_merged(segments: tuple[int, ...], n_new: int) -> int:
    """How many of the newest segments are merged into the one that covers ``n_new`` rows more."""
    n_merged, n_collected = 0, n_new
    while n_merged < len(segments):
        newest = segments[-1 - n_merged]
        left = len(segments) - n_merged + (n_new > 0)
        if newest >= MERGE_RATIO * n_collected and left <= MAX_SEGMENTS:
            break
        n_merged, n_collected = n_merged + 1, n_collected + newest
    return n_merged if n_new or n_merged > 1 else 0


def count_partitions(name: str, n_rows: int) -> int:
    """The number of partitions for a table of ``n_rows``: as the square root up to a million rows. Beyond, it grows by
    an eighth of ``PARTITIONS`` for every factor of ten, so that building takes time proportional to the rows."""
    most = PARTITIONS[name]
    millions = n_rows / 1e6
    return max(1, round(most * (math.sqrt(millions) if millions <= 1 else 1 + math.log10(millions) / 8)))


def count_trained(name: str, n_partitions: int) -> float:
    """The number of rows for which ``n_partitions`` is right."""
    share = n_partitions / PARTITIONS[name]
    return 1e6 * float(share**2 if share <= 1 else 10 ** (8 * (share - 1)))


@dataclass(frozen=True)
class Done:
    """A step that was made."""

    table: str
    done: str
    """``built``, ``extended`` or ``merged``."""
    n_rows: int
    """New in the index."""
    seconds: float


# --- doing it ---------------------------------------------------------------------------------------------------------


def find_limits(table: Any, step: Step) -> Limits:
    """Several times what was measured (``jobs/bench/RESULTS.md``), and a share of the memory that there is."""
    dimension = table.schema.field(COLUMN).type.list_size
    index = None if step.n_partitions else read_index(table)
    n_rows = step.n_rows + (0 if index is None else sum(index.segments[len(index.segments) - step.n_merged :]))
    sample_bytes = ROWS_PER_PARTITION * (step.n_partitions or 0) * dimension * 6
    seconds = LEAST_S + SECONDS_A_NUMBER * n_rows * dimension
    return Limits(seconds, OWN_BYTES + 3 * sample_bytes, find_available())


Make = Callable[[Any, Step, Callable[[], object]], None]
"""Makes a step on a table and commits it. What cannot be finished raises ``Unfinished``."""


class VectorUpkeep:
    """Keeps the vector indexes of one index up to date, for one run. A table whose step has failed is left alone.

    Args:
        make: makes a step on a table; by default ``make_limited``. tick: called about once a second meanwhile.
    """

    def __init__(self, make: Make | None = None, tick: Callable[[], object] = lambda: None):
        self._make, self._tick = make or make_limited, tick
        self._left_alone: set[str] = set()
        self.done: list[Done] = []
        self.problems: dict[str, str] = {}
        """By table, one line about the trouble with its index."""

    def update(self, changes: Changes, *, all_rows: bool = False) -> None:
        """Build, extend or merge the index of each table that needs it; one that cannot be read is built anew. This
        must precede compaction, which joins no fragments that different segments cover.

        Args:
            all_rows: cover the new rows, however few they are.
        """
        for name in PARTITIONS:
            if name not in changes.versions or name in self._left_alone:
                continue
            damage = find_damage(changes.open(name))
            if damage is None:
                self._update_table(changes, name, all_rows=all_rows)
                if name in self._left_alone:  # perhaps since a partition is damaged
                    damage = find_damage(changes.open(name), ALL_PARTITIONS)
            if damage is not None:
                changes.make("drop index", name, drop_index)
                self.build_anew(changes, name, damage)

    def build_anew(self, changes: Changes, name: str, damage: str) -> None:
        """Build the index of a table that has been dropped because of ``damage``, if the table has enough rows."""
        self._left_alone.discard(name)
        done = self._update_table(changes, name, all_rows=True)
        if name not in self._left_alone:
            what = "built anew" if done else "dropped, searches scan"
            self.problems[name] = f"the vector index of `{name}` could not be read and was {what}: {damage}"

    def _update_table(self, changes: Changes, name: str, *, all_rows: bool) -> bool:
        """Returns whether anything was done."""
        table = changes.open(name)
        if not can_have_index(table) and table.count_rows() >= VECTORS_TO_INDEX:
            self._leave_alone(name, explain_dimension(name, table.schema.field(COLUMN).type.list_size))
        step = plan_step(name, table, all_rows=all_rows)
        if step is None:
            return False
        has_index = read_index(table) is not None
        began = time.monotonic()
        try:
            changes.make("vectors", name, partial(self._take, step=step))
        except Unfinished as error:
            self._leave_alone(name, f"{_explain_failure(step, has_index=has_index)}: {error}")
            return False
        self.done.append(Done(name, step.verb, step.n_rows, round(time.monotonic() - began, 3)))
        return True

    def _leave_alone(self, name: str, why: str) -> None:
        self._left_alone.add(name)
        self.problems[name] = why

    def _take(self, table: Any, step: Step) -> Any:
        try:
            self._make(table, step, self._tick)
        except Unfinished:
            if open_version(table.uri).version == table.version:
                raise
            # It was stopped after its commit.
        return open_version(table.uri)


def explain_dimension(name: str, dimension: int) -> str:
    return (
        f"`{name}` can have no vector index, searches scan: its vectors have {dimension} numbers, and the engine"
        " indexes multiples of 8"
    )


def _explain_failure(step: Step, *, has_index: bool) -> str:
    if not has_index:
        return f"the vector index of `{step.name}` could not be built, searches scan"
    verb = "built anew" if step.n_partitions is not None else step.verb
    return f"the vector index of `{step.name}` could not be {verb}; it stays as it was, searches scan newer rows"


def drop_index(table: Any) -> Any:
    """``table`` without its vector index, whose files need not be there."""
    table.drop_index(NAME)
    return table


def make_limited(table: Any, step: Step, tick: Callable[[], object] = lambda: None) -> None:
    """Make a step in a process of its own.

    Raises:
        Unfinished: it failed, or took too long or too much memory.
    """
    values = {"uri": table.uri, "version": table.version, "n_partitions": step.n_partitions, "n_merged": step.n_merged}
    call_limited(make_step, values, find_limits(table, step), tick, FRUGAL)


def make_here(
    table: Any, step: Step, tick: Callable[[], object] = lambda: None, failpoint: Failpoint = lambda step: None
) -> None:
    """Make a step in this process, without limits."""
    make_step(table.uri, table.version, step.n_partitions, step.n_merged, failpoint)
