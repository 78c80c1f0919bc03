"""Keeping an index fast and small: indexes, compaction, and the clean-up of old versions."""

import datetime as dt
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import lance

from pipeline.config import StoreConfig
from pipeline.errors import UsageError
from pipeline.index import engine_errors, journal, vector_index
from pipeline.index.backfill import add_pools
from pipeline.index.changes import Changes
from pipeline.index.handle import Generation, Handle, drop_former_generations, open_index
from pipeline.index.journal import Failpoint, Published, table_uri
from pipeline.index.lease import Lease
from pipeline.index.scalar_indexes import drop_damaged, extend_indexes, find_damaged
from pipeline.index.search_settings import ALL_PARTITIONS
from pipeline.index.settings import known_values
from pipeline.index.tables import FRAGMENTS_BETWEEN, compact, small_fragments
from pipeline.index.vector_upkeep import Done, VectorUpkeep, drop_index
from pipeline.index.writer import Writer
from pipeline.index.writer_errors import plain_errors

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
        extend_indexes(changes)
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
        lost = drop_damaged(changes)
        vectors.update(changes, all_rows=True)
        for name in changes.versions:
            _compact(changes, name, vectors)
        extend_indexes(changes)
        _publish(writer, "optimize", changes)
        writer.compact_journal()
        n_bytes = sum(_clean(writer, name, older_than) for name in changes.versions)
        writer.failpoint("clean batches")
        table = lance.dataset(table_uri(writer.path, "batches"))
        n_bytes += table.cleanup_old_versions(max(min(older_than, _A_LOOK), _NO_TIME)).bytes_removed
        writer.n_commits = 0
        done, problems = tuple(vectors.done[n_done:]), (*lost, *vectors.problems.values())
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
        drop_damaged(changes)
        for name in changes.versions:
            if vector_index.find_damage(changes.open(name), ALL_PARTITIONS) is not None:
                changes.make("drop index", name, drop_index)
        return _publish(writer, "maintain", changes)


def drop_lost_indexes(writer: Writer) -> list[str]:
    """Drop the scalar indexes that have lost a file, before a run meets them; ``refresh_indexes`` builds them anew.

    Returns:
        One line on each.
    """
    with writer.changes() as changes:
        lost = drop_damaged(changes)
        _publish(writer, "maintain", changes)
    return lost


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


def unreadable_indexes(table: Any) -> list[str]:
    """The names of the indexes of a table that cannot answer a query, since a file of theirs is lost or damaged."""
    names = list(find_damaged(table))
    is_lost = vector_index.find_damage(table, ALL_PARTITIONS) is not None
    return [*names, vector_index.NAME] if is_lost else names
