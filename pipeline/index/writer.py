"""Commits of batches to an index, and recovery of what a crash left half done.

An index has four data tables (``frames``, ``pools``, ``clips``, ``files``) and a journal (``batches``). Lance keeps
versions of each table, but cannot commit to several at once. So the driver publishes whole batches in this order:

1. Workers have written frames and pools as fragments, which belong to no version of their table yet.
2. The driver commits to one data table after the other: it deletes the rows that the batches replace, and appends the
   new ones. Readers do not look at these versions yet.
3. It inserts one row for each batch into the journal, in one insert. The rows name the new version of each data table.
   **This insert is the commit point**: of two writers that insert the same ``seq``, the second gets an error.
4. It tags the published versions, so that no clean-up deletes them.

Readers open the versions that the newest journal row names, so they never see half a batch. A writer begins by taking
each table back to its published version: what a crashed run committed after the newest journal row disappears, and
Lance's clean-up deletes the files. Before each commit, the writer checks that the table is at the version where it left
it. If not, another run writes here: this one stops, and nothing of its batches is published.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import lance
import pyarrow as pa
import pyarrow.compute as pc
from lance.commit import CommitConflictError
from lance.fragment import FragmentMetadata

from pipeline import schema
from pipeline.errors import CommitConflict
from pipeline.index import journal
from pipeline.index.changes import Changes, conflict
from pipeline.index.handle import describe_generation
from pipeline.index.journal import Failpoint, Published, table_uri
from pipeline.index.tables import FRAGMENTS_BETWEEN, compact

_SQL_TYPES = {pa.float64(): "Float64", pa.timestamp("us"): "Timestamp(Microsecond, None)"}
"""The types that a metadata column may be widened to: see ``corpus.metadata_types``."""

_PREFIX = "published-"

KEEP_VERSIONS = 20
"""This many published versions of an index stay readable, whatever their age."""


@dataclass(frozen=True)
class Batch:
    """What becomes visible together: the files that one task decoded, or that need no decoding.

    ``files`` and ``clips`` have the columns of their tables but ``batch_id``, which the writer adds. The fragments in
    ``frame_fragments`` (JSON) are in order: the rows of one audio are contiguous. ``pool_fragments`` have the pools of
    the same frames.

    First the rows that the batch replaces are deleted: ``drop_files`` are ids of files whose rows in ``files`` and
    ``clips`` are deleted, ``drop_frames`` ids of audio whose rows in ``frames`` and ``pools`` are. ``keep_clips`` are
    ids of files that keep their clips. After the append, what this batch wrote for the audio in ``orphaned`` is
    deleted: that audio failed later, or another batch of the same commit has written it too.
    """

    batch_id: str
    files: pa.Table
    clips: pa.Table
    frame_fragments: Sequence[str] = ()
    drop_files: frozenset[str] = frozenset()
    drop_frames: frozenset[str] = frozenset()
    orphaned: frozenset[str] = frozenset()
    keep_clips: frozenset[str] = frozenset()
    kind: Literal["index", "metadata"] = "index"
    """``metadata``: rows of files that are there, with other values in the user's columns."""
    precision: str | None = None
    seconds: float | None = None
    """Seconds that the run spent on it; None if nothing was decoded."""
    pool_fragments: Sequence[str] = ()

    @property
    def n_frames(self) -> int:
        """Frame rows that it adds: those of each content once, however many of its files hold it; none by copies."""
        if not self.frame_fragments:
            return 0
        rows = self.files.filter(pc.equal(self.files["status"], "indexed")).select(["audio_id", "n_frames"])
        n_frames = {row["audio_id"]: row["n_frames"] for row in rows.to_pylist()}
        return sum(n for audio_id, n in n_frames.items() if audio_id not in self.orphaned)

    @property
    def n_rows(self) -> int:
        """Clip and frame rows that it adds: what checkpoints are measured in."""
        return int(self.clips.num_rows + self.n_frames)

    def describe(self) -> dict[str, Any]:
        """The counts that its journal row carries; ``audio_s`` is the sum over its indexed files."""
        indexed = self.files.filter(pc.equal(self.files["status"], "indexed"))
        contents = dict(zip(indexed["audio_id"].to_pylist(), indexed["duration_s"].to_pylist(), strict=True))
        return {
            "detail": {"encoded_s": sum(contents.values())} if self.seconds is not None else {},
            "n_files": self.files.num_rows,
            "n_failed": pc.sum(pc.equal(self.files["status"], "failed")).as_py() or 0,
            "n_clips": self.clips.num_rows,
            "n_frames": self.n_frames,
            "audio_s": pc.sum(indexed["duration_s"]).as_py() or 0.0,
            "seconds": self.seconds,
            "precision": self.precision,
        }


