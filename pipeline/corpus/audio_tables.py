"""Tables with audio: Parquet and Arrow files with a column of audio bytes, as Hugging Face `datasets` writes them.

The column is a struct of ``bytes`` and ``path`` (the feature ``Audio`` of `datasets`), or plain bytes. If there are
several, the column ``audio`` counts. ``list_rows`` names rows by their paths, ``audio_rows`` reads them by number.
Neither needs the table as a whole: paths are read without the bytes, and bytes a row group or a record batch at a time.
"""

import json
import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import accumulate, chain
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline import storage
from pipeline.corpus.arrow_sizes import count_decompressed_bytes
from pipeline.corpus.parquet_pages import count_page_bytes
from pipeline.errors import CorpusError

PARQUET, ARROW = ".parquet", ".arrow"

_BATCH_BYTES = 4 * 2**20
_BUFFER_BYTES = 2**20
_NAMES_AT_ONCE = 10_000
BLOCK_BYTES = 64 * 2**10
"""Block in which names are read from an object store: they lie scattered."""

MOST_NAME_BYTES = 4096
"""The longest name of a row. In a column whose values repeat, a few bytes can stand for gigabytes, so lengths are
checked before names are copied."""

LITTLE_BYTES = 64 * 2**20
"""Names together may have so many bytes, or as many as the file has."""

MOST_RATIO = 8
"""How much larger than its file an Arrow table may be that is compressed; or as large as ``LITTLE_BYTES``. It is
decompressed as a whole. Audio hardly gets smaller by compression."""

FEW_ROWS, ROW_BYTES = 100_000, 64
"""A table may have so many rows, or one for each ``ROW_BYTES`` of its file."""


class NoAudioError(CorpusError):
    """A table has no column of audio."""


@dataclass(frozen=True)
class TableRow:
    """A row of a table: its path, if it has one, and the size of its bytes (in Parquet an estimate)."""

    name: str | None
    size_bytes: int


@dataclass(frozen=True)
class _Column:
    """Where in the schema the bytes are, and their names."""

    data: str
    name: str | None


def find_column(schema: pa.Schema) -> _Column:
    """The column of audio.

    Raises:
        NoAudioError: there is none. CorpusError: there are several, and none is named `audio`.
    """
    features = _features(schema)
    found = [
        column
        for column in schema
        if _holds_bytes(column.type) and features.get(column.name, {}).get("_type") in (None, "Audio", "Value")
    ]
    found = [column for column in found if features.get(column.name, {}).get("_type") == "Audio"] or found
    if "uri" in schema.names and not features:  # a manifest may hold other bytes, such as pictures
        found = [column for column in found if column.name == "audio" or pa.types.is_struct(column.type)]
    found = [column for column in found if column.name == "audio"] or found
    if len(found) > 1:
        names = ", ".join(column.name for column in found)
        raise CorpusError(f"several columns hold bytes ({names}): call the one with audio `audio`")
    if not found:
        raise NoAudioError("a table without a column of audio bytes")
    [column] = found
    if pa.types.is_struct(column.type):
        has_path = column.type.get_field_index("path") >= 0 and is_text(column.type.field("path").type)
        return _Column(f"{column.name}.bytes", f"{column.name}.path" if has_path else None)
    has_path = "path" in schema.names and is_text(schema.field("path").type)
    return _Column(column.name, "path" if has_path else None)


def _features(schema: pa.Schema) -> dict[str, Any]:
    """The description of columns that `datasets` writes into its files."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        return {name: feature if isinstance(feature, dict) else {} for name, feature in features.items()}
    except (KeyError, ValueError, TypeError, AttributeError):
        return {}


def _holds_bytes(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        return kind.get_field_index("bytes") >= 0 and _is_binary(kind.field("bytes").type)
    return _is_binary(kind)


def _is_binary(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind))


def is_text(kind: pa.DataType) -> bool:
    """Whether values are texts, in any of Arrow's layouts."""
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


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
    size_bytes, n_name_bytes = storage.stat_file(path)[0], 0
    with closing(open_table(path, BLOCK_BYTES)) as table:
        check_n_rows(table.n_rows, size_bytes)
        for group in range(len(table.starts)):
            for row in table.list_group(group):
                n_name_bytes += len(row.name or "")
                if n_name_bytes > max(LITTLE_BYTES, size_bytes):
                    raise CorpusError(f"more than {n_name_bytes:,} bytes of names in a file of {size_bytes:,} bytes")
                yield row


