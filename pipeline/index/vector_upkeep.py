"""Keeps vector indexes up to date: builds, extends and merges them, and builds lost ones anew.

Every change is one version of the table, which a publication then shows to readers. It is made in a process of its own,
since the engine's training may never end.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from pipeline.index import vector_index
from pipeline.index.changes import Changes
from pipeline.index.limited import Limits, Unfinished, call_limited
from pipeline.index.memory import find_available
from pipeline.index.search_settings import ALL_PARTITIONS
from pipeline.index.vector_build import COLUMN, FRUGAL, NAME, ROWS_PER_PARTITION, make_step, open_version
from pipeline.index.vector_index import INDEXED, Step, can_have_index, find_damage, plan_step, read_index

LEAST_S, SECONDS_A_NUMBER = 120.0, 4e-7
"""How long a step may take: this, and so much for each number of a vector that it reads. A million vectors of 1,024
numbers took 25 to 46 CPU seconds: ten times that, for the machine may be busy or its store slow, are seven minutes."""

OWN_BYTES = 4 * 10**9
"""Memory that a step may take beside the sample that partitions are trained on: twice what was measured."""


@dataclass(frozen=True)
class Done:
    """A step that was made."""

    table: str
    done: str
    """``built``, ``extended`` or ``merged``."""
    n_rows: int
    """New in the index."""
    seconds: float


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
    """Keeps the vector indexes of one index up to date, for one run. A table whose step has failed is left alone until
    ``begin_anew``.

    Args:
        make: makes a step on a table; by default ``make_limited``. tick: called about once a second meanwhile.
    """

    def __init__(self, make: Make | None = None, tick: Callable[[], object] = lambda: None):
        self._make, self._tick = make or make_limited, tick
        self._left_alone: set[str] = set()
        self.done: list[Done] = []
        self.problems: dict[str, str] = {}
        """By table, one line about the trouble with its index."""

    def begin_anew(self) -> None:
        """Try the tables again that are left alone: what fails in the middle of a run, whose encoders take the memory,
        may succeed at its end."""
        for name in self._left_alone:
            del self.problems[name]
        self._left_alone.clear()

    def update(self, changes: Changes, *, all_rows: bool = False) -> None:
        """Build, extend or merge the index of each table that needs it; one that cannot be read is built anew. This
        must precede compaction, which joins no fragments that different segments cover.

        Args:
            all_rows: cover the new rows, however few they are.
        """
        for name in INDEXED:
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
        if not can_have_index(table) and table.count_rows() >= vector_index.VECTORS_TO_INDEX:
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
