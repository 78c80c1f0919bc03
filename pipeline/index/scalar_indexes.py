"""The scalar indexes, by which rows are found by their ids and by metadata: created, extended, and dropped where a file
of theirs is lost."""

import datetime as dt
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline import schema
from pipeline.index import engine_errors, vector_index
from pipeline.index.changes import Changes
from pipeline.index.tables import quote
from pipeline.storage import map_in_threads

SCALAR_INDEXES = {
    "files": ("file_id", "audio_id"),
    "clips": ("clip_id", "file_id", "audio_id"),
    "frames": ("audio_id", "begins"),
    "pools": ("audio_id",),
}
"""The columns with indexes, of the tables that there are. Tables of older formats may lack some of the columns."""

ROWS_TO_INDEX = 20_000
"""From this many rows on, metadata columns get indexes: fewer rows are read as fast without."""

FEW_VALUES = 1_000
"""Up to this many different values, a bitmap index is the faster one."""


def indexed_columns(table: Any, name: str) -> list[str]:
    """The columns of Earshot's own that have a scalar index, in the table ``name``."""
    return [column for column in SCALAR_INDEXES[name] if column in table.schema.names]


def find_damaged(table: Any) -> dict[str, str]:
    """The names of the scalar indexes of a table that cannot answer a query, and why: a file of theirs is lost or
    damaged. A damaged page is found where it holds the value of the first row.

    Raises:
        OSError: the store does not answer.
    """
    columns = {index.name: index.field_names[0] for index in table.describe_indices()}
    columns.pop(vector_index.NAME, None)

    def find_why(column: str) -> str | None:
        # Twice, for an error that the engine does not explain may pass.
        return _look_up(table, column) and _look_up(table, column)

    found = zip(columns, map_in_threads(find_why, columns.values()), strict=True)
    return {name: why for name, why in found if why is not None}


def _look_up(table: Any, column: str) -> str | None:
    """Look up a value that there is: for others, an index need not be read to its pages. Returns why that failed."""
    where = f"`{column}` {_is(_first_value(table, column))}"
    try:
        table.count_rows(filter=where)
    except BaseException as error:  # a panic of the engine is no Exception
        if not engine_errors.is_damage(error):
            raise  # such as a store that does not answer
        return engine_errors.tidy(str(error))[:300]
    return None


def _first_value(table: Any, column: str) -> Any:
    """None also where the data are lost, which is no fault of an index."""
    try:
        rows = table.to_table(columns=[column], limit=1)
    except BaseException as error:
        if not engine_errors.is_damage(error):
            raise
        return None
    return rows[column][0].as_py() if rows.num_rows else None


def _is(value: Any) -> str:
    """The condition, in SQL, that a column has a value."""
    if value is None:
        return "IS NULL"
    if isinstance(value, str):
        return f"= {quote(value)}"
    if isinstance(value, dt.datetime):
        return f"= timestamp '{value:%Y-%m-%d %H:%M:%S.%f}'"
    return f"= date '{value}'" if isinstance(value, dt.date) else f"= {value}"


def drop_damaged(changes: Changes) -> list[str]:
    """Drop the indexes that have lost a file: changes that use them would fail. ``extend_indexes`` builds them anew.

    Returns:
        One line on each.
    """
    lost = list[str]()
    for name in changes.versions:
        for index, why in find_damaged(changes.open(name)).items():
            changes.make("drop index", name, partial(_drop_index, name=index))
            lost.append(
                f"the index on `{index.removesuffix('_idx')}` of `{name}` could not be read and was built anew: {why}"
            )
    return lost


def extend_indexes(changes: Changes) -> None:
    """Create the indexes that are missing, and extend the others to all rows."""
    for name in changes.versions:
        table = changes.open(name)
        if table.count_rows() == 0:
            continue
        # Named, for the engine would otherwise extend all indexes, and rewrite the one on vectors.
        existing = [index.name for index in table.describe_indices() if index.name != vector_index.NAME]
        wanted = dict.fromkeys(indexed_columns(table, name), "BTREE")
        if name in ("files", "clips"):
            wanted |= _metadata_indexes(table)
        for column, kind in wanted.items():
            if f"{column}_idx" not in existing:
                changes.make("index", name, partial(_create_index, column=column, kind=kind))
        if existing:
            changes.make("index", name, partial(_extend_index, names=existing))


def _create_index(table: Any, column: str, kind: str) -> Any:
    table.create_scalar_index(f"`{column}`" if not column.isidentifier() else column, kind, name=f"{column}_idx")
    return table


def _extend_index(table: Any, names: list[str]) -> Any:
    table.optimize.optimize_indices(index_names=names)
    return table


def _drop_index(table: Any, name: str) -> Any:
    table.drop_index(name)
    return table


def _metadata_indexes(table: Any) -> dict[str, str]:
    """The kind of index for each metadata column, where there are enough rows for one to be of use."""
    columns = schema.metadata_columns(table.schema)
    if not columns.names or table.count_rows() < ROWS_TO_INDEX:
        return {}
    return {column.name: "BITMAP" if _has_few_values(table, column) else "BTREE" for column in columns}


def _has_few_values(table: Any, column: pa.Field) -> bool:
    """Whether a column has few different values, judged by a sample."""
    if pa.types.is_boolean(column.type):
        return True
    sample = table.sample(min(table.count_rows(), ROWS_TO_INDEX), columns=[column.name])
    return bool(pc.count_distinct(sample[column.name]).as_py() <= FEW_VALUES)
