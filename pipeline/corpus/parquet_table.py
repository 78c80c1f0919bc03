"""A Parquet file with a column of audio: names are read without the bytes, bytes row by row."""

from collections.abc import Generator, Iterator

import pyarrow as pa

from pipeline import storage
from pipeline.corpus.audio_column import find_column
from pipeline.corpus.parquet_columns import ParquetColumns
from pipeline.corpus.row_names import NAMES_AT_ONCE, check_names, decode_names
from pipeline.corpus.table_limits import check_n_columns, limit_bytes, limit_text_bytes


class ParquetTable:
    """An open table. Its rows come in row groups, whose first rows have the numbers ``starts``.

    Args:
        block_bytes: block in which a table in an object store is read.

    Raises:
        NoAudioError: there is no column of audio. CorpusError: there are several, or too many other columns.
        Exception: it cannot be read, or is no such file; each store has errors of its own.
    """

    def __init__(self, path: str, block_bytes: int | None = None) -> None:
        self._source = storage.open_remote(path, block_bytes) if storage.is_url(path) else pa.OSFile(path)
        try:
            self._columns = ParquetColumns(self._source)
            self.schema = self._columns.schema
            self.column = find_column(self.schema)
            check_n_columns(self._columns.n_leaves)
        except Exception:
            self._source.close()
            raise
        self.size_bytes, self.starts, self.n_rows = self._columns.size_bytes, self._columns.starts, self._columns.n_rows

    def close(self) -> None:
        self._columns.close()
        self._source.close()

    def read_column(self, field: pa.Field, n_rows: int) -> Generator[pa.Array]:
        """A flat column, so many rows at a time; texts as numbers of different values.

        Raises:
            CorpusError: its pages would fill memory.
        """
        self._columns.check_pages(range(len(self.starts)), field.name, limit_text_bytes(self.size_bytes))
        return self._columns.read(field.name, n_rows)

    def list_group(self, group: int) -> Iterator[tuple[str | None, int]]:
        """The name of each row, and the mean size of the audio."""
        n_rows = self._columns.count_rows(group)
        mean_bytes = self._columns.count_stated_bytes(group, self.column.data) // max(1, n_rows)
        if self.column.name is None:
            yield from ((None, mean_bytes) for _ in range(n_rows))
            return
        self._columns.check_pages([group], self.column.name, limit_text_bytes(self.size_bytes))
        for names in self._columns.read_texts(group, self.column.name, NAMES_AT_ONCE):
            check_names(names.dictionary)
            yield from ((name, mean_bytes) for name in decode_names(names.dictionary_decode()))

    def read_group(self, group: int) -> Iterator[pa.Array]:
        """The audio of the rows, row by row.

        Raises:
            CorpusError: a page would fill memory.
        """
        return self._columns.read_bytes(group, self.column.data, limit_bytes(self.size_bytes))
