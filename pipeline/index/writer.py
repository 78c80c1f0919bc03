"""Rows in, committed tables out: the ledger, the journal, and recovery.

An index is one LanceDB database of four tables. Only the driver commits, at checkpoints, one or
more whole batches at a time, in this order:

1. ``frames``, ``clips`` and ``files``, one after the other: delete the rows that the batches replace, then
   append the new ones; the fragments of ``frames`` have been written by workers.
2. ``batches``: insert a row for each batch, in one insert, with the versions produced.
   **This is the commit point.**

Readers open the versions that the newest journal row names, so a half-done batch is never seen.
A run begins by taking every table back to its published version: whatever a crashed run left
behind it is gone from the tables, and its fragments go with Lance's ordinary clean-up.
Before each step the driver checks that a table is where it left it. If not, someone else
writes: it stops, and nothing of the batch is published.
"""

import datetime as dt
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial, wraps
from pathlib import Path
from typing import Any, Concatenate, Literal, ParamSpec, TypeVar

import lance
import pyarrow as pa
import pyarrow.compute as pc
from lance.commit import CommitConflictError
from lance.fragment import FragmentMetadata, write_fragments

from pipeline import schema
from pipeline.errors import CommitConflict, UsageError
from pipeline.index import journal
from pipeline.index.handle import describe_generation, read_generation
from pipeline.index.journal import DATA_TABLES, Failpoint, Published, table_uri
from pipeline.index.tables import FILE_FORMAT, among, find_missing

P = ParamSpec("P")
T = TypeVar("T")

_TAG = "published-"

SCALAR_INDEXES = {
    "files": ("file_id", "audio_id"),
    "clips": ("clip_id", "file_id", "audio_id"),
    "frames": ("audio_id",),
}


_SQL_TYPES = {pa.float64(): "Float64", pa.timestamp("us"): "Timestamp(Microsecond, None)"}
"""What a column may become: see ``metadata``."""

ROWS_PER_FRAGMENT = 250_000
"""What small fragments are merged to: half a gigabyte of frames of 1,024 numbers."""

ROWS_TO_INDEX = 20_000
"""Rows from which on metadata columns have indexes: fewer are read as fast without."""

FEW_VALUES = 1_000
"""Up to so many different values, an index of bit maps is the faster one."""

ROWS_TO_COPY = 4_000
"""Rows of the fragments that are merged, on average, from which their pages are copied as they are. That is several
times as fast as writing them anew, but each page is read by itself: many of a few rows would slow down every query."""

FRAGMENTS_BETWEEN = 8
"""Small fragments of the journal, and at the end of a run of ``files`` and ``clips``, that are left unmerged."""

_A_LOOK = dt.timedelta(minutes=10)
"""How long the journal may be held open: it is read at once, and then the tables that it names."""

_NO_TIME = dt.timedelta(microseconds=1)  # Lance takes 0 for "not given"


@dataclass(frozen=True)
class Optimized:
    """What an optimisation did: fragments of all tables before and after, and bytes of files deleted."""

    n_fragments_before: int
    n_fragments: int
    n_bytes_deleted: int


@dataclass(frozen=True)
class Batch:
    """What becomes visible together: the files that one task decoded, or that need no decoding.

    ``files`` and ``clips`` have the columns of their tables without ``batch_id``, which is added here.
    ``frame_fragments`` (JSON) are ordered: the rows of one audio are contiguous. What the batch replaces goes first:
    ``drop_files`` are ids of files whose ledger and clip rows go, ``drop_frames`` ids of audio whose frame rows go.
    ``orphaned`` are ids of audio that failed after some of its frames were written, or that another batch of the same
    commit has written too: what this batch wrote of them goes after the append. ``keep_clips`` are ids of files whose
    ledger row alone is replaced.
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
    """What the run spent on it, where it was decoded and encoded."""

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


def _told_of_others(step: Callable[Concatenate["Writer", P], T]) -> Callable[Concatenate["Writer", P], T]:
    """A writer's step that says so when it fails because of another writer: Lance has many words for that."""

    @wraps(step)
    def told(writer: "Writer", /, *arguments: P.args, **options: P.kwargs) -> T:
        try:
            return step(writer, *arguments, **options)
        except (OSError, ValueError, RuntimeError, CommitConflictError) as error:
            if not journal.exists(writer.path) or journal.read_published(writer.path).seq != writer.published.seq:
                raise CommitConflict(
                    f"{writer.path}: another run published meanwhile; this one stops, what it published stays"
                ) from error
            raise

    return told


