"""An Arrow file or stream with a column of audio, mapped into memory: only what is used is read.

A compressed one is decompressed one record batch after the other, and of these only the columns that are asked for. A
buffer that Arrow decompresses is as large as a few bytes of it say, so all are measured before (``arrow_sizes``).
"""

import os
import tempfile
import threading
from collections.abc import Generator, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import accumulate, chain
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline import storage
from pipeline.corpus.arrow_sizes import measure_batches
from pipeline.corpus.audio_column import find_column
from pipeline.corpus.row_names import NAMES_AT_ONCE, check_names, decode_names
from pipeline.corpus.table_limits import check_n_columns, limit_bytes
from pipeline.errors import CorpusError

_MAGIC = b"ARROW1"

_DECOMPRESSING = threading.Lock()
"""Many tables are listed at the same time: only one of them has a batch in memory."""


class ArrowTable:
    """An open table. Its rows come in record batches, whose first rows have the numbers ``starts``.

    Raises:
        NoAudioError: there is no column of audio. CorpusError: there are several, or too many other columns; it
            decompresses to too many bytes.
        Exception: it cannot be read, or is no such file; each store has errors of its own.
    """

    def __init__(self, path: str) -> None:
        self._map = _map(path)
        try:
            self.size_bytes = self._map.size()
            self._begin = 8 if self._map.read(len(_MAGIC)) == _MAGIC else 0  # a file is a stream, with an index behind
            self._map.seek(self._begin)
            sizes = measure_batches(self._map)
            n_bytes = sizes.decompressed_bytes
            if n_bytes > limit_bytes(self.size_bytes):
                raise CorpusError(
                    f"{n_bytes:,} bytes, compressed in a file of {self.size_bytes:,}: write it uncompressed"
                )
            self._is_compressed = n_bytes > 0
            self.schema = self._open().schema
            self.column = find_column(self.schema)
            check_n_columns(len(self.schema))
            self._batches = [] if self._is_compressed else list(self._open())
        except Exception:
            self._map.close()
            raise
        self._positions: Sequence[int] = ()
        self._pass: Iterator[pa.RecordBatch] = iter(())
        self._next = 0
        self.starts, self.n_rows = list(accumulate(sizes.n_rows, initial=0))[:-1], sum(sizes.n_rows)

    def close(self) -> None:
        self._batches.clear()
        self._pass = iter(())
        self._map.close()

    def read_column(self, field: pa.Field, n_rows: int) -> Generator[pa.Array]:
        """A column, so many rows at a time. Until it is closed, others that are compressed wait."""
        position = self.schema.names.index(field.name)  # a name may occur twice
        for group in range(len(self.starts)):
            with self._in_turn():
                column = self._read(group, [position])[0]
                yield from (column.slice(at, n_rows) for at in range(0, len(column), n_rows))
                del column

    def list_group(self, group: int) -> Iterator[tuple[str | None, int]]:
        """The name of each row, and the size of its bytes."""
        with self._in_turn():
            columns = self._read_audio(group, [self.column.data, *filter(None, [self.column.name])])
            sizes = pc.fill_null(pc.binary_length(columns[0]), 0).to_pylist()
            names: list[str | None] = [None] * len(sizes)
            if self.column.name is not None:
                check_names(columns[1])
                pieces = (columns[1].slice(at, NAMES_AT_ONCE) for at in range(0, len(sizes), NAMES_AT_ONCE))
                names = list(chain.from_iterable(map(decode_names, pieces)))
            del columns
        return zip(names, sizes, strict=True)

    def read_group(self, group: int) -> Iterator[pa.Array]:
        """The audio of the rows, as one array of bytes."""
        yield from self._read_audio(group, [self.column.data])

    def _in_turn(self) -> AbstractContextManager[Any]:
        return _DECOMPRESSING if self._is_compressed else nullcontext()

    def _read_audio(self, group: int, names: list[str]) -> list[pa.Array]:
        """Columns of a batch, some of them fields of structs. Those of bytes lie within their table."""
        places = [self._find(name) for name in names]
        positions = list(dict.fromkeys(position for position, _ in places))
        columns = dict(zip(positions, self._read(group, positions), strict=True))
        found = [columns[position] if child is None else _child(columns[position], child) for position, child in places]
        found[0].validate(full=True)
        return found

    def _find(self, name: str) -> tuple[int, str | None]:
        """The position of a column in the schema; of a field of a struct, that of the struct, and its name in it."""
        names = self.schema.names
        if name in names:
            return names.index(name), None
        parent, child = name.rsplit(".", 1)
        return names.index(parent), child

    def _read(self, group: int, positions: Sequence[int]) -> list[pa.Array]:
        """Columns of a batch. In order of the groups, a compressed table is decompressed once."""
        if not self._is_compressed:
            return [_check(self._batches[group].column(position)) for position in positions]
        if list(positions) != list(self._positions) or group < self._next:
            self._positions, self._next = positions, 0
            self._pass = iter(self._open(sorted(positions)))
        batch: pa.RecordBatch | None = None
        while batch is None or self._next <= group:
            batch = None  # freed before the next one is decompressed
            batch = next(self._pass)
            self._next += 1
        return [_check(batch.column(sorted(positions).index(position))) for position in positions]

    def _open(self, positions: Sequence[int] | None = None) -> Any:
        """A pass over the batches from the beginning, with some columns or all."""
        self._map.seek(self._begin)
        options = pa.ipc.IpcReadOptions(included_fields=None if positions is None else list(positions))
        return pa.ipc.open_stream(self._map, options=options)


def _check(column: pa.Array) -> pa.Array:
    """Refuse a column whose parts have wrong sizes, which would end this process."""
    column.validate()
    return column


def _map(path: str) -> Any:
    if not storage.is_url(path):
        return pa.memory_map(path)
    handle, name = tempfile.mkstemp(prefix="earshot-")
    os.close(handle)
    try:
        storage.fetch(path, name)
        return pa.memory_map(name)
    finally:
        os.unlink(name)  # the mapped file stays until it is closed


def _child(struct: pa.Array, name: str) -> pa.Array:
    """A field of structs; null where the struct is null."""
    return struct.flatten()[struct.type.get_field_index(name)]
