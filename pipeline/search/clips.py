"""A query embedding in, ranked clips out. Scores are the model's own: dot products, not normalised."""

from collections.abc import Iterable
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from pipeline import schema
from pipeline.index.search_settings import ALL_PARTITIONS, SearchSettings
from pipeline.index.tables import to_matrix
from pipeline.search.found import Hit as Hit
from pipeline.search.scores import (
    MAX_COMPARED,
    Vector,
    check_query,
    dot_products,
    longest_norm,
    max_score_error,
    to_cosines,
)
from pipeline.search.stopping import check_stopped
from pipeline.search.tables import fetch

MIN_CANDIDATES = 200
"""Clips that one search returns at least."""

HIT_COLUMNS = ["clip_id", "file_id", "audio_id", "uri", "start_s", "end_s", "vector"]


class Hits(list[Hit]):
    """Clips, best first. Every clip whose dot product exceeds ``least`` was compared, as far as the index knows."""

    def __init__(self, hits: Iterable[Hit], least: float) -> None:
        super().__init__(hits)
        self.least = least


def find_clips(
    clips: Any,
    query: Vector,
    *,
    k: int,
    where: str | None = None,
    all_windows: bool = False,
    measure: Literal["dot", "cosine"] = "dot",
    settings: SearchSettings | None = None,
) -> Hits:
    """The ``k`` best clips for ``query`` (D,), best first, without probabilities.

    A window that overlaps a better one of its file is folded into it, unless ``all_windows``. With ``cosine``, the best
    candidates by dot product are ranked again: four times as many as asked, at least 200.

    A search through the vector index reads all partitions where those that ``settings`` allow hold too few clips, where
    overlapping windows leave too few hits, and with ``where``. If ``where`` keeps at most ``clip_refine`` clips for
    each candidate (800 at least), all these are compared, so the answer is exact.

    Args:
        clips: the table, from ``tables.open_table``. where: SQL over its columns, applied before the search.
        settings: how its vector index is searched, which may miss clips; None for an exact scan.

    Raises:
        UsageError: ``where`` is not valid, or the query is not a finite vector of the table's dimension.
    """
    columns = clips.schema
    check_query(columns.field("vector").type.list_size, query)
    n_rows = clips.count_rows()
    names = schema.metadata_columns(columns).names
    n_candidates = min(n_rows, max(4 * k, MIN_CANDIDATES))
    if where and settings:
        settings = settings.for_partitions(None)
    while True:
        check_stopped()
        rows, vectors = _nearest(clips, query, n_candidates, where, names, settings)
        if len(rows) < n_candidates and settings and settings.clip_probes:
            settings = settings.for_partitions(None)
            continue
        hits = _rank(rows, vectors, query, measure)
        if not all_windows:
            hits = _fold_overlaps(hits)
        is_all = len(rows) < n_candidates or n_candidates >= n_rows
        least = -np.inf if is_all else _best_left(rows, vectors, query)
        may_change = settings is None and measure == "dot" and len(hits) >= k and hits[k - 1]["score"] < least
        if is_all or (len(hits) >= k and not may_change):
            return Hits((_to_hit(rank, row, names) for rank, row in enumerate(hits[:k], start=1)), least)
        n_candidates = min(n_rows, 4 * n_candidates)
        settings = settings and settings.for_partitions(None)


def _best_left(rows: list[dict[str, Any]], vectors: npt.NDArray[Any], query: Vector) -> float:
    """The best score of a clip that the engine ranks after these, if it is no longer than the longest of them."""
    return 1.0 - float(rows[-1]["_distance"]) + max_score_error(query, longest_norm(vectors))


def _nearest(
    clips: Any, query: Vector, n: int, where: str | None, names: list[str], settings: SearchSettings | None
) -> tuple[list[dict[str, Any]], npt.NDArray[np.float16]]:
    """The best clips by the engine's score, best first, and their vectors (n, D)."""
    search = clips.search(query, vector_column_name="vector").distance_type("dot").limit(n)
    if settings is None:
        search = search.bypass_vector_index()
    else:
        # Lance can also read more partitions until there are enough rows, but version 13 then reads all of them always.
        search = search.nprobes(settings.clip_probes or ALL_PARTITIONS)
        search = search.refine_factor(max(1, min(settings.clip_refine, MAX_COMPARED // n)))
    if where:
        search = search.where(where, prefilter=True)
    table = fetch(search.select([*HIT_COLUMNS, *names, "_distance"]), clips, where)
    return table.drop_columns(["vector"]).to_pylist(), to_matrix(table["vector"])


def _rank(
    rows: list[dict[str, Any]], vectors: npt.NDArray[np.float16], query: Vector, measure: str
) -> list[dict[str, Any]]:
    """The rows with their exact scores, best first, ties by file and time."""
    scores = dot_products(vectors, query)
    if measure == "cosine":
        scores = to_cosines(scores, vectors, query)
    scored = [{**row, "score": float(score)} for row, score in zip(rows, scores, strict=True)]
    return sorted(scored, key=lambda row: (-row["score"], row["uri"], row["start_s"]))


def _fold_overlaps(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Keep the best of overlapping windows of one file."""
    kept: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        others = kept.setdefault(row["file_id"], [])
        if not any(row["start_s"] < other["end_s"] and other["start_s"] < row["end_s"] for other in others):
            others.append(row)
    return sorted((row for rows in kept.values() for row in rows), key=lambda row: (-row["score"], row["uri"]))


def _to_hit(rank: int, row: dict[str, Any], names: list[str]) -> Hit:
    metadata = {name: row[name] for name in names}
    span_s = row["start_s"], row["end_s"]
    return Hit(rank, row["uri"], *span_s, row["score"], None, row["clip_id"], metadata, row["audio_id"])