class Writer:
    """The one writer of an index. Opening it recovers what a crashed run left unfinished."""

    def __init__(
        self, path: str | Path, run_id: str, *, keep_versions: int = 20, failpoint: Failpoint = lambda step: None
    ):
        self.path, self.run_id, self.keep_versions, self._failpoint = path, run_id, keep_versions, failpoint
        self._tags: dict[str, list[str]] = {}
        """Names of the tags of each table, oldest first."""
        # The journal stays open at the version read here: a row that another writer inserts later makes ours conflict.
        self._journal = journal.open_journal(path)
        found = describe_generation(path, self._journal)
        index_format, self.published = found.format, journal.newest(self._journal)
        self._heads = {name: self._recover(name) for name in DATA_TABLES}
        self.n_commits = self._count_commits()
        """Since the tables were last optimised."""
        self._tag()  # the run before may have died between its last publication and its tags
        if index_format < journal.FORMAT:
            self._bring_up()

    def _recover(self, name: str) -> int:
        """Take a table back to its published version; returns the version that then holds this state."""
        version = self.published.versions[name]
        if lance.dataset(table_uri(self.path, name)).version == version:
            return version
        self._failpoint(f"recover {name}")
        dataset = lance.dataset(table_uri(self.path, name), version=version)
        dataset.restore()
        return int(dataset.version)

    @_told_of_others
    def _bring_up(self) -> None:
        """Bring an index of an older format up to this one."""
        heads = dict(self._heads)
        self._complete_files(heads)
        batch_id = schema.digest("migrate", self.run_id, str(journal.FORMAT))
        self._publish("migrate", [(batch_id, {"detail": {"format": journal.FORMAT}})], heads)

    def _complete_files(self, heads: dict[str, int]) -> None:
        """Give ``files`` the columns that it lacks, as it was when an older format was written."""
        there = self._open("files", heads).schema
        if missing := find_missing(self.path, there):
            self._failpoint("migrate files")
            self._step("files", heads, partial(_extended, columns=pa.schema(missing)))

    @_told_of_others
    def commit(self, batches: Sequence[Batch]) -> Published:
        """Publish ``batches`` whole, or raise and publish nothing.

        Raises:
            CommitConflict: another writer changed the index since this one opened it.
        """
        heads = dict(self._heads)
        fragments = [FragmentMetadata.from_json(text) for batch in batches for text in batch.frame_fragments]
        drop_files = {file_id for batch in batches for file_id in batch.drop_files}
        drop_frames = {audio_id for batch in batches for audio_id in batch.drop_frames}
        self._delete("frames", {"audio_id": drop_frames}, heads)
        self._append("frames", fragments, heads)
        for batch in batches:  # what another batch wrote of the same audio, for a file that holds it, stays
            self._delete("frames", {"audio_id": set(batch.orphaned), "batch_id": {batch.batch_id}}, heads)
        drop_clips = {file_id for batch in batches for file_id in batch.drop_files - batch.keep_clips}
        self._delete("clips", {"file_id": drop_clips}, heads)
        self._append_rows("clips", [_stamp(batch.clips, batch.batch_id) for batch in batches], heads)
        self._delete("files", {"file_id": drop_files}, heads)
        self._append_rows("files", [_stamp(batch.files, batch.batch_id) for batch in batches], heads)
        kind = "metadata" if all(batch.kind == "metadata" for batch in batches) else "index"
        return self._publish(kind, [(batch.batch_id, batch.describe()) for batch in batches], heads)

    @_told_of_others
    def give_up(self, fragments: dict[str, list[int]]) -> Published:
        """Take fragments out of the tables whose files are lost, so that the rows of all others can be read again.

        Args:
            fragments: by table, their numbers.
        """
        heads = dict(self._heads)
        for name in DATA_TABLES:
            if numbers := fragments.get(name):
                self._failpoint(f"give up {name}")
                self._step(name, heads, partial(_without_fragments, numbers=numbers))
        batch_id = schema.digest("give up", self.run_id, str(self.published.seq + 1))
        return self._publish("maintain", [(batch_id, {"detail": {"given_up": fragments}})], heads)

    @_told_of_others
    def add_columns(self, columns: pa.Schema) -> Published:
        """Give ``files`` and ``clips`` metadata columns: new ones hold null, others get another type of number or time.

        Args:
            columns: those that are new, or have another type than before.
        """
        heads = dict(self._heads)
        for name in ("files", "clips"):
            old = self._open(name, heads).schema
            new = pa.schema([column for column in columns if column.name not in old.names])
            if new.names:
                self._failpoint(f"columns {name}")
                self._step(name, heads, partial(_extended, columns=new))
            for column in columns:
                if column.name in old.names and old.field(column.name).type != column.type:
                    self._failpoint(f"widen {name}")
                    self._step(name, heads, partial(_widened, column=column), n_commits=3)
        if heads == self._heads:
            return self.published
        batch_id = schema.digest("columns", self.run_id)
        detail = {"columns": {column.name: str(column.type) for column in columns}}
        return self._publish("columns", [(batch_id, {"detail": detail})], heads)

    @_told_of_others
    def configure(self, values: dict[str, Any], mounts: Sequence[str] = ()) -> Published:
        """Keep the configuration of this run, for later ones, unless it is that of the run before.

        Args:
            mounts: the mount points that the files of the corpus lie on.
        """
        now = read_generation(self.path)
        if now.config == values and now.mounts == list(mounts):
            return self.published
        batch_id = schema.digest("configure", self.run_id)
        detail = {"config": values, "mounts": list(mounts)}
        return self._publish("configure", [(batch_id, {"detail": detail})], dict(self._heads))

    @_told_of_others
    def restore(self, seq: int) -> Published:
        """Go back: publish once more what the journal row ``seq`` published, and know the mount points of then again.

        Raises:
            UsageError: there is no such row, or clean-up has removed a version that it names.
        """
        rows = self._journal.to_table(filter=f"seq = {seq}").to_pylist()
        if not rows:
            raise UsageError(f"{self.path}: no batch {seq}; `earshot history {self.path}` lists them")
        heads = dict(self._heads)
        for name in DATA_TABLES:
            version = rows[0][f"{name}_version"]
            if version not in {each["version"] for each in lance.dataset(table_uri(self.path, name)).versions()}:
                raise UsageError(f"{self.path}: batch {seq} is gone: `{name}` version {version} has been cleaned up")
        for name in DATA_TABLES:
            version = rows[0][f"{name}_version"]
            if version != heads[name]:
                self._failpoint(f"restore {name}")
                self._step(name, heads, partial(_restored, version=version))
        self._complete_files(heads)
        batch_id = schema.digest("restore", self.run_id, str(self.published.seq + 1))
        detail = {"to": seq, "mounts": read_generation(self.path).mounts_until(seq)}
        return self._publish("restore", [(batch_id, {"detail": detail})], heads)

    @_told_of_others
    def drop_unreadable_indexes(self) -> Published:
        """Drop the scalar indexes of which a file is lost: questions that they answer would fail."""
        heads = dict(self._heads)
        for name in DATA_TABLES:
            for index in unreadable_indexes(self._open(name, heads)):
                self._failpoint(f"drop index {name}")
                self._step(name, heads, partial(_without_index, index=index))
        return self._publish_maintenance("maintain", heads)

    @_told_of_others
    def refresh_indexes(self) -> Published:
        """Create the scalar indexes on ids, or extend them to the rows written since.

        Where many small fragments of ``files`` or ``clips`` have come together, they are merged first: that is cheap.
        """
        heads = dict(self._heads)
        for name in ("files", "clips"):
            if len(_small_fragments(self._open(name, heads))) > FRAGMENTS_BETWEEN:
                self._failpoint(f"compact {name}")
                self._step(name, heads, _compacted, n_commits=2)
        self._extend_indexes(heads)
        return self._publish_maintenance("maintain", heads)

    @_told_of_others
    def optimize(self, *, older_than: dt.timedelta) -> Optimized:
        """Merge small fragments, extend the indexes, and delete what nobody can need any more.

        Versions that are tagged stay, whatever their age; those that were never published go at once, for no reader can
        hold them. Files that no version names stay, unless they are a week old, since a run may be about to commit
        them. Merging and indexing follow each other and never overlap.

        Args:
            older_than: versions go that were replaced so long ago: readers may still hold younger ones.

        Raises:
            CommitConflict: another writer changed the index since this one opened it.
        """
        heads = dict(self._heads)
        n_before = self._count_fragments(heads)
        for name in DATA_TABLES:
            self._failpoint(f"compact {name}")
            self._step(name, heads, _compacted, n_commits=2)  # the first reserves the numbers of fragments
        self._extend_indexes(heads)
        self._publish_maintenance("optimize", heads)
        self._merge_journal()
        n_bytes = sum(self._clean(name, older_than) for name in DATA_TABLES)
        self._failpoint("clean batches")
        table = lance.dataset(table_uri(self.path, "batches"))
        n_bytes += table.cleanup_old_versions(max(min(older_than, _A_LOOK), _NO_TIME)).bytes_removed
        self.n_commits = 0
        return Optimized(n_before, self._count_fragments(heads), n_bytes)

    def _clean(self, name: str, older_than: dt.timedelta) -> int:
        """Delete the versions of a table that were never published, and those that were replaced before that time.

        Returns:
            The number of bytes.
        """
        self._failpoint(f"clean {name}")
        table = lance.dataset(table_uri(self.path, name))
        keep = journal.versions_since(self._journal, name, dt.datetime.now(dt.UTC) - older_than)
        gone = [version for version in range(1, table.version) if version not in keep]
        if not gone:  # Lance takes that for "not given"
            return 0
        return int(table.cleanup_old_versions(versions=gone, error_if_tagged_old_versions=False).bytes_removed)

    def _merge_journal(self) -> None:
        self._failpoint("compact batches")
        _compacted(self._journal)
        if journal.newest(self._journal).seq != self.published.seq:
            raise self._conflict("batches")

    def _count_fragments(self, heads: dict[str, int]) -> int:
        return sum(len(self._open(name, heads).get_fragments()) for name in DATA_TABLES)

    def _count_commits(self) -> int:
        rows = self._journal.to_table(columns=["seq", "kind", "files_version"]).sort_by("seq").to_pylist()
        versions: set[int] = set()
        for row in rows:
            if row["kind"] == "optimize":
                versions.clear()
            elif row["kind"] in ("index", "metadata"):
                versions.add(row["files_version"])
        return len(versions)

    def _extend_indexes(self, heads: dict[str, int]) -> None:
        for name, columns in SCALAR_INDEXES.items():
            dataset = self._open(name, heads)
            if dataset.count_rows() == 0:
                continue
            self._failpoint(f"index {name}")
            existing = {index.name for index in dataset.describe_indices()}
            wanted = dict.fromkeys(columns, "BTREE") | (_metadata_indexes(dataset) if name != "frames" else {})
            for column, kind in wanted.items():
                if f"{column}_idx" not in existing:
                    self._step(name, heads, partial(_index, column=column, kind=kind))
            if existing:
                self._step(name, heads, lambda table: _after(table, table.optimize.optimize_indices))

    def _publish_maintenance(self, kind: str, heads: dict[str, int]) -> Published:
        if heads == self.published.versions:
            return self.published
        batch_id = schema.digest(kind, self.run_id, str(self.published.seq + 1))
        return self._publish(kind, [(batch_id, {})], heads)

    def _publish(self, kind: str, batches: list[tuple[str, dict[str, Any]]], heads: dict[str, int]) -> Published:
        self._failpoint("publish")
        seq = self.published.seq
        rows = [
            journal.make_row(seq + k, batch_id, self.run_id, kind, heads, **counts)
            for k, (batch_id, counts) in enumerate(batches, start=1)
        ]
        journal.publish(self._journal, rows)
        self._heads = heads
        self.n_commits += kind in ("index", "metadata")
        self.published = Published(seq + len(rows), rows[-1]["batch_id"], dict(heads))
        self._tag()
        if len(self._journal.get_fragments()) > FRAGMENTS_BETWEEN:
            self._merge_journal()
        return self.published

    def _tag(self) -> None:
        """Tag the newest published versions, so that no clean-up ever removes what readers hold."""
        for name, version in self.published.versions.items():
            tags = lance.dataset(table_uri(self.path, name), version=version).tags
            if name not in self._tags:
                self._tags[name] = sorted(tag for tag in tags.list() if tag.startswith(_TAG))
            known = self._tags[name]
            tag = f"{_TAG}{self.published.seq:012d}"
            if tag not in known:
                self._failpoint("tag")
                tags.create(tag, version)
                known.append(tag)
            while len(known) > self.keep_versions:
                tags.delete(known[0])
                del known[0]

    def _open(self, name: str, heads: dict[str, int]) -> Any:
        """The newest version of a table, which must be the one this writer left."""
        dataset = lance.dataset(table_uri(self.path, name))
        if dataset.version != heads[name]:
            raise self._conflict(name)
        return dataset

    def _step(self, name: str, heads: dict[str, int], change: Callable[[Any], Any], n_commits: int = 1) -> None:
        """One commit to a table: ``change`` returns the dataset at the version that it made, which must be the next.

        It may be the same one, where there was nothing to do.

        Args:
            n_commits: how many versions the change makes, if it makes any.
        """
        try:
            version = change(self._open(name, heads)).version
        except (OSError, CommitConflictError) as error:
            if not journal.is_conflict(error):
                raise
            raise self._conflict(name) from None
        if version not in (heads[name], heads[name] + n_commits):
            raise self._conflict(name)
        heads[name] = version

    def _conflict(self, name: str) -> CommitConflict:
        return CommitConflict(f"{self.path}: another run wrote to `{name}`; this one stops, what it published stays")

    def _append(self, name: str, fragments: list[FragmentMetadata], heads: dict[str, int]) -> None:
        if not fragments:
            return
        self._failpoint(f"append {name}")
        operation = lance.LanceOperation.Append(fragments)
        self._step(name, heads, lambda table: lance.LanceDataset.commit(table, operation, read_version=heads[name]))

    def _append_rows(self, name: str, tables: list[pa.Table], heads: dict[str, int]) -> None:
        dataset = self._open(name, heads)
        arrow_schema = dataset.schema
        rows = pa.concat_tables([_fit(table, arrow_schema) for table in tables])
        if rows.num_rows:
            fragments = write_fragments(rows, dataset.uri, mode="append", data_storage_version=FILE_FORMAT)
            self._append(name, fragments, heads)

    def _delete(self, name: str, ids: dict[str, set[str]], heads: dict[str, int]) -> None:
        """Delete the rows whose ids are among those given, column by column."""
        if all(ids.values()):
            self._failpoint(f"delete {name}")
            where = " AND ".join(among(column, chosen) for column, chosen in ids.items())
            self._step(name, heads, lambda table: _after(table, table.delete, where))


