"""The tables of an index on disk: made empty, opened as they were published, read, and compacted."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import lance
import numpy as np
import numpy.typing as npt
import pyarrow as pa
from lance.fragment import write_fragments

from pipeline import schema, storage
from pipeline.errors import CommitConflict, IndexMismatch
from pipeline.index import journal
from pipeline.index.journal import DATA_TABLES, Failpoint, Published, table_uri

FILE_FORMAT = "2.2"
"""Lance's file format, pinned: lancedb 0.40 cannot read what newer ones write."""

ROWS_PER_FRAGMENT = 250_000
"""Fragments with fewer rows are merged, up to this size: half a gigabyte of frames of 1,024 numbers."""

ROWS_TO_COPY = 4_000
"""From this many rows a fragment, on average, pages are copied as they are. That is several times as fast as encoding
them again, but each page is read by itself: many pages of a few rows would slow down every query."""

FRAGMENTS_BETWEEN = 8
"""Up to this many small fragments stay unmerged: in the journal, and at the end of a run in ``files`` and ``clips``."""


def create_tables(
    path: str | Path,
    settings: dict[str, Any],
    *,
    clip_dimension: int,
    frame_dimension: int,
    failpoint: Failpoint = lambda step: None,
) -> None:
    """Create an empty index. A crash before its last step leaves nothing that counts as an index.

    Args:
        settings: everything that decides the vectors (models, window, decoding); stored in the first journal row.

    Raises:
        CommitConflict: there is one already. IndexMismatch: there are tables with rows, but no journal.
    """
    if journal.exists(path):
        raise CommitConflict(f"{path}: another run has made this index meanwhile; run again")
    journal.check_whole(path)
    schemas = {
        "files": schema.FILES,
        "clips": schema.clips_schema(clip_dimension),
        "frames": schema.frames_schema(frame_dimension),
        "pools": schema.pools_schema(frame_dimension),
        "batches": schema.BATCHES,
    }
    if settings["frames"] == "none":
        del schemas["pools"]
    if not storage.is_url(str(path)):  # an object store has no folders
        Path(path).mkdir(parents=True, exist_ok=True)
    for name, arrow_schema in schemas.items():
        failpoint(f"create {name}")
        lance.write_dataset(
            arrow_schema.empty_table(), table_uri(path, name), mode="overwrite", data_storage_version=FILE_FORMAT
        )
    versions = {name: lance.dataset(table_uri(path, name)).version for name in DATA_TABLES if name in schemas}
    detail = {"format": journal.FORMAT, "settings": settings}
    batch_id = schema.digest("create", json.dumps(settings, sort_keys=True))
    failpoint("publish")
    row = journal.make_row(0, batch_id, batch_id, "create", versions, detail=detail)
    journal.publish(journal.open_journal(path), [row])


def read_rows(table: Any, column: str, ids: Iterable[str], columns: list[str]) -> pa.Table:
    """The rows of a table whose ``column`` is one of ``ids``."""
    return table.to_table(columns=[column, *columns], filter=among(column, ids))


def latest_version(path: str | Path, name: str) -> int:
    """The newest version of a table, published or not."""
    return int(lance.dataset(table_uri(path, name)).version)


def open_published(path: str | Path, name: str, published: Published | None = None) -> Any:
    """The table ``name`` as it was published, a ``lance.LanceDataset``."""
    published = published or journal.read_published(path)
    return lance.dataset(table_uri(path, name), version=published.versions[name])


def read_files(path: str | Path, published: Published | None = None) -> pa.Table:
    """The whole ledger as it was published; columns that an older format lacks hold null.

    Raises:
        IndexMismatch: a metadata column has the name of such a column.
    """
    table = open_published(path, "files", published)
    find_missing(path, table.schema)  # refuses such a column
    return complete(table.to_table(), schema.FILES)


