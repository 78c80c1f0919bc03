"""Reads Parquet and Arrow files with a column of audio bytes, as Hugging Face `datasets` writes them.

``list_rows`` names rows by their paths, ``audio_rows`` reads them by number. Neither needs the table as a whole: of
Parquet, names are read without the bytes, and bytes row by row; of Arrow, a record batch at a time.
"""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass

from pipeline.corpus.arrow_table import ArrowTable
from pipeline.corpus.audio_column import NoAudioError
from pipeline.corpus.parquet_table import ParquetTable
from pipeline.corpus.table_limits import check_n_rows, limit_text_bytes
from pipeline.errors import CorpusError

PARQUET, ARROW = ".parquet", ".arrow"

BLOCK_BYTES = 64 * 2**10
"""Block in which names are read from an object store: they lie scattered."""

AudioTable = ParquetTable | ArrowTable
"""An open table. Its rows come in groups, whose first rows have the numbers ``starts``."""


@dataclass(frozen=True)
class TableRow:
    """A row of a table: its path, if it has one, and the size of its bytes (in Parquet an estimate)."""

    name: str | None
    size_bytes: int


def holds_audio(path: str) -> bool:
    """Whether a Parquet or Arrow file has a column of audio, by its schema.

    Raises:
        CorpusError: it has several. Exception: it cannot be read, or is no such file; each store has errors of its own.
    """
    try:
        open_table(path, BLOCK_BYTES).close()
    except NoAudioError:
        return False
    return True


def list_rows(path: str) -> Iterator[TableRow]:
    """The rows of a table, in order; of Parquet, bytes are not read.

    Raises:
        NoAudioError: there is no column of audio. Exception: as ``holds_audio``.
    """
    n_name_bytes = 0
    with closing(open_table(path, BLOCK_BYTES)) as table:
        check_n_rows(table.n_rows, table.size_bytes)
        for group in range(len(table.starts)):
            for name, size_bytes in table.list_group(group):
                n_name_bytes += len(name or "")
                if n_name_bytes > limit_text_bytes(table.size_bytes):
                    raise CorpusError(
                        f"more than {n_name_bytes:,} bytes of names in a file of {table.size_bytes:,} bytes"
                    )
                yield TableRow(name, size_bytes)


def open_table(path: str, block_bytes: int | None = None) -> AudioTable:
    """Open a Parquet or Arrow file. In an object store, it is read in blocks of ``block_bytes``.

    Raises:
        NoAudioError, CorpusError, Exception: as ``list_rows``.
    """
    return ArrowTable(path) if path.lower().endswith(ARROW) else ParquetTable(path, block_bytes)