def _after(table: Any, change: Callable[..., Any], *arguments: Any) -> Any:
    """``table``, changed in place."""
    change(*arguments)
    return table


def _compacted(table: Any) -> Any:
    """``table`` with its small fragments merged, in order, and rows that were deleted gone from its files."""
    small = _small_fragments(table)
    table.optimize.compact_files(
        target_rows_per_fragment=ROWS_PER_FRAGMENT,
        compaction_mode="try_binary_copy" if sum(small) > ROWS_TO_COPY * len(small) else "reencode",
        data_storage_version=FILE_FORMAT,
    )
    return table


def _small_fragments(table: Any) -> list[int]:
    """The numbers of rows of those fragments that could be merged."""
    return [n for fragment in table.get_fragments() if (n := fragment.count_rows()) < ROWS_PER_FRAGMENT]


def unreadable_indexes(table: Any) -> list[str]:
    """The names of the scalar indexes of a table that cannot answer a question, since a file of theirs is lost."""
    return [index.name for index in table.describe_indices() if not _answers(table, index.field_names[0])]


def _answers(table: Any, column: str) -> bool:
    is_text = pa.types.is_string(table.schema.field(column).type)
    try:
        table.count_rows(filter=f"`{column}` = ''" if is_text else f"`{column}` IS NULL")
    except (OSError, ValueError, RuntimeError):
        return False
    return True