def complete(rows: pa.Table, columns: pa.Schema) -> pa.Table:
    """The rows with all of ``columns``: those that they lack hold null."""
    for column in columns:
        if column.name not in rows.column_names:
            rows = rows.append_column(column, pa.nulls(rows.num_rows, column.type))
    return rows


def find_missing(path: str | Path, there: pa.Schema) -> list[pa.Field]:
    """The columns of ``files`` that a table of an older format lacks.

    Raises:
        IndexMismatch: a metadata column has the name of one of them.
    """
    for number, names in schema.FILES_SINCE.items():
        # A format adds its columns together: a table that has some of them, or of other types, has them from metadata.
        taken = [name for name in names if name in there.names]
        if taken and (len(taken) < len(names) or any(there.field(n).type != schema.FILES.field(n).type for n in names)):
            raise IndexMismatch(
                f"{path}: its metadata has a column `{taken[0]}`, and since index format {number} that is a name of"
                " Earshot's own: rename it in your table, and index into another folder"
            )
    return [column for column in schema.FILES if column.name not in there.names]


def select_metadata(files: pa.Table) -> pa.Table:
    """``uri``, ``status`` and the metadata columns of ledger rows."""
    return files.select(["uri", "status", *schema.metadata_columns(files.schema).names])


def no_clips(path: str | Path, published: Published) -> pa.Table:
    """An empty table with the columns that ``clips`` has in every index, but ``batch_id``."""
    arrow_schema = open_published(path, "clips", published).schema
    dimension = arrow_schema.field("vector").type.list_size
    return schema.clips_schema(dimension).empty_table().drop_columns(["batch_id"])


def write_rows(path: str | Path, name: str, rows: Sequence[pa.RecordBatch]) -> list[str]:
    """Write rows of a table as new fragments, on any machine. They become part of it when a batch commits them.

    Returns:
        The metadata of the fragments, JSON, in the order of the rows; none for no rows.
    """
    if not rows:
        return []
    table = pa.Table.from_batches(rows)
    fragments = write_fragments(table, table_uri(path, name), mode="append", data_storage_version=FILE_FORMAT)
    return [json.dumps(fragment.to_json()) for fragment in fragments]


def quote(text: str) -> str:
    """A text in SQL."""
    doubled = text.replace("'", "''")
    return f"'{doubled}'"


def among(column: str, values: Iterable[str]) -> str:
    """SQL for the rows whose ``column`` has one of ``values``, at least one."""
    return f"{column} IN ({quote_all(values)})"


def quote_all(texts: Iterable[str]) -> str:
    """Texts in SQL, for ``IN``: sorted, with commas between them."""
    return ", ".join(map(quote, sorted(texts)))


def indexed_files(where: str | None = None) -> str:
    """SQL over the columns of ``files`` for the indexed ones that ``where`` selects."""
    return "status = 'indexed'" + ("" if where is None else f" AND ({where})")


def to_matrix(column: pa.Array | pa.ChunkedArray) -> npt.NDArray[np.float16]:
    """A column of vectors as an array (n, D), also where n is 0."""
    whole = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    matrix: npt.NDArray[np.float16] = whole.flatten().to_numpy(zero_copy_only=False)
    return matrix.reshape(-1, column.type.list_size)


# --- compaction -------------------------------------------------------------------------------------------------------


def compact(table: Any) -> Any:
    """Merge the small fragments of ``table``, in order, and drop deleted rows from their files. Makes two versions: the
    first reserves the numbers of fragments."""
    small = small_fragments(table)
    table.optimize.compact_files(
        target_rows_per_fragment=ROWS_PER_FRAGMENT,
        compaction_mode="try_binary_copy" if sum(small) > ROWS_TO_COPY * len(small) else "reencode",
        data_storage_version=FILE_FORMAT,
    )
    return table


def small_fragments(table: Any) -> list[int]:
    """The number of rows of each fragment that could be merged."""
    return [n for fragment in table.get_fragments() if (n := fragment.count_rows()) < ROWS_PER_FRAGMENT]
