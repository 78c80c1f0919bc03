"""Tables of an index, opened at a version and read with filters. A wrong filter is the user's error, in one line."""

import re
from typing import Any

import lancedb
import pyarrow as pa

from pipeline import storage
from pipeline.errors import UsageError, suggest
from pipeline.index import engine_errors


def open_table(path: str, name: str, version: int | None = None) -> Any:
    """A lancedb table at ``version``, or at the newest one, for reading."""
    table = lancedb.connect(storage.database(path)).open_table(name)
    if version is not None:
        table.checkout(version)
    return table


def read_rows(
    table: Any, columns: list[str] | None = None, where: str | None = None, asked: str | None = None
) -> pa.Table:
    """Rows of a table, in the order of writing.

    Args:
        asked: the user's part of ``where``, for messages; all of it by default.

    Raises:
        UsageError: there is no such column, or ``where`` is not valid.
    """
    names = table.schema.names
    if unknown := [name for name in columns or () if name not in names]:
        raise UsageError(f"columns {', '.join(unknown)}: there are only {', '.join(names)}")
    search = table.search().select(columns or names).limit(max(1, table.count_rows()))
    return fetch(search.where(where) if where else search, table, where, asked)


def fetch(search: Any, table: Any, where: str | None, asked: str | None = None) -> pa.Table:
    """The result of a search of a table, with the filter ``where``.

    Lance raises the same types for a wrong filter and for a damaged table. So the filter is tried on a table of the
    same columns without rows. A filter that passes there may still fail on a value (a name cast to a number), which the
    beginning of the message tells.

    Args:
        asked: the user's part of ``where``, for messages; all of it by default.

    Raises:
        UsageError: the filter is wrong. Errors of a damaged table pass as they are.
    """
    try:
        return search.to_arrow()
    except (ValueError, RuntimeError, OSError) as error:
        if where is None or not (engine_errors.is_about_a_value(str(error)) or _try_without_rows(where, table)):
            raise
        raise _wrong_where(asked or where, error, table) from None


def check_where(where: str | None, table: Any) -> None:
    """Refuse a wrong filter before anything else is loaded, as far as a table without rows tells.

    Raises:
        UsageError: it is wrong.
    """
    if where is not None and (error := _try_without_rows(where, table)):
        raise _wrong_where(where, error, table)


def _try_without_rows(where: str, table: Any) -> Exception | None:
    """The error of a filter on a table of the same columns without rows; None if it passes."""
    empty = lancedb.connect("memory://").create_table("empty", schema=table.schema)
    try:
        empty.search().where(where).limit(1).to_arrow()
    except (ValueError, RuntimeError, OSError) as error:
        return error
    return None


def _wrong_where(where: str, error: Exception, table: Any) -> UsageError:
    first_line = " ".join(str(error).split("\n")[0].split())
    first_line = re.split(r" Valid fields are |, /\S+\.rs", first_line)[0][:200]  # without the place in Lance's source
    names = [name for name in table.schema.names if name != "vector"]
    unknown = re.search(r"No field named \W?([^`'\". ]+)", first_line)
    like = suggest(unknown[1], names) if unknown else ""
    return UsageError(f"--where {where!r}: {first_line.rstrip('.')}{like} (columns: {', '.join(names)})")