class Writer:
    """The one writer of an index, for a run. Opening it recovers what a crashed run left unfinished."""

    def __init__(self, path: str | Path, run_id: str, *, failpoint: Failpoint = lambda step: None):
        self.path, self.run_id, self.failpoint = path, run_id, failpoint
        # The journal stays open at the version read here: a row that another writer inserts later makes ours conflict.
        self.journal = journal.open_journal(path)
        found = describe_generation(path, self.journal)
        index_format, self.published = found.format, journal.newest(self.journal)
        self._versions = {name: self._recover(name) for name in self.published.versions}
        self.n_commits = journal.count_commits(self.journal)
        """Commits of batches since the tables were last optimised."""
        self._tags = Tags(path, failpoint)
        self._tags.add(self.published)  # the run before may have died between its last publication and its tags
        if index_format < journal.FORMAT:
            with self.changes() as changes:
                failpoint("migrate batches")
                journal.complete(self.journal)
                if journal.newest(self.journal).seq != self.published.seq:
                    raise conflict(path, "batches")
                changes.complete_files()
                self.publish("migrate", changes, {"format": journal.FORMAT})

    def _recover(self, name: str) -> int:
        """Take a table back to its published version; returns the version that then holds this state."""
        version = self.published.versions[name]
        if lance.dataset(table_uri(self.path, name)).version == version:
            return version
        self.failpoint(f"recover {name}")
        dataset = lance.dataset(table_uri(self.path, name), version=version)
        dataset.restore()
        return int(dataset.version)

    @contextmanager
    def changes(self) -> Iterator[Changes]:
        """Changes that ``publish`` then publishes.

        Raises:
            CommitConflict: another writer interfered, which Lance reports by several errors.
        """
        try:
            yield Changes(self.path, self._versions, self.failpoint)
        except (OSError, ValueError, RuntimeError, CommitConflictError) as error:
            latest = journal.find(self.path)
            if latest is None or journal.newest(latest).seq != self.published.seq:
                raise CommitConflict(
                    f"{self.path}: another run published meanwhile; this one stops, what it published stays"
                ) from error
            raise

    def commit(self, batches: Sequence[Batch]) -> Published:
        """Publish ``batches`` whole, or raise and publish nothing.

        Raises:
            CommitConflict: another writer changed the index since this one opened it.
        """
        drop_files = {file_id for batch in batches for file_id in batch.drop_files}
        drop_clips = {file_id for batch in batches for file_id in batch.drop_files - batch.keep_clips}
        drop_frames = {audio_id for batch in batches for audio_id in batch.drop_frames}
        with self.changes() as changes:
            written = {
                "frames": [text for batch in batches for text in batch.frame_fragments],
                "pools": [text for batch in batches for text in batch.pool_fragments],
            }
            for name in ("frames", "pools"):
                if name not in changes.versions:
                    continue
                changes.delete(name, {"audio_id": drop_frames})
                changes.append(name, [FragmentMetadata.from_json(text) for text in written[name]])
                for batch in batches:  # what another batch wrote of the same audio, for a file that holds it, stays
                    changes.delete(name, {"audio_id": set(batch.orphaned), "batch_id": {batch.batch_id}})
            changes.delete("clips", {"file_id": drop_clips})
            changes.append_rows("clips", [_stamp(batch.clips, batch.batch_id) for batch in batches])
            changes.delete("files", {"file_id": drop_files})
            changes.append_rows("files", [_stamp(batch.files, batch.batch_id) for batch in batches])
            kind = "metadata" if all(batch.kind == "metadata" for batch in batches) else "index"
            published = self._publish(kind, changes, [(batch.batch_id, batch.describe()) for batch in batches])
            self.n_commits += 1
            return published

    def add_columns(self, columns: pa.Schema) -> Published:
        """Give ``files`` and ``clips`` metadata columns: new ones hold null, others get another type of number or time.

        Args:
            columns: those that are new, or have another type than before.
        """
        with self.changes() as changes:
            for name in ("files", "clips"):
                old = changes.open(name).schema
                changes.add_columns("columns", name, [column for column in columns if column.name not in old.names])
                for column in columns:
                    if column.name in old.names and old.field(column.name).type != column.type:
                        changes.make("widen", name, partial(_widen, column=column), n_commits=3)
            detail = {"columns": {column.name: str(column.type) for column in columns}}
            return self.publish("columns", changes, detail) if changes.any else self.published

    def configure(self, values: dict[str, Any], mounts: Sequence[str] = ()) -> Published:
        """Keep the configuration of this run, for later ones, unless it is that of the run before.

        Args:
            mounts: the mount points that the files of the corpus lie on.
        """
        with self.changes() as changes:
            now = describe_generation(self.path, self.journal)
            if now.config == values and now.mounts == list(mounts):
                return self.published
            return self.publish("configure", changes, {"config": values, "mounts": list(mounts)})

    def publish(self, kind: str, changes: Changes, detail: dict[str, Any] | None = None) -> Published:
        """Publish changes that belong to no batch, by one journal row of this kind."""
        batch_id = schema.digest(kind, self.run_id, str(self.published.seq + 1))
        return self._publish(kind, changes, [(batch_id, {"detail": detail or {}})])

    def _publish(self, kind: str, changes: Changes, batches: list[tuple[str, dict[str, Any]]]) -> Published:
        """Insert the journal rows, each with its ``batch_id`` and further columns."""
        self.failpoint("publish")
        seq = self.published.seq
        rows = [
            journal.make_row(seq + k, batch_id, self.run_id, kind, changes.versions, **columns)
            for k, (batch_id, columns) in enumerate(batches, start=1)
        ]
        journal.publish(self.journal, rows)
        self._versions = dict(changes.versions)
        self.published = Published(seq + len(rows), rows[-1]["batch_id"], dict(changes.versions))
        self._tags.add(self.published)
        if len(self.journal.get_fragments()) > FRAGMENTS_BETWEEN:
            self.compact_journal()
        return self.published

    def compact_journal(self) -> None:
        self.failpoint("compact batches")
        compact(self.journal)
        if journal.newest(self.journal).seq != self.published.seq:
            raise conflict(self.path, "batches")


