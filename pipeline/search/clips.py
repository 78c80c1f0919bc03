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
from pipeline.index.vectors import to_matrix

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
        if where is None or not _is_wrong(where, error, table):
            raise
        raise _wrong_where(asked or where, error, table) from None


def dot_products(vectors: npt.NDArray[Any], query: Vector) -> Vector:
    """The scores (n,) of ``vectors`` (n, D), whatever number of them is scored at once: added up in float64."""
    return (vectors.astype(np.float64) @ query.astype(np.float64)).astype(np.float32)


def measure_lengths(vectors: npt.NDArray[Any]) -> float:
    """The length (Euclidean norm) of the longest of ``vectors`` (n, D); 0 if there is none."""
    return float(np.linalg.norm(vectors.astype(np.float32), axis=1).max(initial=0.0))


def rounding(query: Vector, longest: float) -> float:
    """How far the engine's score of a vector may lie from the exact one, where no vector is longer than ``longest``.

    The engine rounds the query to the float16 of the stored vectors. By the inequality of Cauchy and Schwarz, that
    changes a score by at most the length of what is rounded away times that of the vector. Some CPUs multiply in
    float16, which rounds each product once more. The sum of D products is in float32, and the engine gives 1 less it.
    """
    exact = query.astype(np.float64)
    rounded_away = float(np.linalg.norm(exact - query.astype(np.float16).astype(np.float64)))
    largest = float(np.linalg.norm(exact)) * longest
    float16, float32 = (float(np.finfo(kind).eps) for kind in (np.float16, np.float32))
    return rounded_away * longest + float16 / 2 * largest + float32 * (len(query) * largest + 1.0)


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
        rows, vectors = _nearest(clips, query, n_candidates, where, names)
        hits = _rank(rows, vectors, query, measure)
        if not all_windows:
            hits = _fold_overlaps(hits)
        is_all = len(rows) < n_candidates or n_candidates >= n_rows
        if is_all or (
            len(hits) >= k and (measure == "cosine" or hits[k - 1]["score"] >= _best_left(rows, vectors, query))
        ):
            return [_to_hit(rank, row, names) for rank, row in enumerate(hits[:k], start=1)]
        n_candidates = min(n_rows, 4 * n_candidates)


def _best_left(rows: list[dict[str, Any]], vectors: npt.NDArray[Any], query: Vector) -> float:
    """What a clip can score that the engine ranks after these, if it is not longer than the longest of them."""
    return 1.0 - float(rows[-1]["_distance"]) + rounding(query, measure_lengths(vectors))


def check_query(table: Any, query: Vector) -> None:
    """Lance answers a NaN with arbitrary rows, and a wrong dimension with a misleading message: refuse both here.

    Raises:
        UsageError: the query is not a vector of the table's dimension, of numbers that float16 can hold.
    """
    dimension = table.schema.field("vector").type.list_size
    if query.shape != (dimension,) or not (np.abs(query) <= np.finfo(np.float16).max).all():
        raise UsageError(f"the query must be {dimension} finite numbers up to 65504, not {query.shape}")


def _nearest(
    clips: Any, query: Vector, n: int, where: str | None, names: list[str]
) -> tuple[list[dict[str, Any]], npt.NDArray[np.float16]]:
    """The best clips by the engine's score, best first, and their vectors (n, D)."""
    search = clips.search(query, vector_column_name="vector").distance_type("dot").limit(n)
    if where:
        search = search.where(where, prefilter=True)
    try:
        table = search.select([*HIT_COLUMNS, *names, "_distance"]).to_arrow()
    except (ValueError, RuntimeError, OSError) as error:
        if where is None or not _is_wrong(where, error, clips):
            raise
        raise _wrong_where(where, error, clips) from None
    return table.drop_columns(["vector"]).to_pylist(), to_matrix(table["vector"])


def _is_wrong(where: str, error: Exception, table: Any) -> bool:
    """Whether the filter is to blame for an error, rather than a table that is damaged.

    Lance raises the same types for both, so the filter is tried on a table of the same columns without a row. Where it
    passes there, it may still fail on a value (a name cast to a number), which the beginning of the message says.
    """
    empty = lancedb.connect("memory://").create_table("empty", schema=table.schema)
    try:
        empty.search().where(where).limit(1).to_arrow()
    except (ValueError, RuntimeError, OSError):
        return True
    return _ON_A_VALUE.match(str(error)) is not None


_ON_A_VALUE = re.compile(
    r"(?:lance error: )?Query Execution error: Error applying filter expression to batch: Arrow error"
)


def _wrong_where(where: str, error: Exception, table: Any) -> UsageError:
    first_line = " ".join(str(error).split("\n")[0].split())
    first_line = re.split(r" Valid fields are |, /\S+\.rs", first_line)[0][:200]  # and not where in Lance it was found
    columns = ", ".join(name for name in table.schema.names if name != "vector")
    return UsageError(f"--where {where!r}: {first_line} (columns: {columns})")


def _rank(
    rows: list[dict[str, Any]], vectors: npt.NDArray[np.float16], query: Vector, measure: str
) -> list[dict[str, Any]]:
    """The rows with their exact scores, best first, ties by file and time."""
    scores = dot_products(vectors, query)
    if measure == "cosine":
        scores /= np.maximum(np.linalg.norm(vectors.astype(np.float32), axis=1) * np.linalg.norm(query), 1e-30)
    scored = [{**row, "score": float(score)} for row, score in zip(rows, scores, strict=True)]
    return sorted(scored, key=lambda row: (-row["score"], row["uri"], row["start_s"]))


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
