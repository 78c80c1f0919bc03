"""Reads the metadata columns of a table with audio, in memory that the bytes of its file bound.

In a column whose values repeat, a few bytes can stand for gigabytes. So lengths are checked before values are copied.
A column that is too large is left out, with a note.
"""

import threading
from collections.abc import Callable
from contextlib import closing

import pyarrow as pa

from pipeline.corpus.audio_tables import BLOCK_BYTES, AudioTable, open_table
from pipeline.corpus.table_limits import check_n_rows, measure_values
from pipeline.errors import TOO_LARGE, CorpusError, one_line

ROWS_AT_ONCE = 65_536

MOST_TEXT_BYTES = 64 * 2**10
"""The largest text of a row."""

SHARED_BYTES, SHARE_BYTES = 2**30, 64 * 2**20
"""Memory for metadata that is larger than the file that holds it: for all tables of a corpus, and for one."""

MOST_TABLE_BYTES = 2**30
"""Metadata of one table, however large its file is."""


class Memory:
    """Memory for the metadata of all tables that are read at the same time."""

    def __init__(self, n_bytes: int | None = None) -> None:
        self._left = SHARED_BYTES if n_bytes is None else n_bytes
        self._lock = threading.Lock()

    def take(self, n_bytes: int) -> bool:
        """Take memory, or give it back (below zero). Returns False where there is not enough."""
        with self._lock:
            if n_bytes > self._left:
                return False
            self._left -= n_bytes
            return True


class _Room:
    """Memory for the metadata of one table: as many bytes as its file has, and a share of ``memory``."""

    def __init__(self, memory: Memory, size_bytes: int) -> None:
        self._memory, self._own_bytes, self._taken = memory, min(size_bytes, MOST_TABLE_BYTES), 0

    def take(self, n_bytes: int) -> None:
        before, after = (max(0, taken - self._own_bytes) for taken in (self._taken, self._taken + n_bytes))
        if after > SHARE_BYTES or not self._memory.take(after - before):
            raise CorpusError(f"over {self._taken + n_bytes:,} bytes of metadata in a small file")
        self._taken += n_bytes


def read_columns(path: str, is_kept: Callable[[pa.Field], bool], memory: Memory) -> tuple[pa.Table, list[str]]:
    """Whole columns of a table, except the audio; and a note on each that is too large. Of several columns of one name,
    the first counts.

    Raises:
        Exception: as ``audio_tables.holds_audio``.
    """
    found, notes = dict[str, pa.ChunkedArray](), list[str]()
    with closing(open_table(path, BLOCK_BYTES)) as table:
        check_n_rows(table.n_rows, table.size_bytes)
        room, audio = _Room(memory, table.size_bytes), (table.column.data.split(".")[0], table.column.name)
        for field in table.schema:
            if field.name not in audio and field.name not in found and is_kept(field):
                try:
                    found[field.name] = _read_column(table, field, room)
                except (CorpusError, MemoryError) as error:  # pyarrow's, too
                    why = TOO_LARGE if isinstance(error, MemoryError) else error
                    notes.append(f"{path}: column `{field.name}`: {why}: left out")
    return pa.table(found), notes


def _read_column(table: AudioTable, field: pa.Field, room: _Room) -> pa.ChunkedArray:
    kind = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
    pieces, n_bytes = list[pa.Array](), 0
    try:
        with closing(table.read_column(field, ROWS_AT_ONCE)) as found:
            for piece in found:
                piece.validate(full=True)  # one that refers to values outside would end this process
                room.take(size := measure_values(piece, MOST_TEXT_BYTES))
                n_bytes += size
                pieces.append(piece.cast(kind))
    except pa.ArrowInvalid as error:
        room.take(-n_bytes)
        raise CorpusError(one_line(error)) from None
    except Exception:
        room.take(-n_bytes)
        raise
    return pa.chunked_array(pieces, kind)