def _index(table: Any, column: str, kind: str) -> Any:
    table.create_scalar_index(f"`{column}`" if not column.isidentifier() else column, kind, name=f"{column}_idx")
    return table


def _metadata_indexes(table: Any) -> dict[str, str]:
    """The kind of index for each metadata column, where there are rows enough for one to be of use."""
    columns = schema.metadata_columns(table.schema)
    if not columns.names or table.count_rows() < ROWS_TO_INDEX:
        return {}
    return {column.name: "BITMAP" if _has_few_values(table, column) else "BTREE" for column in columns}


def _has_few_values(table: Any, column: pa.Field) -> bool:
    """Whether a column has few different values, as far as a look at a part of it tells."""
    if pa.types.is_boolean(column.type):
        return True
    sample = table.sample(min(table.count_rows(), ROWS_TO_INDEX), columns=[column.name])
    return bool(pc.count_distinct(sample[column.name]).as_py() <= FEW_VALUES)


def _extended(table: Any, columns: pa.Schema) -> Any:
    table.add_columns(columns)
    return table


def _widened(table: Any, column: pa.Field) -> Any:
    """``table`` with a column in another type, in three commits; an index on it goes."""
    wide = f"{column.name} (wide)"
    table.add_columns({wide: f"arrow_cast(`{column.name}`, '{_SQL_TYPES[column.type]}')"})
    table.drop_columns([column.name])
    table.alter_columns({"path": wide, "name": column.name})
    return table


def _without_index(table: Any, index: str) -> Any:
    table.drop_index(index)
    return table


def _without_fragments(table: Any, numbers: list[int]) -> Any:
    operation = lance.LanceOperation.Delete([], numbers, "their files are lost")
    return lance.LanceDataset.commit(table, operation, read_version=table.version)


def _restored(table: Any, version: int) -> Any:
    old = table.checkout_version(version)
    old.restore()
    return old


def _fit(rows: pa.Table, target: pa.Schema) -> pa.Table:
    """The columns of a table; null, where there are none."""
    for column in target:
        if column.name not in rows.column_names and column.nullable:
            rows = rows.append_column(column, pa.nulls(len(rows), column.type))
    return rows.select(target.names).cast(target)


def _stamp(rows: pa.Table, batch_id: str) -> pa.Table:
    return rows.append_column(
        pa.field("batch_id", schema.ID, nullable=False), pa.repeat(pa.scalar(batch_id), len(rows))
    )
