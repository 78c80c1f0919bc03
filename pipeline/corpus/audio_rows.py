"""Reads the audio of single rows of tables. Rows in order are read in one pass: open tables remember where they are."""

import threading
from bisect import bisect_right
from collections.abc import Callable, Iterator

import pyarrow as pa

from pipeline import storage
from pipeline.corpus.audio_tables import AudioTable, open_table
from pipeline.errors import FileFailure

OPEN_TABLES = 4
"""Tables that stay open in a process, each where it was last read."""


class _Cursor:
    """An open table and a position in it. A group is read from its beginning, once for rows in order."""

    def __init__(self, path: str, version: tuple[int, int], table: AudioTable) -> None:
        self.path, self.version, self.table = path, version, table
        self._group, self._first = -1, 0
        self._batches: Iterator[pa.Array] = iter(())
        self._batch: pa.Array | None = None
        self._error: Exception | None = None

    def close(self) -> None:
        self._batch, self._batches = None, iter(())
        self.table.close()

    def is_before(self, number: int) -> bool:
        """Whether the row can be reached without reading its group again from its beginning."""
        return self._group == self._group_of(number) and self._first <= number

    def read(self, number: int) -> bytes | None:
        if not 0 <= number < self.table.n_rows:
            raise LookupError(f"there is no row {number}: the table has {self.table.n_rows}")
        if not self.is_before(number):
            self._group = self._group_of(number)
            self._first = self.table.starts[self._group]
            self._batches, self._batch, self._error = self.table.read_group(self._group), None, None
        if self._error is not None:
            raise self._error
        try:
            while self._batch is None or number >= self._first + len(self._batch):
                self._first += 0 if self._batch is None else len(self._batch)
                self._batch = None  # freed before the next one is read
                self._batch = next(self._batches, None)
                if self._batch is None:
                    raise pa.ArrowInvalid(f"it ends before row {number}")
        except Exception as error:
            if storage.is_url(self.path):  # the error may pass
                self._group = -1
            else:  # the rows that follow in this group fail likewise: do not read them again
                self._error = error
            raise
        data: bytes | None = self._batch[number - self._first].as_py()
        return data

    def _group_of(self, number: int) -> int:
        return bisect_right(self.table.starts, number) - 1


class Cursors:
    """Open tables. One reader at a time uses each."""

    def __init__(self, open_table: Callable[[str], AudioTable] = open_table) -> None:
        self._open = open_table
        self._idle: list[_Cursor] = []
        self._lock = threading.Lock()

    def read(self, path: str, number: int) -> bytes:
        """The bytes of one row. Calls for rows in order share one pass over the table.

        Raises:
            FileFailure: it has none. LookupError: there is no such row. Exception: as ``audio_tables.holds_audio``.
        """
        cursor = self._take(path, number)
        try:
            data = cursor.read(number)
        finally:
            self._put(cursor)
        if data is None:
            also = ", only a path: embed the files, or name them in a manifest" if cursor.table.column.name else ""
            raise FileFailure("decode", "empty", f"its row has no bytes{also}")
        return data

    def _take(self, path: str, number: int) -> _Cursor:
        version = storage.stat_file(path)
        with self._lock:
            same = [cursor for cursor in self._idle if cursor.path == path]
            fitting = [cursor for cursor in same if cursor.version == version]
            # Preferably one that has not passed this row yet.
            chosen = max(fitting, key=lambda cursor: cursor.is_before(number), default=None)
            old = [cursor for cursor in same if cursor.version != version]
            self._idle = [cursor for cursor in self._idle if cursor is not chosen and cursor not in old]
        for cursor in old:
            cursor.close()
        return chosen or _Cursor(path, version, self._open(path))

    def _put(self, cursor: _Cursor) -> None:
        with self._lock:
            self._idle.append(cursor)
            closing, self._idle = self._idle[:-OPEN_TABLES], self._idle[-OPEN_TABLES:]
        for one in closing:
            one.close()


read_row = Cursors().read
"""Reads a row through the open tables of this process: see ``Cursors.read``."""
