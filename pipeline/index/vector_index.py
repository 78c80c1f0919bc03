"""The vector indexes, by which a search need not read every vector: how they are, and what they need.

A vector index (``IVF_RQ``, one bit a number, by dot product) holds about D / 8 + 15 bytes a row. It has *segments*: one
over the rows that were there when it was built, and one for each time it was extended. Rows that no segment covers are
scanned by each search, so new rows are found at once. ``vector_upkeep`` makes the changes.

The number of partitions tells for how many rows they were trained, so nothing else need be stored.
"""

import datetime as dt
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.index import engine_errors
from pipeline.index.vector_build import COLUMN as COLUMN
from pipeline.index.vector_build import NAME as NAME
from pipeline.index.vector_build import ROWS_PER_SHARD

VECTORS_TO_INDEX = 10_000
"""From this many rows on, a table gets a vector index: fewer are scanned as fast."""

INDEXED = ("clips", "pools")
"""The tables that get one."""

PARTITIONS = 128
"""Of a million rows. Fewer are built, and read as a whole, in less time; a question to ``pools`` reads all of them, and
one to ``clips`` mostly has to."""

GROWTH_TO_TRAIN = 4
"""The partitions are trained again once a table has this many times the rows that they were trained for."""

MAX_SEGMENTS = 8
MERGE_RATIO = 4
"""Segments are merged into a new one while they have less than this many times the rows collected so far. So each row
is copied a few times, however often a table grows."""

MAX_UNINDEXED_SHARE, MAX_UNINDEXED = 0.05, 5_000
"""A run extends an index that leaves out more rows, or a larger share of them."""


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
    if name not in INDEXED or not can_have_index(table):
        return None
    index = read_index(table)
    if n_rows >= VECTORS_TO_INDEX:
        trained_for = None if index is None else count_trained(len(table.get_ivf_model(NAME).centroids))
        if trained_for is None or n_rows >= GROWTH_TO_TRAIN * max(trained_for, VECTORS_TO_INDEX / 2):
            return Step(name, count_partitions(n_rows), 0, n_rows)
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
        ratio = 1 if newest >= ROWS_PER_SHARD else MERGE_RATIO  # large ones are searched side by side
        if newest >= ratio * n_collected and left <= MAX_SEGMENTS:
            break
        n_merged, n_collected = n_merged + 1, n_collected + newest
    return n_merged if n_new or n_merged > 1 else 0


def count_partitions(n_rows: int) -> int:
    """The number of partitions for a table of ``n_rows``: as the square root up to a million rows. Beyond, it grows by
    an eighth of ``PARTITIONS`` for every factor of ten, so that building takes time proportional to the rows."""
    millions = n_rows / 1e6
    return max(1, round(PARTITIONS * (math.sqrt(millions) if millions <= 1 else 1 + math.log10(millions) / 8)))


def count_trained(n_partitions: int) -> float:
    """The number of rows for which ``n_partitions`` is right."""
    share = n_partitions / PARTITIONS
    return 1e6 * float(share**2 if share <= 1 else 10 ** (8 * (share - 1)))
