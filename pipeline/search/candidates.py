"""Where events may be: the best frames of an exact scan, or the best pools of an index. Best first, page by page."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
import pyarrow as pa

from pipeline.index.row_positions import RowPositions
from pipeline.index.search_settings import ALL_PARTITIONS, SearchSettings
from pipeline.search.scores import MAX_COMPARED, Vector

MIN_FRAMES, MAX_FRAMES = 2_000, 1_000_000
"""Frames that one scan of the corpus returns."""

MIN_POOLS, MAX_POOLS = 200, 300_000
"""Pools that one search returns. A question that gets to the most takes seconds and 0.2 GB, and ends with the events
that it has found."""

COMPARED_POOLS = 4
"""Whole vectors that a search compares for each pool that it returns: the codes of the vector index lead to them. From
5,000 pools on, ``MAX_COMPARED`` makes it fewer, and more than 20,000 pools are ranked by the codes alone."""

LEAST_PER_EVENT, LEAST_EVENTS = 5, 20
"""Pools to read for each event, and events to read them for, at least: 100 pools cost about 10 ms. With one or two
pools for each, recall falls as ``k`` grows (0.98 of 20 events, but 0.73 and 0.87 of 100), so what was measured with one
``k`` would not hold for another. Recall is never measured with fewer than 20 events."""


class Candidate(NamedTuple):
    """Frames ``first`` .. ``stop - 1`` of an audio, in or around which an event may be.

    ``score`` is the engine's. ``position_of_0`` is the expected place of frame 0, where the source knows it: see
    ``RowPositions``.
    """

    audio_id: str
    first: int
    stop: int
    score: float
    position_of_0: int | None = None


class Page(NamedTuple):
    """Candidates, best first. No later page has a better one than ``worst``, as far as the engine can tell."""

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

    def find_filter(self, left_out: list[str]) -> str | None:
        """The filter of a search, without the audios ``left_out``."""
        conditions = []
        if self.audio_ids is not None and self.is_named:
            conditions.append(f"audio_id IN ({quote(self.audio_ids)})")
        if left_out:
            conditions.append(f"audio_id NOT IN ({quote(left_out)})")
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
    """Pools of like frames, by the score of their mean: exact for few pools, estimated by the vector index for many.

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
        self._pools, self._n_pools, self._query, self._scope = pools, n_pools, query, scope

    def pages(self, reader: Reader) -> Iterator[Page]:
        most = min(self._n_pools, MAX_POOLS)
        n = int(min(most, max(MIN_POOLS, 2 * self.least) * self._scope.n_searched))
        seen = np.empty(0, np.int64)
        while n:
            table = self._search(n, reader.finished_audios())
            row_ids = table["_rowid"].to_numpy()
            new = table.filter(pa.array(np.isin(row_ids, seen, invert=True)))
            if new.num_rows:
                yield Page(self._to_candidates(new), 1.0 - new["_distance"][-1].as_py())
            if table.num_rows < n or n == most:
                return
            seen = np.union1d(seen, row_ids)
            n = min(most, 4 * n)

    def _search(self, n: int, left_out: list[str]) -> pa.Table:
        """The ``n`` best pools, best first: those of earlier pages again.

        A lower bound on the distance would lose pools. The engine applies it to the estimated distances too, where a
        pool may lie below the bound although the earlier page did not hold it.
        """
        search = _nearest(self._pools, self._query, n, self._scope.find_filter(left_out)).nprobes(ALL_PARTITIONS)
        if n_compared := min(COMPARED_POOLS, MAX_COMPARED // n):
            search = search.refine_factor(n_compared)
        return search.with_row_id(True).select(["audio_id", "first_frame", "n_frames", "_distance"]).to_arrow()

    def _to_candidates(self, table: pa.Table) -> list[Candidate]:
        columns = (table[name].to_pylist() for name in ("audio_id", "first_frame", "n_frames", "_distance"))
        return [
            Candidate(audio_id, first, first + n, 1.0 - distance)
            for audio_id, first, n, distance in zip(*columns, strict=True)
            if self._scope.holds(audio_id)
        ]


def _nearest(table: Any, query: Vector, n: int, where: str | None) -> Any:
    search = table.search(query, vector_column_name="vector").distance_type("dot").limit(n)
    return search.where(where, prefilter=True) if where else search


def quote(audio_ids: Any) -> str:
    return ", ".join(f"'{audio_id}'" for audio_id in sorted(audio_ids))
