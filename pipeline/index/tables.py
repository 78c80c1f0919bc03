"""The tables of an index on disk: made empty, opened as they were published, and read."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import lance
import pyarrow as pa
from lance.fragment import write_fragments

from pipeline import schema, storage
from pipeline.errors import CommitConflict, IndexMismatch
from pipeline.index import journal
from pipeline.index.journal import DATA_TABLES, Failpoint, Published, table_uri

FILE_FORMAT = "2.2"
"""Lance's file format, pinned: lancedb 0.40 cannot read what newer ones write."""


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
        "batches": schema.BATCHES,
    }
    if not storage.is_url(str(path)):  # an object store has no folders
        Path(path).mkdir(parents=True, exist_ok=True)
    for name, arrow_schema in schemas.items():
        failpoint(f"create {name}")
        lance.write_dataset(
            arrow_schema.empty_table(), table_uri(path, name), mode="overwrite", data_storage_version=FILE_FORMAT
        )
    versions = {name: lance.dataset(table_uri(path, name)).version for name in DATA_TABLES}
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
    missing = find_missing(path, table.schema)
    rows = table.to_table()
    for column in missing:
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


def write_frames(path: str | Path, rows: Iterable[pa.RecordBatch], frames_schema: pa.Schema) -> list[str]:
    """Write frame rows as new fragments, on any machine. They become part of the table when a batch commits them.

    Returns:
        The metadata of the fragments, JSON, in the order of the rows.
    """
    reader = pa.RecordBatchReader.from_batches(frames_schema, rows)
    fragments = write_fragments(reader, table_uri(path, "frames"), mode="append", data_storage_version=FILE_FORMAT)
    return [json.dumps(fragment.to_json()) for fragment in fragments]


def among(column: str, ids: Iterable[str]) -> str:
    return f"{column} IN ({', '.join(repr(identifier) for identifier in sorted(ids))})"
