"""A query embedding in, ranked clips out: by the model's own score, which is the dot product, or by cosine."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline import schema
from pipeline.index.search_settings import ALL_PARTITIONS, SearchSettings
from pipeline.index.tables import to_matrix
from pipeline.search.found import Hit as Hit
from pipeline.search.scores import (
    MAX_COMPARED,
    Vector,
    check_query,
    cosines,
    max_cosine_error,
    max_score_error,
    score_rows,
    to_direction,
)
from pipeline.search.stopping import check_stopped
from pipeline.search.tables import fetch

Measure = Literal["dot", "cosine"]

MIN_CANDIDATES = 200
"""Clips that one search returns at least."""

MIN_ROWS = 50
"""Clips whose columns are read together, at least."""

HIT_COLUMNS = ["clip_id", "file_id", "audio_id", "uri", "start_s", "end_s"]


def find_clips(
    clips: Any,
    query: Vector,
    *,
    k: int,
    where: str | None = None,
    all_windows: bool = False,
    measure: Measure = "dot",
    settings: SearchSettings | None = None,
) -> list[Hit]:
    """The ``k`` best clips for ``query`` (D,), best first, without probabilities.

    A window that overlaps a better one of its file is folded into it, unless ``all_windows``.

    Without ``settings``, candidates come from a scan by the measure itself, ever more of them until no other clip can
    be better; by dot product, unless it is longer than all that were read. Through the vector index they are the best
    by dot product, four for each clip asked for and 200 at least; with ``cosine``, at least ``similar_candidates`` of
    ``settings``.

    A search through the vector index reads all partitions where those that ``settings`` allow hold too few clips, where
    overlapping windows leave too few hits, and with ``where``. If ``where`` keeps at most ``clip_refine`` clips for
    each candidate (800 at least; with ``cosine``, one for each), all these are compared, so the answer is exact.

    Args:
        clips: the table, from ``tables.open_table``. where: SQL over its columns, applied before the search.
        measure: the score; by cosine, a clip whose vector is zero has 0.
        settings: how its vector index is searched, which may miss clips; None for an exact scan.

    Raises:
        UsageError: ``where`` is not valid, or the query is not a finite vector of the table's dimension.
    """
    check_query(clips.schema.field("vector").type.list_size, query)
    search = _Search(clips, query, where, measure)
    n_rows = clips.count_rows()
    n_candidates = min(n_rows, count_candidates(k, settings.similar_candidates if settings and search.is_late else 0))
    if where and settings:
        settings = settings.for_partitions(None)
    while True:
        check_stopped()
        found = search.nearest(n_candidates, settings)
        n_found = len(found.scores)
        if n_found < n_candidates and settings and settings.clip_probes:
            settings = settings.for_partitions(None)
            continue
        hits = search.read_best(found, k, all_windows)
        is_all = n_found < n_candidates or n_candidates >= n_rows
        if is_all or (len(hits) >= k and (settings or hits[-1]["score"] >= search.find_best_left(found))):
            return [search.to_hit(rank, row) for rank, row in enumerate(hits, start=1)]
        n_candidates = min(n_rows, 4 * n_candidates)
        settings = settings and settings.for_partitions(None)


def count_candidates(k: int, least: int = 0) -> int:
    """The clips to choose ``k`` from, at ``least`` so many."""
    return max(4 * k, MIN_CANDIDATES, least)


class _Candidates(NamedTuple):
    """The best clips (n) by the engine, best first: what was read of them, with ``_distance``, and exact scores."""

    rows: pa.Table
    scores: Vector
    error: float
    """How far the engine's score of another clip may lie from the exact one, if no vector is longer than these."""


