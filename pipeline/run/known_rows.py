"""Rows that need no decoding: copies, changed metadata, changed times, failures and deletions."""

import pyarrow as pa

from pipeline.errors import EarshotError
from pipeline.index.clip_rows import clip_rows
from pipeline.index.tables import open_published, read_rows
from pipeline.planning.batches import group_copies, group_rows
from pipeline.planning.plan import Plan
from pipeline.run.checkpoints import Checkpoints
from pipeline.schema import Row

FILES_PER_COMMIT = 5_000

HOLDERS_AT_ONCE = 500
"""Files whose clips are read together, to be copied."""


def publish_known(plan: Plan, checkpoints: Checkpoints) -> None:
    """Publish the rows of a plan that need no decoding.

    Copies come first: a moved file copies the clips of its old row before that is deleted, and frames need an owner.
    """
    max_rows = checkpoints.config.store.checkpoint_rows
    settled: set[str] = set()
    for copies, deleted in group_copies(plan, max_rows, FILES_PER_COMMIT):
        rows = [*(row for row, _ in copies), *deleted]
        checkpoints.commit_rows(rows, _copy_clips(copies, checkpoints), uncounted=plan.examined_copies)
        settled |= {row["uri"] for row in deleted}
    for rows in group_rows(plan.metadata_changed, max_rows, FILES_PER_COMMIT):
        indexed = [(row, row["file_id"]) for row in rows if row["status"] == "indexed"]
        checkpoints.commit_rows(rows, _copy_clips(indexed, checkpoints), "metadata")
    mtime_changed = frozenset(row["file_id"] for row in plan.mtime_changed)
    deleted = [row for row in plan.deleted if row["uri"] not in settled]
    publish_without_clips([*plan.failed, *plan.mtime_changed, *deleted], checkpoints, mtime_changed)


def publish_without_clips(rows: list[Row], checkpoints: Checkpoints, keep_clips: frozenset[str] = frozenset()) -> None:
    """Publish rows of files without clips, or whose clips stay in place: those of ``keep_clips``."""
    for first in range(0, len(rows), FILES_PER_COMMIT):
        some = rows[first : first + FILES_PER_COMMIT]
        kept = keep_clips & {row["file_id"] for row in some}
        checkpoints.commit_rows(some, keep_clips=kept)


def _copy_clips(wanted: list[tuple[Row, str]], checkpoints: Checkpoints) -> pa.Table:
    """The clips of files whose content is indexed: copies of another file's clips, under new ids.

    Args:
        wanted: pairs of a row of ``files`` and the id of the file whose clips it copies.
    """
    path = checkpoints.config.into
    clips = open_published(path, "clips", checkpoints.writer.published)
    tables = [checkpoints.no_clips()]
    columns = pa.schema([column for column in tables[0].schema if column.name != "vector"])
    for first in range(0, len(wanted), HOLDERS_AT_ONCE):
        copies = wanted[first : first + HOLDERS_AT_ONCE]
        held = read_rows(clips, "file_id", {holder_id for _, holder_id in copies}, ["start_s", "vector"])
        held = held.sort_by([("file_id", "ascending"), ("start_s", "ascending")])
        where: dict[str, list[int]] = {}
        for position, file_id in enumerate(held["file_id"].to_pylist()):
            where.setdefault(file_id, []).append(position)
        rows, positions = [], list[int]()
        starts_s = held["start_s"].to_pylist()
        for row, holder_id in copies:
            clips_of = clip_rows(row, checkpoints.config.window.grid)
            if [starts_s[at] for at in where.get(holder_id, [])] != [clip["start_s"] for clip in clips_of]:
                raise EarshotError(
                    f"{path}: clips of the content of {row['uri']} are damaged; repair them by `earshot verify"
                    " INDEX --repair`"
                )
            rows += clips_of
            positions += where[holder_id]
        table = pa.Table.from_pylist(rows, schema=columns)
        table = table.append_column(clips.schema.field("vector"), held["vector"].take(pa.array(positions)))
        tables.append(table.select(tables[0].schema.names).cast(tables[0].schema))
    return pa.concat_tables(tables)
