"""Keeping an index fast and small: indexes, compaction, and the clean-up of old versions."""

import datetime as dt
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import lance
import pyarrow as pa
import pyarrow.compute as pc

from pipeline import schema
from pipeline.config import StoreConfig
from pipeline.errors import UsageError
from pipeline.index import engine_errors, journal, vector_index
from pipeline.index.backfill import add_pools
from pipeline.index.changes import Changes
from pipeline.index.handle import Generation, Handle, drop_former_generations, open_index
from pipeline.index.journal import Failpoint, Published, table_uri
from pipeline.index.lease import Lease
from pipeline.index.search_settings import ALL_PARTITIONS
from pipeline.index.settings import known_values
from pipeline.index.tables import FRAGMENTS_BETWEEN, compact, small_fragments
from pipeline.index.vector_upkeep import Done, VectorUpkeep, drop_index
from pipeline.index.writer import Writer
from pipeline.index.writer_errors import plain_errors

SCALAR_INDEXES = {
    "files": ("file_id", "audio_id"),
    "clips": ("clip_id", "file_id", "audio_id"),
    "frames": ("audio_id", "begins"),
    "pools": ("audio_id",),
}
"""The columns with indexes, of the tables that there are. Tables of older formats may lack some of the columns."""

ROWS_TO_INDEX = 20_000
"""From this many rows on, metadata columns get indexes: fewer rows are read as fast without."""

FEW_VALUES = 1_000
"""Up to this many different values, a bitmap index is the faster one."""

MAX_HOURS = 1_000_000
"""The largest ``keep_hours``: more than a century."""

_A_LOOK = dt.timedelta(minutes=10)
"""How long a reader may need a version of the journal: it reads it at once, then only the tables that it names."""

_NO_TIME = dt.timedelta(microseconds=1)  # Lance takes 0 for "not given"


@dataclass(frozen=True)
class Optimized:
    """What an optimisation did: fragments of all tables before and after, and bytes of files deleted."""

    n_fragments_before: int
    n_fragments: int
    n_bytes_deleted: int
    vector_indexes: tuple[Done, ...] = ()
    problems: tuple[str, ...] = ()
    """What could not be done, one line each."""


def optimize_index(
    path: str,
    keep_hours: float | None = None,
    failpoint: Failpoint = lambda step: None,
    vectors: VectorUpkeep | None = None,
) -> Optimized:
    """Make pools where an older version made none, merge small fragments, extend the indexes, and delete old versions
    that nobody needs.

    Args:
        keep_hours: versions superseded more recently stay; by default as configured.
        vectors: as in ``optimize``.

    Raises:
        EarshotError: see ``pipeline.errors``.
    """
    if keep_hours is not None and not 0 <= keep_hours < MAX_HOURS:
        raise UsageError(f"keep_hours {keep_hours}: expected 0 to {MAX_HOURS:,}")
    with write_alone(path, failpoint) as (index, writer):
        hours = _stored_limits(index.live).keep_hours if keep_hours is None else keep_hours
        older_than = dt.timedelta(hours=hours)
        add_pools(writer)
        done = optimize(writer, older_than=older_than, vectors=vectors)
        drop_former_generations(index, older_than)
        return done


@contextmanager
def write_alone(path: str, failpoint: Failpoint = lambda step: None) -> Iterator[tuple[Handle, Writer]]:
    """The index at ``path`` and its writer, outside of a run, with a lease."""
    index = open_index(path)  # first: a lease would make the folder of an index that does not exist
    run_id = uuid.uuid4().hex
    with plain_errors(path), Lease(path, run_id):
        index = index.refresh()
        yield index, Writer(index.live.path, run_id, failpoint=failpoint)


def _stored_limits(live: Generation) -> StoreConfig:
    """What the configuration of the newest run says about how long versions are kept."""
    return StoreConfig(**known_values(live.config["store"], StoreConfig)) if live.config else StoreConfig()


def refresh_indexes(writer: Writer, vectors: VectorUpkeep | None = None) -> Published:
    """Create the indexes, or extend them to the rows written since.

    Where many small fragments of a table without frames have come together, merge them first: that is cheap.

    Args:
        vectors: as in ``optimize``.
    """
    vectors = vectors or VectorUpkeep()
    with writer.changes() as changes:
        vectors.update(changes)
        for name in [name for name in changes.versions if name != "frames"]:
            if len(small_fragments(changes.open(name))) > FRAGMENTS_BETWEEN:
                _compact(changes, name, vectors)
        _extend_indexes(changes)
        return _publish(writer, "maintain", changes)


def optimize(writer: Writer, *, older_than: dt.timedelta, vectors: VectorUpkeep | None = None) -> Optimized:
    """Merge small fragments, extend the indexes, and delete old versions that nobody can need.

    Tagged versions stay, whatever their age. Versions that were never published are deleted at once, since no reader
    can hold them. Files that no version names stay until they are a week old, since a run may be about to commit them.
    Merging and indexing follow each other and never overlap.

    Args:
        older_than: delete versions superseded longer ago than this: readers may still hold younger ones.
        vectors: makes the vector indexes, and notes what it could not do; by default a new one.

    Raises:
        CommitConflict: another writer changed the index since this one opened it.
    """
    vectors = vectors or VectorUpkeep()
    with writer.changes() as changes:
        n_before, n_done = _count_fragments(changes), len(vectors.done)
        vectors.update(changes, all_rows=True)
        for name in changes.versions:
            _compact(changes, name, vectors)
        _extend_indexes(changes)
        _publish(writer, "optimize", changes)
        writer.compact_journal()
        n_bytes = sum(_clean(writer, name, older_than) for name in changes.versions)
        writer.failpoint("clean batches")
        table = lance.dataset(table_uri(writer.path, "batches"))
        n_bytes += table.cleanup_old_versions(max(min(older_than, _A_LOOK), _NO_TIME)).bytes_removed
        writer.n_commits = 0
        done, problems = tuple(vectors.done[n_done:]), tuple(vectors.problems.values())
        return Optimized(n_before, _count_fragments(changes), n_bytes, done, problems)


