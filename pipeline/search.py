"""A query embedding in, ranked clips out. Scores are the model's own: dot products, not normalised."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

import lancedb
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline import schema, storage
from pipeline.errors import UsageError

Vector = npt.NDArray[np.float32]

HIT_COLUMNS = ["clip_id", "file_id", "uri", "start_s", "end_s", "vector"]


@dataclass(frozen=True)
class Hit:
    """A clip that was found. ``probability`` is None where the model defines none (sound against sound)."""

    rank: int
    uri: str
    start_s: float
    end_s: float
    score: float
    probability: float | None
    clip_id: str
    metadata: dict[str, Any] = field(default_factory=dict)
    """The user's columns."""


def open_table(path: str, name: str, version: int | None = None) -> Any:
    """A table of the index as of ``version``, or the newest, for reading: a lancedb table."""
    table = lancedb.connect(storage.database(path)).open_table(name)
    if version is not None:
        table.checkout(version)
    return table


def read_rows(
    table: Any, columns: list[str] | None = None, where: str | None = None, asked: str | None = None
) -> pa.Table:
    """Rows of a table, in the order in which they were written.

    Args:
        asked: what of ``where`` is the user's, if not all.

    Raises:
        UsageError: there is no such column, or ``where`` is not valid.
    """
    names = table.schema.names
    if unknown := [name for name in columns or () if name not in names]:
        raise UsageError(f"columns {', '.join(unknown)}: there are only {', '.join(names)}")
    search = table.search().select(columns or names).limit(max(1, table.count_rows()))
    try:
        return (search.where(where) if where else search).to_arrow()
    except (ValueError, RuntimeError, OSError) as error:
        if where is None or "LanceError(IO)" in str(error):  # a damaged table, whatever was asked
            raise
        raise _wrong_where(asked or where, error, table) from None


def find_clips(
    clips: Any,
    query: Vector,
    *,
    k: int,
    where: str | None = None,
    all_windows: bool = False,
    measure: Literal["dot", "cosine"] = "dot",
) -> list[Hit]:
    """The ``k`` best clips for ``query`` (D,), best first; probabilities are left to the caller.

    Windows of one file that overlap a better one are folded into it, unless ``all_windows``. With ``cosine``, the
    candidates are the best by dot product, four times as many as asked and at least 200, ranked anew.

    Args:
        clips: the table, from ``open_table``. where: SQL over its columns, applied before the search.

    Raises:
        UsageError: ``where`` is not valid, or the query is not a finite vector of the table's dimension.
    """
    check_query(clips, query)
    n_rows = clips.count_rows()
    names = schema.metadata_columns(clips.schema).names
    n_candidates = min(n_rows, max(4 * k, 200))
    while True:
        rows = _nearest(clips, query, n_candidates, where, names)
        hits = _rank(rows, query, measure)
        if not all_windows:
            hits = _fold_overlaps(hits)
        if len(hits) >= k or len(rows) < n_candidates or n_candidates >= n_rows:
            return [_to_hit(rank, row, names) for rank, row in enumerate(hits[:k], start=1)]
        n_candidates = min(n_rows, 4 * n_candidates)


def check_query(table: Any, query: Vector) -> None:
    """Lance answers a NaN with arbitrary rows, and a wrong dimension with a misleading message: refuse both here."""
    dimension = table.schema.field("vector").type.list_size
    if query.shape != (dimension,) or not np.isfinite(query).all():
        raise UsageError(f"the query must be {dimension} finite numbers, not {query.shape}")


def _nearest(clips: Any, query: Vector, n: int, where: str | None, names: list[str]) -> list[dict[str, Any]]:
    search = clips.search(query, vector_column_name="vector").distance_type("dot").limit(n)
    if where:
        search = search.where(where, prefilter=True)
    try:
        table = search.select([*HIT_COLUMNS, *names, "_distance"]).to_arrow()
    except (ValueError, RuntimeError, OSError) as error:
        if where is None or "LanceError(IO)" in str(error):  # a damaged table, whatever was asked
            raise
        raise _wrong_where(where, error, clips) from None
    rows: list[dict[str, Any]] = table.drop_columns(["vector"]).to_pylist()
    vectors = table["vector"].combine_chunks().flatten().to_numpy().reshape(len(rows), -1).astype(np.float32)
    for row, vector in zip(rows, vectors, strict=True):
        row["vector"] = vector
    return rows


def _wrong_where(where: str, error: Exception, table: Any) -> UsageError:
    first_line = " ".join(str(error).split("\n")[0].split())
    first_line = re.split(r" Valid fields are |, /\S+\.rs", first_line)[0][:200]  # and not where in Lance it was found
    columns = ", ".join(name for name in table.schema.names if name != "vector")
    return UsageError(f"--where {where!r}: {first_line} (columns: {columns})")


def _rank(rows: list[dict[str, Any]], query: Vector, measure: str) -> list[dict[str, Any]]:
    """Scores in float32 (the engine's own round the query to float16), best first, ties by file and time."""
    for row in rows:
        row["score"] = float(row["vector"] @ query)
        if measure == "cosine":
            norms = float(np.linalg.norm(row["vector"]) * np.linalg.norm(query))
            row["score"] = row["score"] / norms if norms else 0.0
    return sorted(rows, key=lambda row: (-row["score"], row["uri"], row["start_s"]))


def _fold_overlaps(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of windows of one file that overlap, the best one stands for the others."""
    kept: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        others = kept.setdefault(row["file_id"], [])
        if not any(row["start_s"] < other["end_s"] and other["start_s"] < row["end_s"] for other in others):
            others.append(row)
    return sorted((row for rows in kept.values() for row in rows), key=lambda row: (-row["score"], row["uri"]))


def _to_hit(rank: int, row: dict[str, Any], names: list[str]) -> Hit:
    metadata = {name: row[name] for name in names}
    return Hit(rank, row["uri"], row["start_s"], row["end_s"], row["score"], None, row["clip_id"], metadata)
