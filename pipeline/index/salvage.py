"""A damaged table read fragment by fragment, in order: fragments that cannot be read are named and skipped.

Lance fails on a whole table where one of its files is lost. This module still reads the others.
"""

import posixpath
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import pyarrow as pa

from pipeline import storage
from pipeline.errors import one_line
from pipeline.index import engine_errors

T = TypeVar("T")


class Unreadable(Exception):
    """A fragment cannot be read: ``fragment`` is its number, ``why`` one line."""

    def __init__(self, fragment: int, why: str) -> None:
        super().__init__(why)
        self.fragment, self.why = fragment, why


class Fragments:
    """The fragments of a table, a ``lance.LanceDataset``, called ``name``.

    ``lost`` has the number of each fragment that is skipped, and why: at first, those with a missing data file.
    """

    def __init__(self, table: Any, name: str) -> None:
        self.name, self.schema = name, table.schema
        self._table = table
        self.lost = self._find_lost()

    def _find_lost(self) -> dict[int, str]:
        fragments = self._table.get_fragments()
        files = {fragment.fragment_id: [file.path for file in fragment.data_files()] for fragment in fragments}
        there = _list_names(storage.join(self._table.uri, "data")) if files else set()
        return {
            number: f"data file {missing[0]} is missing"
            for number, paths in files.items()
            if (missing := [path for path in paths if posixpath.basename(path) not in there])
        }

    def read(self, columns: list[str], batch_rows: int) -> Iterator[pa.RecordBatch]:
        """The rows of all fragments that are not lost, in the order of writing.

        Raises:
            Unreadable: at the first fragment that cannot be read, maybe after some of its rows.
        """
        for fragment in self._table.get_fragments():
            if fragment.fragment_id in self.lost:
                continue
            try:
                yield from fragment.to_batches(columns=columns, batch_size=batch_rows)
            except GeneratorExit:
                raise
            except BaseException as error:  # a damaged page makes Lance's own code panic, which is no Exception
                if not isinstance(error, Exception) and not engine_errors.is_panic(error):
                    raise
                files = ", ".join(file.path for file in fragment.data_files())
                why = engine_errors.tidy(one_line(error))
                raise Unreadable(fragment.fragment_id, f"data file {files} cannot be read: {why}") from None


def read_all(table: Fragments, read: Callable[[], T]) -> T:
    """The result of ``read``, which reads all fragments that are not lost. Where one proves unreadable, read again."""
    while True:
        try:
            return read()
        except Unreadable as error:
            table.lost[error.fragment] = error.why


def _list_names(folder: str) -> set[str]:
    """The names of the files in a folder, on a disk or in an object store; none where there is no such folder."""
    store, path = storage.find_store(folder)
    try:
        return {posixpath.basename(name) for name in storage.retried(store.ls, path, detail=False)}
    except FileNotFoundError:
        return set()