def _compact(changes: Changes, name: str, vectors: VectorUpkeep) -> None:
    """Merge the small fragments of a table. That reads all of its vector index: one with a damaged partition, which
    ``VectorUpkeep.update`` need not have met, is dropped and built anew."""
    damage = list[str]()
    changes.make("compact", name, partial(_compact_or_drop_index, damage=damage), n_commits=2)
    if damage:
        changes.make("compact", name, compact, n_commits=2)
        vectors.build_anew(changes, name, damage[0])


def _compact_or_drop_index(table: Any, damage: list[str]) -> Any:
    """Merge fragments, or drop the vector index that prevents it and say why. Makes two versions either way."""
    before = table.version
    try:
        return compact(table)
    except BaseException as error:
        now = lance.dataset(table.uri)
        is_begun = now.version == before + 1  # it has reserved the numbers of fragments
        if not (is_begun and engine_errors.is_damage(error)):
            raise
        why = vector_index.find_damage(now, ALL_PARTITIONS)
        if why is None:
            raise
        damage.append(why)
        return drop_index(now)


def drop_unreadable_indexes(writer: Writer) -> Published:
    """Drop the indexes that have lost a file: queries that use them would fail."""
    with writer.changes() as changes:
        for name in changes.versions:
            for index in unreadable_indexes(changes.open(name)):
                changes.make("drop index", name, partial(_drop_index, name=index))
        return _publish(writer, "maintain", changes)


def _publish(writer: Writer, kind: str, changes: Changes) -> Published:
    """Publish changes that leave the rows as they are, if there are any."""
    is_published = changes.versions == writer.published.versions
    return writer.published if is_published else writer.publish(kind, changes)


def _clean(writer: Writer, name: str, older_than: dt.timedelta) -> int:
    """Delete the versions of a table that were never published, or superseded longer ago than ``older_than``. Returns
    the number of bytes."""
    writer.failpoint(f"clean {name}")
    table = lance.dataset(table_uri(writer.path, name))
    keep = journal.versions_since(writer.journal, name, dt.datetime.now(dt.UTC) - older_than)
    old = [version for version in range(1, table.version) if version not in keep]
    if not old:  # Lance takes an empty list for "not given"
        return 0
    return int(table.cleanup_old_versions(versions=old, error_if_tagged_old_versions=False).bytes_removed)


def _count_fragments(changes: Changes) -> int:
    return sum(len(changes.open(name).get_fragments()) for name in changes.versions)


def indexed_columns(table: Any, name: str) -> list[str]:
    """The columns of Earshot's own that have a scalar index, in the table ``name``."""
    return [column for column in SCALAR_INDEXES[name] if column in table.schema.names]


def unreadable_indexes(table: Any) -> list[str]:
    """The names of the indexes of a table that cannot answer a query, since a file of theirs is lost."""
    return [index.name for index in table.describe_indices() if not _answers(table, index.field_names[0])]


def _answers(table: Any, column: str) -> bool:
    if column == vector_index.COLUMN:
        return vector_index.find_damage(table, ALL_PARTITIONS) is None
    is_text = pa.types.is_string(table.schema.field(column).type)
    try:
        table.count_rows(filter=f"`{column}` = ''" if is_text else f"`{column}` IS NULL")
    except (OSError, ValueError, RuntimeError):
        return False
    return True


# --- scalar indexes ---------------------------------------------------------------------------------------------------


def _extend_indexes(changes: Changes) -> None:
    for name in changes.versions:
        table = changes.open(name)
        if table.count_rows() == 0:
            continue
        # Named, for the engine would otherwise extend all indexes, and rewrite the one on vectors.
        existing = [index.name for index in table.describe_indices() if index.name != vector_index.NAME]
        wanted = dict.fromkeys(indexed_columns(table, name), "BTREE")
        if name in ("files", "clips"):
            wanted |= _metadata_indexes(table)
        for column, kind in wanted.items():
            if f"{column}_idx" not in existing:
                changes.make("index", name, partial(_create_index, column=column, kind=kind))
        if existing:
            changes.make("index", name, partial(_extend_index, names=existing))


def _create_index(table: Any, column: str, kind: str) -> Any:
    table.create_scalar_index(f"`{column}`" if not column.isidentifier() else column, kind, name=f"{column}_idx")
    return table


def _extend_index(table: Any, names: list[str]) -> Any:
    table.optimize.optimize_indices(index_names=names)
    return table


def _drop_index(table: Any, name: str) -> Any:
    table.drop_index(name)
    return table


def _metadata_indexes(table: Any) -> dict[str, str]:
    """The kind of index for each metadata column, where there are enough rows for one to be of use."""
    columns = schema.metadata_columns(table.schema)
    if not columns.names or table.count_rows() < ROWS_TO_INDEX:
        return {}
    return {column.name: "BITMAP" if _has_few_values(table, column) else "BTREE" for column in columns}


def _has_few_values(table: Any, column: pa.Field) -> bool:
    """Whether a column has few different values, judged by a sample."""
    if pa.types.is_boolean(column.type):
        return True
    sample = table.sample(min(table.count_rows(), ROWS_TO_INDEX), columns=[column.name])
    return bool(pc.count_distinct(sample[column.name]).as_py() <= FEW_VALUES)