def check_n_rows(n_rows: int, size_bytes: int) -> None:
    """Refuse a table of more rows than its file can mean.

    Raises:
        CorpusError
    """
    if n_rows > max(FEW_ROWS, size_bytes // ROW_BYTES):
        raise CorpusError(f"{n_rows:,} rows in a file of {size_bytes:,} bytes")


# --- tables -----------------------------------------------------------------------------------------------------------


def open_table(path: str, block_bytes: int | None = None) -> "AudioTable":
    """Open a Parquet or Arrow file. In an object store, it is read in blocks of ``block_bytes``.

    Raises:
        NoAudioError, CorpusError, Exception: as ``list_rows``.
    """
    return _Arrow(path) if path.lower().endswith(ARROW) else _Parquet(path, block_bytes)


class _Parquet:
    def __init__(self, path: str, block_bytes: int | None = None) -> None:
        import pyarrow.parquet as pq

        # Not opened by its name, which pyarrow may take for a URL. A buffer makes it read a column page by page.
        self._source = storage.open_remote(path, block_bytes) if storage.is_url(path) else pa.OSFile(path)
        try:
            self._file = pq.ParquetFile(self._source, buffer_size=_BUFFER_BYTES, pre_buffer=False)
            self.schema = self._file.schema_arrow
            self.column = find_column(self.schema)
        except Exception:
            self._source.close()
            raise
        self._size_bytes = storage.stat_file(path)[0]
        metadata = self._file.metadata
        sizes = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
        self.starts, self.n_rows = list(accumulate(sizes, initial=0))[:-1], sum(sizes)

    def close(self) -> None:
        self._file.close()
        self._source.close()

    def read_column(self, field: pa.Field, n_rows: int) -> Iterator[pa.Array]:
        """A column, so many rows at a time; texts as numbers of different values."""
        self._check_pages(range(len(self.starts)), field.name)
        file = self._open_texts([field.name] if is_text(field.type) else [])
        return (batch.column(0) for batch in file.iter_batches(n_rows, columns=[field.name], use_threads=False))

    def _open_texts(self, names: list[str]) -> Any:
        """The file again, with texts as numbers of different values: their lengths are known before they are copied."""
        import pyarrow.parquet as pq

        metadata = self._file.metadata
        return pq.ParquetFile(
            self._source, metadata=metadata, read_dictionary=names, buffer_size=_BUFFER_BYTES, pre_buffer=False
        )

    def _check_pages(self, groups: Iterable[int], name: str) -> None:
        """Refuse a column whose pages would fill memory as they are decompressed."""
        left = max(LITTLE_BYTES, self._size_bytes)
        for group in groups:
            for column in self._columns(group):
                if column.path_in_schema == name and column.num_values > 0:  # else the reader opens no page
                    starts = [column.data_page_offset, column.dictionary_page_offset or column.data_page_offset]
                    left -= count_page_bytes(self._source, min(starts), column.total_compressed_size, left)

    def list_group(self, group: int) -> Iterator[TableRow]:
        mean_bytes, n_rows = self._mean_bytes(group), self._file.metadata.row_group(group).num_rows
        if self.column.name is None:
            yield from (TableRow(None, mean_bytes) for _ in range(n_rows))
            return
        self._check_pages([group], self.column.name)
        texts = self._open_texts([self.column.name])
        for names in self._read(group, self.column.name, _NAMES_AT_ONCE, texts):
            check_lengths(names.dictionary, MOST_NAME_BYTES, "a name")
            yield from (TableRow(name, mean_bytes) for name in _decode_names(names.dictionary_decode()))

    def read_group(self, group: int) -> Iterator[pa.Array]:
        return self._read(group, self.column.data, max(1, _BATCH_BYTES // (self._mean_bytes(group) + 1)))

    def _mean_bytes(self, group: int) -> int:
        """Mean size of the audio in a group."""
        columns = self._columns(group)
        total = sum(column.total_uncompressed_size for column in columns if column.path_in_schema == self.column.data)
        return int(total // max(1, self._file.metadata.row_group(group).num_rows))

    def _columns(self, group: int) -> Iterator[Any]:
        row_group = self._file.metadata.row_group(group)
        return (row_group.column(number) for number in range(row_group.num_columns))

    def _read(self, group: int, name: str, n_rows: int, file: Any = None) -> Iterator[pa.Array]:
        batches = (file or self._file).iter_batches(n_rows, row_groups=[group], columns=[name], use_threads=False)
        return (_flatten(batch.column(0)) for batch in batches)


class _Arrow:
    """An Arrow file or stream, mapped into memory: only what is used is read."""

    def __init__(self, path: str) -> None:
        self._map = _map(path)
        try:
            begin = 8 if self._map.read(6) == b"ARROW1" else 0  # a file is a stream, with an index behind it
            self._map.seek(begin)
            n_bytes, size_bytes = count_decompressed_bytes(self._map), self._map.size()
            if n_bytes > max(LITTLE_BYTES, MOST_RATIO * size_bytes):
                raise CorpusError(f"{n_bytes:,} bytes, compressed in a file of {size_bytes:,}: write it uncompressed")
            self._map.seek(begin)
            stream = pa.ipc.open_stream(self._map)
            self._batches, self.schema = list(stream), stream.schema
            self.column = find_column(self.schema)
        except Exception:
            self._map.close()
            raise
        sizes = [batch.num_rows for batch in self._batches]
        self.starts, self.n_rows = list(accumulate(sizes, initial=0))[:-1], sum(sizes)

    def close(self) -> None:
        self._batches.clear()
        self._map.close()

    def read_column(self, field: pa.Field, n_rows: int) -> Iterator[pa.Array]:
        """A column, so many rows at a time."""
        position = self.schema.names.index(field.name)  # a name may occur twice
        for batch in self._batches:
            yield from _cut(batch.column(position), n_rows)

    def list_group(self, group: int) -> Iterator[TableRow]:
        sizes = pc.fill_null(pc.binary_length(self._column(group, self.column.data)), 0).to_pylist()
        if self.column.name is None:
            yield from (TableRow(None, size) for size in sizes)
            return
        column = self._column(group, self.column.name)
        check_lengths(column, MOST_NAME_BYTES, "a name")
        names = chain.from_iterable(map(_decode_names, _cut(column, _NAMES_AT_ONCE)))
        yield from map(TableRow, names, sizes)

    def read_group(self, group: int) -> Iterator[pa.Array]:
        yield self._column(group, self.column.data)

    def _column(self, group: int, name: str) -> pa.Array:
        batch = self._batches[group]
        position = batch.schema.get_field_index(name)
        if position < 0:
            parent, child = name.rsplit(".", 1)
            return _child(batch.column(parent), child)
        return batch.column(position)


AudioTable = _Parquet | _Arrow
"""An open table. Its rows come in groups, whose first rows have the numbers ``starts``."""


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


def _flatten(column: pa.Array) -> pa.Array:
    """A column, or its only field if it holds structs."""
    return column.flatten()[0] if pa.types.is_struct(column.type) else column


def _cut(column: pa.Array, n_rows: int) -> Iterator[pa.Array]:
    return (column.slice(at, n_rows) for at in range(0, len(column), n_rows))


def check_lengths(values: pa.Array, most_bytes: int, what: str) -> pa.Array:
    """The lengths of texts, in bytes.

    Raises:
        CorpusError: one is too long, or below zero: then the table is invalid.
    """
    if pa.types.is_string_view(values.type):  # Arrow does not count them; a view begins with its length
        views = np.frombuffer(values.buffers()[1], np.int32)[4 * values.offset : 4 * (values.offset + len(values))]
        lengths = pa.array(views[::4].astype(np.int64), mask=np.asarray(values.is_null()))
    else:
        lengths = pc.cast(pc.binary_length(values), pa.int64())
    found = pc.min_max(lengths).as_py()
    for length in (found["min"] or 0, found["max"] or 0):
        if not 0 <= length <= most_bytes:
            raise CorpusError(f"{what} of {length:,} bytes; {most_bytes:,} are allowed")
    return lengths


def _decode_names(names: pa.Array) -> Iterator[str | None]:
    kind = pa.large_binary() if pa.types.is_large_string(names.type) else pa.binary()
    for name in names.cast(kind).to_pylist():
        yield name.decode(errors="backslashreplace") if name else None