class Tags:
    """Keeps tags on the newest ``KEEP_VERSIONS`` published versions of each table of an index."""

    def __init__(self, path: str | Path, failpoint: Failpoint) -> None:
        self._path, self._failpoint = path, failpoint
        self._names: dict[str, list[str]] = {}
        """By table, the names of its tags, oldest first."""

    def add(self, published: Published) -> None:
        """Tag the versions of ``published``, and remove the oldest tags beyond ``KEEP_VERSIONS``."""
        for name, version in published.versions.items():
            tags = lance.dataset(table_uri(self._path, name), version=version).tags
            if name not in self._names:
                self._names[name] = sorted(tag for tag in tags.list() if tag.startswith(_PREFIX))
            known = self._names[name]
            tag = f"{_PREFIX}{published.seq:012d}"
            if tag not in known:
                self._failpoint("tag")
                tags.create(tag, version)
                known.append(tag)
            while len(known) > KEEP_VERSIONS:
                tags.delete(known[0])
                del known[0]


def _widen(table: Any, column: pa.Field) -> Any:
    """``table`` with a column in another type, in three commits; Lance drops an index on it."""
    wide = f"{column.name} (wide)"
    table.add_columns({wide: f"arrow_cast(`{column.name}`, '{_SQL_TYPES[column.type]}')"})
    table.drop_columns([column.name])
    table.alter_columns({"path": wide, "name": column.name})
    return table


def _stamp(rows: pa.Table, batch_id: str) -> pa.Table:
    return rows.append_column(
        pa.field("batch_id", schema.ID, nullable=False), pa.repeat(pa.scalar(batch_id), len(rows))
    )
