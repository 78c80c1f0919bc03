"""Reads columns of a Parquet file whose pages are measured first: Parquet's reader allocates what their headers state.

Texts come as numbers of different values (a dictionary), so that their lengths are known before they are copied.
"""

from collections import defaultdict
from collections.abc import Generator, Iterable, Iterator
from contextlib import suppress
from functools import cached_property
from itertools import accumulate
from typing import Any

import pyarrow as pa

from pipeline.corpus.parquet_pages import PageGuard, count_page_bytes
from pipeline.corpus.table_limits import is_text
from pipeline.errors import CorpusError

_BUFFER_BYTES = 2**20
"""A buffer makes pyarrow read a column page by page."""


class ParquetColumns:
    """An open Parquet file. Its rows come in groups, whose first rows have the numbers ``starts``.

    Args:
        source: an open file, which stays open. Not a path, which pyarrow may take for a URL.
    """

    def __init__(self, source: Any) -> None:
        self._source = source
        self.size_bytes = int(source.seek(0, 2))
        self._metadata: Any = None
        self._checked_bytes = self._checked_pages = 0
        self._file = self._open(source)
        self._metadata = metadata = self._file.metadata
        self.schema: pa.Schema = self._file.schema_arrow
        self.n_leaves = metadata.num_columns
        _check_chunks(metadata, self.size_bytes)
        self._leaves = defaultdict[str, list[int]](list)
        for number, leaf in enumerate(metadata.schema):
            self._leaves[leaf.path].append(number)
        sizes = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
        self.starts, self.n_rows = list(accumulate(sizes, initial=0))[:-1], sum(sizes)

    def close(self) -> None:
        self._file.close()

    def count_rows(self, group: int) -> int:
        return int(self._metadata.row_group(group).num_rows)

    def count_stated_bytes(self, group: int, path: str) -> int:
        """The bytes of a column in a group, as the footer states them."""
        return sum(chunk.total_uncompressed_size for chunk in self._list_chunks(group, path))

    def check_pages(self, groups: Iterable[int], path: str, most_bytes: int) -> int:
        """The bytes of the pages of a column in some groups, each of which is asked for once.

        Raises:
            CorpusError: they are more than ``most_bytes``, or too many, or columns share their pages.
        """
        n_bytes = 0
        for group in groups:
            for chunk in self._list_chunks(group, path):
                if chunk.num_values > 0:  # else the reader opens no page
                    place = _begin_of(chunk), chunk.total_compressed_size
                    self._checked_bytes += max(0, place[1])
                    if self._checked_bytes > self.size_bytes:  # thousands of columns may be the same million pages
                        raise CorpusError("more bytes in its columns than the file has")
                    found = count_page_bytes(self._source, *place, most_bytes - n_bytes, self._checked_pages)
                    self._checked_pages += found.n_pages
                    n_bytes += found.n_bytes
        return n_bytes

    def read(self, name: str, n_rows: int, occurrence: int = 0) -> Generator[pa.Array]:
        """A flat column, so many rows at a time, whose pages are checked.

        Args:
            occurrence: which of several columns of this name.
        """
        for batch in self._read_batches(self._coded, range(len(self.starts)), name, n_rows):
            yield batch.column([number for number, each in enumerate(batch.schema.names) if each == name][occurrence])

    def read_texts(self, group: int, path: str, n_rows: int) -> Iterator[pa.Array]:
        """A column of texts in a group, which may lie in structs; its pages are checked."""
        return self._read_leaf(self._open(self._source, [path]), group, path, n_rows)

    def read_bytes(self, group: int, path: str, most_page_bytes: int) -> Iterator[pa.Array]:
        """A column of bytes in a group, row by row: any number of rows may hold the same gigabytes.

        Raises:
            CorpusError: a page is too large.
        """
        source = self._source
        for chunk in self._list_chunks(group, path):
            source = PageGuard(source, _begin_of(chunk), chunk.total_compressed_size, most_page_bytes)
        return self._read_leaf(self._open(source), group, path, 1)

    def _read_leaf(self, file: Any, group: int, path: str, n_rows: int) -> Iterator[pa.Array]:
        return (_flatten(batch.column(0)) for batch in self._read_batches(file, [group], path, n_rows))

    def _read_batches(self, file: Any, groups: Iterable[int], path: str, n_rows: int) -> Iterator[Any]:
        """Only columns of exactly this path: asked by name, pyarrow also reads what lies in a struct of that name."""
        options = {"row_groups": groups, "column_indices": self._leaves[path], "use_threads": False}
        return iter(file.reader.iter_batches(n_rows, **options))

    @cached_property
    def _coded(self) -> Any:
        """The file as ``read`` reads it: opening it takes time for each column."""
        return self._open(self._source, [field.name for field in self.schema if is_text(_decoded(field.type))])

    def _open(self, source: Any, texts: list[str] | None = None) -> Any:
        import pyarrow.parquet as pq

        return pq.ParquetFile(
            source, metadata=self._metadata, read_dictionary=texts, buffer_size=_BUFFER_BYTES, pre_buffer=False
        )

    def _list_chunks(self, group: int, path: str) -> Iterator[Any]:
        return map(self._metadata.row_group(group).column, self._leaves[path])


def _check_chunks(metadata: Any, size_bytes: int) -> None:
    """Refuse a footer that says something invalid of a column in a group. If asked for it as ``_list_chunks`` does,
    pyarrow 26 ends the process instead. Before it reads columns, it looks at all of them; this stops it there.

    Raises:
        OSError: it is invalid.
    """
    import pyarrow.parquet as pq

    file = pq.ParquetFile(_Unread(size_bytes), metadata=metadata, pre_buffer=True)
    groups, leaves = range(metadata.num_row_groups), range(metadata.num_columns)
    with suppress(_StopReading):
        next(file.reader.iter_batches(1, row_groups=groups, column_indices=leaves, use_threads=False), None)


class _StopReading(Exception):
    """Something is read."""


class _Unread:
    """A file of this size whose bytes are not read."""

    closed = False

    def __init__(self, size_bytes: int) -> None:
        self._size_bytes, self._at = size_bytes, 0

    def read(self, size: int = -1) -> bytes:
        raise _StopReading

    def seek(self, offset: int, whence: int = 0) -> int:
        self._at = offset + (0, self._at, self._size_bytes)[whence]
        return self._at

    def tell(self) -> int:
        return self._at

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def close(self) -> None:
        """There is nothing to close."""


def _begin_of(chunk: Any) -> int:
    """Where the pages of a column in a group begin."""
    return int(min(chunk.data_page_offset, chunk.dictionary_page_offset or chunk.data_page_offset))


def _decoded(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _flatten(column: pa.Array) -> pa.Array:
    """A column, or its only field if it holds structs."""
    return column.flatten()[0] if pa.types.is_struct(column.type) else column