@dataclass(frozen=True)
class _Search:
    clips: Any
    query: Vector
    where: str | None
    measure: Measure

    @property
    def is_late(self) -> bool:
        """Whether the columns of clips are read after their vectors, and only of the best: by cosine, there are many
        times as many candidates as hits. By dot product there are few, and reading all at once is one request less."""
        return self.measure == "cosine"

    @cached_property
    def names(self) -> list[str]:
        """The user's columns."""
        return list(schema.metadata_columns(self.clips.schema).names)

    def nearest(self, n: int, settings: SearchSettings | None) -> _Candidates:
        by_cosine = self.measure == "cosine" and settings is None and bool(self.query.any())
        found = self._fetch(n, settings, by_cosine=by_cosine)
        if self.measure == "dot":
            scores, longest = score_rows(to_matrix(found["vector"]), self.query)
            return _Candidates(found.drop_columns(["vector"]), scores, max_score_error(self.query, longest))
        if by_cosine and len(found) < n:
            # The engine leaves out vectors whose cosine is NaN to it, such as those of zeros, so all others were found.
            # By dot product the zero vectors have 0, and fewer than ``n`` clips come before them.
            ranked = self._fetch(n, settings, by_cosine=False)
            left = ranked.filter(pc.invert(pc.is_in(ranked["_rowid"], found["_rowid"].combine_chunks())))
            no_distance = pa.nulls(len(left), pa.float32())
            left = left.set_column(left.schema.get_field_index("_distance"), "_distance", no_distance)
            found = pa.concat_tables([found, left.select(found.schema.names).cast(found.schema)])
        scores = cosines(to_matrix(found["vector"]), self.query)
        return _Candidates(found.drop_columns(["vector"]), scores, max_cosine_error(to_direction(self.query)))

    def _fetch(self, n: int, settings: SearchSettings | None, *, by_cosine: bool) -> pa.Table:
        """The ``n`` best clips by the engine, or fewer: of a zero vector it knows no cosine."""
        # A cosine does not depend on the length of the query, and neither do ranks by dot product. With length 1, the
        # engine can hold it in float16.
        query = to_direction(self.query) if self.measure == "cosine" else self.query
        search = self.clips.search(query, vector_column_name="vector").limit(n)
        if settings is None:
            search = search.distance_type("cosine" if by_cosine else "dot").bypass_vector_index()
        else:
            # The vector index is by dot product, since `query` ranks by it; one by cosine would be a second one, for
            # `similar` alone. A clip with a high cosine is among the best by dot product unless its vector is short, so
            # `similar` takes more candidates, and the audit measures how many it needs.
            search = search.distance_type("dot")
            # Lance can also read more partitions until there are enough rows, but version 13 then always reads all.
            search = search.nprobes(settings.clip_probes or ALL_PARTITIONS)
            # By cosine, the whole vectors of all candidates are compared anyway. To choose these by dot product from
            # several times as many whole vectors would find less than to take that many candidates.
            refine = 1 if self.is_late else settings.clip_refine
            search = search.refine_factor(max(1, min(refine, MAX_COMPARED // n)))
        if self.where:
            search = search.where(self.where, prefilter=True)
        if self.is_late:
            search = search.select(["vector", "_distance"]).with_row_id(True)
        else:
            search = search.select([*HIT_COLUMNS, *self.names, "vector", "_distance"])
        return fetch(search, self.clips, self.where)

    def find_best_left(self, found: _Candidates) -> float:
        """The best score of a clip that a scan ranks after these, if it is no longer than the longest of them."""
        if not self.query.any():
            return 0.0  # as all scores
        distances = found.rows["_distance"].to_numpy()
        known = distances[np.isfinite(distances)]
        if len(known) == 0:
            return np.inf
        best = 1.0 - float(known.max()) + found.error
        # A scan by cosine leaves out zero vectors, whose score is 0.
        return max(0.0, best) if self.measure == "cosine" else best

    def read_best(self, found: _Candidates, k: int, all_windows: bool) -> list[dict[str, Any]]:
        """The ``k`` best of the candidates with their scores, best first, ties by file and time. Overlapping windows
        are folded, unless ``all_windows``; then there may be fewer."""
        order = np.argsort(-found.scores, kind="stable")
        worse = -found.scores[order]
        rows, hits = list[dict[str, Any]](), list[dict[str, Any]]()
        while len(hits) < k and len(rows) < len(order):
            wanted = min(len(order), max(2 * len(rows), 2 * k, MIN_ROWS))
            stop = int(np.searchsorted(worse, worse[wanted - 1], side="right"))  # ties come together
            some = order[len(rows) : stop]
            read = self._read(found, some).to_pylist()
            rows += [{**row, "score": score} for row, score in zip(read, found.scores[some].tolist(), strict=True)]
            rows.sort(key=lambda row: (-row["score"], row["uri"], row["start_s"]))
            hits = rows if all_windows else _fold_overlaps(rows)
        return hits[:k]

    def _read(self, found: _Candidates, numbers: npt.NDArray[np.int64]) -> pa.Table:
        """The columns of some candidates, in this order."""
        some = found.rows.take(pa.array(numbers))
        if not self.is_late:
            return some
        row_ids = some["_rowid"].combine_chunks()
        search = self.clips.take_row_ids(row_ids.to_pylist()).select([*HIT_COLUMNS, *self.names])
        table = search.with_row_id().to_arrow()
        return table.take(pc.index_in(row_ids, table["_rowid"].combine_chunks()))

    def to_hit(self, rank: int, row: dict[str, Any]) -> Hit:
        metadata = {name: row[name] for name in self.names}
        span_s = row["start_s"], row["end_s"]
        return Hit(rank, row["uri"], *span_s, row["score"], None, row["clip_id"], metadata, row["audio_id"])


def _fold_overlaps(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Keep the best of overlapping windows of one file."""
    kept: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        others = kept.setdefault(row["file_id"], [])
        if not any(row["start_s"] < other["end_s"] and other["start_s"] < row["end_s"] for other in others):
            others.append(row)
    return sorted((row for rows in kept.values() for row in rows), key=lambda row: (-row["score"], row["uri"]))
