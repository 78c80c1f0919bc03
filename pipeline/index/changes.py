"""Commits to the data tables before a publication. Each must find its table as the commit before left it."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import lance
import pyarrow as pa
from lance.commit import CommitConflictError
from lance.fragment import FragmentMetadata, write_fragments

from pipeline import storage
from pipeline.errors import CommitConflict
from pipeline.index import journal
from pipeline.index.journal import Failpoint, table_uri
from pipeline.index.tables import FILE_FORMAT, ROWS_PER_FRAGMENT, among, complete, find_missing, latest_version


class Changes:
    """Commits to the data tables which the next rows of the journal publish; until then nobody sees them.

    ``versions`` has the newest version of each table, as these changes left it.
    """

    def __init__(self, path: str | Path, versions: dict[str, int], failpoint: Failpoint) -> None:
        self._path, self._failpoint, self._before = path, failpoint, versions
        self.versions = dict(versions)

    def leave_out(self, name: str) -> None:
        """Publish a state without this table."""
        self.versions.pop(name, None)

    def take_in(self, name: str) -> None:
        """Change a table that was not published before, from its newest version on."""
        self.versions[name] = latest_version(self._path, name)

    @property
    def any(self) -> bool:
        """Whether a table has changed."""
        return self.versions != self._before

    def open(self, name: str) -> Any:
        """The newest version of a table.

        Raises:
            CommitConflict: it is not the version that these changes, or the writer before them, left.
        """
        dataset = lance.dataset(table_uri(self._path, name))
        if dataset.version != self.versions[name]:
            raise conflict(self._path, name)
        return dataset

    def make(self, verb: str, name: str, change: Callable[[Any], Any], n_commits: int = 1) -> None:
        """Change a table. ``verb`` names the failpoint before it.

        Args:
            change: gets the dataset and returns it at the version that it made, or as it was if nothing had to change.
            n_commits: how many versions the change makes, if it makes any.
        """
        self._failpoint(f"{verb} {name}")
        before = self.versions[name]
        try:
            version = change(self.open(name)).version
        except (OSError, CommitConflictError) as error:
            if not journal.is_conflict(error):
                raise
            raise conflict(self._path, name) from None
        if version not in (before, before + n_commits):
            raise conflict(self._path, name)
        self.versions[name] = version

    def add_columns(self, verb: str, name: str, columns: list[pa.Field]) -> None:
        if columns:
            self.make(verb, name, lambda table: after(table, table.add_columns, pa.schema(columns)))

    def replace(self, name: str, rows: pa.RecordBatchReader) -> None:
        """Write all rows of a table anew. It need not be published, nor be there."""
        self._failpoint(f"make {name}")
        uri = table_uri(self._path, name)
        before = latest_version(self._path, name) if storage.exists(storage.join(uri, "_versions")) else 0
        table = lance.write_dataset(
            rows, uri, mode="overwrite", max_rows_per_file=ROWS_PER_FRAGMENT, data_storage_version=FILE_FORMAT
        )
        if table.version != before + 1 or before not in (0, self.versions.get(name, before)):
            raise conflict(self._path, name)
        self.versions[name] = table.version

    def append(self, name: str, fragments: list[FragmentMetadata]) -> None:
        if fragments:
            operation = lance.LanceOperation.Append(fragments)
            self.make("append", name, partial(_commit, operation=operation))

    def append_rows(self, name: str, tables: list[pa.Table]) -> None:
        dataset = self.open(name)
        target = dataset.schema
        rows = pa.concat_tables([complete(table, target).select(target.names).cast(target) for table in tables])
        if rows.num_rows:
            self.append(name, write_fragments(rows, dataset.uri, mode="append", data_storage_version=FILE_FORMAT))

    def append_stream(self, name: str, rows: pa.RecordBatchReader) -> None:
        """Append rows that are written as they are read: only some of them are in memory at a time."""
        options = {"max_rows_per_file": ROWS_PER_FRAGMENT, "data_storage_version": FILE_FORMAT}
        self.append(name, write_fragments(rows, self.open(name).uri, mode="append", **options))

    def delete(self, name: str, ids: dict[str, set[str]]) -> None:
        """Delete the rows whose ids are among those given, column by column."""
        if all(ids.values()):
            where = " AND ".join(among(column, chosen) for column, chosen in ids.items())
            self.make("delete", name, lambda table: after(table, table.delete, where))

    def delete_fragments(self, name: str, numbers: list[int]) -> None:
        operation = lance.LanceOperation.Delete([], numbers, "their files are lost")
        self.make("give up", name, partial(_commit, operation=operation))

    def complete_files(self) -> None:
        """Add the columns that ``files`` lacks where an older format wrote it."""
        self.add_columns("migrate", "files", find_missing(self._path, self.open("files").schema))


def conflict(path: str | Path, name: str) -> CommitConflict:
    return CommitConflict(f"{path}: another run wrote to `{name}`; this one stops, what it published stays")


def after(table: Any, change: Callable[..., Any], *arguments: Any) -> Any:
    """``table``, which ``change`` changes in place."""
    change(*arguments)
    return table


def _commit(table: Any, operation: Any) -> Any:
    return lance.LanceDataset.commit(table, operation, read_version=table.version)
