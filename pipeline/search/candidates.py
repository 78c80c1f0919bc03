"""Where events may be: the best frames of an exact scan, or the best pools of an index. Best first, page by page."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
import pyarrow as pa

from pipeline.index.row_positions import RowPositions
from pipeline.index.search_settings import ALL_PARTITIONS, SearchSettings
from pipeline.index.tables import among, quote_all, to_matrix
from pipeline.search.scores import Vector, score_rows
from pipeline.search.stopping import check_stopped

MIN_FRAMES, MAX_FRAMES = 2_000, 1_000_000
"""Frames that one scan of the corpus returns."""

MIN_POOLS, MAX_POOLS = 200, 300_000
"""Pools that one page holds at least, and that one search returns at most. A question that gets to the most takes
seconds and 0.2 GB, and ends with the events that it has found."""

COMPARED_POOLS = 4
"""Whole vectors that are compared for each pool of a page: the codes of the vector index lead to them. One takes 7 µs,
and the sixty frames that are read for a pool take about eight times as long."""

POOLS_AT_ONCE = 8_192
"""Whole vectors of pools that are read together: 17 MB of 1,024 numbers each."""

LEAST_PER_EVENT, LEAST_EVENTS = 5, 20
"""Pools to read for each event, and events to read them for, at least: 100 pools cost about 10 ms. With one or two
pools for each, recall falls as ``k`` grows (0.98 of 20 events, but 0.73 and 0.87 of 100), so what was measured with one
``k`` would not hold for another. Recall is never measured with fewer than 20 events."""


class Candidate(NamedTuple):
    """Frames ``first`` .. ``stop - 1`` of an audio, in or around which an event may be.

    ``score`` is the engine's for a frame, and that of the mean for a pool. ``position_of_0`` is the expected place of
    frame 0, where the source knows it: see ``RowPositions``.
    """

    audio_id: str
    first: int
    stop: int
    score: float
    position_of_0: int | None = None


class Page(NamedTuple):
    """Candidates, best first. Those of later pages are worse than ``worst``, except pools that the vector index has
    underrated."""

    candidates: list[Candidate]
    worst: float


@dataclass(frozen=True)
class Scope:
    """The audios to search in: all, or those that hold a file that the user selects.

    ``audio_ids`` are all of them; ``is_named``: they are few enough to be named in a search. Otherwise a search covers
    all audios, and the candidates of others are left out afterwards.
    """

    audio_ids: frozenset[str] | None = None
    is_named: bool = False
    share: float = 1.0
    """Of all files, that the user selects."""
    n_frames: int = 0
    """Of the selected files."""

    @property
    def n_searched(self) -> float:
        """Candidates that a search returns for each one in these audios."""
        return 1.0 if self.is_named else 1.0 / self.share

    def select(self, table: pa.Table) -> pa.Table:
        """The candidates in these audios, from a search with ``find_filter``."""
        if self.is_named or self.audio_ids is None:
            return table
        return table.filter(pa.array([audio_id in self.audio_ids for audio_id in table["audio_id"].to_pylist()]))

    def find_filter(self, left_out: list[str]) -> str | None:
        """The filter of a search, without the audios ``left_out``."""
        conditions = []
        if self.audio_ids is not None and self.is_named:
            conditions.append(among("audio_id", self.audio_ids))
        if left_out:
            conditions.append(f"audio_id NOT IN ({quote_all(left_out)})")
        return " AND ".join(conditions) or None

    def holds(self, audio_id: str) -> bool:
        return self.is_named or self.audio_ids is None or audio_id in self.audio_ids


class Reader(Protocol):
    """What a source of candidates asks of the one who reads them."""

    def finished_audios(self) -> list[str]:
        """Audios in which nothing is left to be found."""
        ...


class FrameScan:
    """The frames that can begin an event: every vector is read.

    Args:
        on: the score at which an event begins. margin: how far the engine's scores may lie from the exact ones.
    """

    frames_around = 25
    """An event reaches so far around its candidate, mostly."""
    knows_positions = True
    least = 0
    """Candidates that must be read, whatever their scores."""

    def __init__(
        self, frames: Any, positions: RowPositions, query: Vector, scope: Scope, *, k: int, on: float, margin: float
    ) -> None:
        self.margin = margin
        self._frames, self._positions, self._query, self._scope = frames, positions, query, scope
        self._on, self._k = on, k

    def pages(self, reader: Reader) -> Iterator[Page]:
        n_rows = self._frames.count_rows()
        n = min(n_rows, MAX_FRAMES, max(MIN_FRAMES, 100 * self._k))
        best = None
        while n:
            check_stopped()
            search = _nearest(self._frames, self._query, n, self._scope.find_filter(reader.finished_audios()))
            search = search.distance_range(lower_bound=best, upper_bound=1.0 - self._on + self.margin)
            search = search.bypass_vector_index().with_row_id(True)
            table = search.select(["audio_id", "frame", "_distance"]).to_arrow()
            if table.num_rows:
                yield Page(self._to_candidates(table), 1.0 - table["_distance"][-1].as_py())
            if table.num_rows < n or n == n_rows:
                return
            first, last = table["_distance"][0].as_py(), table["_distance"][-1].as_py()
            # The next page begins at the last distance of this one. Equal frames come again: if they fill it, it must
            # grow.
            best, n = last, min(n_rows, 8 * n if first == last else max(n, min(8 * n, MAX_FRAMES)))

    def _to_candidates(self, table: pa.Table) -> list[Candidate]:
        frames = table["frame"].to_numpy()
        positions = self._positions.of(table["_rowid"].to_numpy()) - frames
        columns = (table["audio_id"].to_pylist(), frames.tolist(), table["_distance"].to_pylist(), positions.tolist())
        return [
            Candidate(audio_id, frame, frame + 1, 1.0 - distance, position)
            for audio_id, frame, distance, position in zip(*columns, strict=True)
            if self._scope.holds(audio_id)
        ]


class PoolSearch:
    """Pools of like frames, by the score of their mean.

    The codes of the vector index rank all pools. A page has the best quarter of those that they lead to, by their whole
    vectors; this is so for every ``k`` and ``where``, since recall is measured with few of them.

    A frame of a pool may score higher than its mean. So the best pools are read in any case, in proportion to the
    events that are asked for. How many it takes to find nearly all events is measured on each index.
    """

    frames_around = 6
    knows_positions = False
    margin = 0.0

    def __init__(
        self, pools: Any, n_pools: int, query: Vector, scope: Scope, *, k: int, settings: SearchSettings
    ) -> None:
        self.least = max(k, LEAST_EVENTS) * max(settings.pools_per_event, LEAST_PER_EVENT)
        self.is_cut = False
        """Whether ``MAX_POOLS`` ended the pages too early, or left too few pools to compare on the last one."""
        self._pools, self._n_pools, self._query, self._scope = pools, n_pools, query, scope
        self._compared: dict[int, float] = {}
        """The scores of whole vectors, by row."""

    def pages(self, reader: Reader) -> Iterator[Page]:
        most = min(self._n_pools, MAX_POOLS)
        size = max(MIN_POOLS, 2 * self.least)
        n, is_last, seen = 0, most == 0, np.empty(0, np.int64)
        while not is_last:
            check_stopped()
            wanted = int(COMPARED_POOLS * size * self._scope.n_searched)
            n = min(most, wanted)
            found = self._search(n, reader.finished_audios())
            is_last = n == most or found.num_rows < n
            ranked = self._rank(self._scope.select(found))
            page = ranked if is_last else ranked.slice(0, size)
            row_ids = page["_rowid"].to_numpy()
            is_full = found.num_rows == most < self._n_pools
            # For a reader who stops on the page: fewer were compared for each of its pools than the recall rests on.
            self.is_cut = is_full and n < wanted
            if (new := page.filter(pa.array(np.isin(row_ids, seen, invert=True)))).num_rows:
                yield Page(self._to_candidates(new), new["score"][-1].as_py())
            self.is_cut = is_full  # for a reader who is not sure at the end of the page
            seen = np.union1d(seen, row_ids)
            size *= 4

    def _search(self, n: int, left_out: list[str]) -> pa.Table:
        """The ``n`` best pools by their codes: those of earlier searches again.

        A lower bound on the distance would lose pools: the engine applies it to the estimated distances, where a pool
        may lie below the bound although the earlier search did not return it.
        """
        search = _nearest(self._pools, self._query, n, self._scope.find_filter(left_out)).nprobes(ALL_PARTITIONS)
        # The distance is not used, but the engine returns it in any case.
        return search.with_row_id(True).select(["audio_id", "first_frame", "n_frames", "_distance"]).to_arrow()

    def _rank(self, pools: pa.Table) -> pa.Table:
        """The pools with their scores, best first, by their whole vectors."""
        row_ids = pools["_rowid"].to_pylist()
        new = [row_id for row_id in row_ids if row_id not in self._compared]
        for begin in range(0, len(new), POOLS_AT_ONCE):
            check_stopped()
            search = self._pools.take_row_ids(new[begin : begin + POOLS_AT_ONCE]).select(["vector"])
            table = search.with_row_id().to_arrow()
            scores, _ = score_rows(to_matrix(table["vector"]), self._query)
            self._compared |= zip(table["_rowid"].to_pylist(), scores.tolist(), strict=True)
        scores = np.array([self._compared[row_id] for row_id in row_ids], np.float32)
        order = np.argsort(-scores, kind="stable")
        return pools.append_column("score", pa.array(scores)).take(order)

    def _to_candidates(self, table: pa.Table) -> list[Candidate]:
        columns = (table[name].to_pylist() for name in ("audio_id", "first_frame", "n_frames", "score"))
        return [
            Candidate(audio_id, first, first + n, score) for audio_id, first, n, score in zip(*columns, strict=True)
        ]


def _nearest(table: Any, query: Vector, n: int, where: str | None) -> Any:
    search = table.search(query, vector_column_name="vector").distance_type("dot").limit(n)
    return search.where(where, prefilter=True) if where else search
