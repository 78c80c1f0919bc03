"""An index opened as it was last published: its tables, and what they hold. ``client`` asks it."""

import shlex
from typing import Any

import pyarrow as pa

from pipeline import schema
from pipeline.errors import UsageError
from pipeline.index import vector_index
from pipeline.index.handle import Generation, open_index
from pipeline.index.tables import indexed_files
from pipeline.marks.read import count_marks
from pipeline.search.curves import FileFrames, find_file
from pipeline.search.description import (
    count_rows,
    describe_place,
    describe_rebuild,
    describe_recall,
    describe_settings,
    list_history,
)
from pipeline.search.tables import check_where, open_table, read_rows


class OpenedIndex:
    """The tables of an index in the state that it had when it was opened. Marks are always those of now.

    Args:
        path: its folder or URL.

    Raises:
        IndexMissing: there is no index at ``path``.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._handle = open_index(path)
        self.live: Generation = self._handle.live
        """Its tables as they were published when it was opened."""
        self.tables = self.live.path
        """The path of its LanceDB database: ``path`` itself, until the index is rebuilt."""
        self.settings = self.live.settings
        self.state = self._handle.state
        """The number of the published state, which grows with each batch."""
        self._opened: dict[str, Any] = {}
        self._checked: set[tuple[str, str | None]] = set()
        """Filters that fit the columns of a table."""

    def to_arrow(self, table: str = "clips", columns: list[str] | None = None, where: str | None = None) -> pa.Table:
        """Rows of ``files``, ``clips``, ``frames``, ``pools`` or ``batches`` as they were when the index was opened.

        Args:
            where: SQL over its columns.

        Raises:
            UsageError: there is no such table or column, or ``where`` is not valid.
        """
        if table == "batches":
            # The journal only grows, ``seq`` by ``seq``: leave out what was published later.
            rows = open_table(self.tables, table)
            where = f"seq <= {self.live.seq}" + (f" AND ({where})" if where else "")
        elif table in self.live.versions:
            rows = self._open(table)
        else:
            raise UsageError(f"table {table!r}: expected {', '.join(self.live.versions)} or batches")
        return read_rows(rows, columns, where)

    def count_indexed(self, where: str) -> int:
        """The number of indexed files that ``where`` selects: SQL over the columns of ``files``."""
        return int(self.to_arrow("files", ["file_id"], indexed_files(where)).num_rows)

    def find_file(self, uri: str) -> FileFrames:
        """An indexed file: who holds which audio, how long it is, and how many frames are stored.

        Args:
            uri: as hits have it, or a path from which that can be told.

        Raises:
            UsageError: the index has no such file, or could not index it.
        """
        return find_file(self._open("files"), uri, list(self.metadata.names), self.path)

    def describe(self) -> dict[str, Any]:
        """Sources, format, size and age; counts by status and codec, rows, hours, marks; models and their dimension,
        how files are cut; vector indexes, and recall."""
        tables = {name: self._open(name) for name in self.live.versions}
        return {
            **describe_place(self._handle, self.live.seq),
            **count_rows(tables),
            "with_note": self.notes().num_rows,
            "marks": count_marks(self.path),
            **describe_settings(self.settings),
            "recall": describe_recall(self.live),
            "metadata": {column.name: str(column.type) for column in self.metadata},
            "vector_indexes": vector_index.describe({name: self.live.open(name) for name in self.live.versions}),
            "unfinished_rebuild": describe_rebuild(self._handle),
        }

    def notes(self) -> pa.Table:
        """``uri`` and ``note`` of the indexed files that have a note."""
        if "note" not in self._open("files").schema.names:  # format 2 had no notes
            return schema.FILES.empty_table().select(["uri", "note"])
        return self.to_arrow("files", ["uri", "note"], indexed_files("note IS NOT NULL"))

    @property
    def metadata(self) -> pa.Schema:
        """The user's columns of ``files`` and ``clips``, and their types."""
        return schema.metadata_columns(self._open("files").schema)

    def history(self) -> list[dict[str, Any]]:
        """What was published, oldest first. ``speed`` is seconds of audio per second, for batches with audio."""
        return list_history(self.tables, self.live.seq)

    def _open(self, name: str) -> Any:
        if name not in self._opened:
            self._opened[name] = open_table(self.tables, name, self.live.versions[name])
        return self._opened[name]

    def _table(self, name: str, where: str | None = None) -> Any:
        """A table to search: it must have rows, and a filter must fit the columns that it is over.

        A model takes seconds to load, so a wrong call is refused before.
        """
        table = self._open(name)
        if table.count_rows() == 0:
            raise UsageError(
                f"{self.path}: nothing is indexed yet, so there is nothing to search; add files with `earshot index`,"
                f" or see `earshot failures {shlex.quote(self.path)}`"
            )
        if (name, where) not in self._checked:
            check_where(where, self._open("files") if name == "frames" else table)
            self._checked.add((name, where))
        return table
