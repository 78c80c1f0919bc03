"""Where events may be: the best frames of an exact scan, or the best pools of an index. Best first, page by page."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import pyarrow as pa

from pipeline.index.row_positions import RowPositions
from pipeline.index.search_settings import ALL_PARTITIONS, SearchSettings
from pipeline.search.scores import Vector

MIN_FRAMES, MAX_FRAMES = 2_000, 1_000_000
"""Frames that one scan of the corpus returns."""

MIN_POOLS, COMPARED_POOLS = 200, 4
"""Pools that one search returns at least, and whole vectors that it compares for each of them: the codes of the vector
index lead to four times as many."""


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
    """Candidates, best first; no later page has a better one than ``worst``."""

    candidates: list[Candidate]
    worst: float


@dataclass(frozen=True)
class Scope:
    """The audios to search in: all, or those that hold a file that the user selects.

    ``audio_ids`` are all of them; ``is_named``: they are few enough to be named in a search. Otherwise the search looks
    at all audios and leaves out the others' candidates, of which there are ``1 / share`` as many.
    """

    audio_ids: frozenset[str] | None = None
    is_named: bool = False
    share: float = 1.0

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
    """Pools of like frames, by the score of their mean as the vector index estimates it.

    A frame of a pool may score higher than its mean. So the best pools are read in any case, in proportion to the
    events that are asked for. How many it takes to find nearly all events is measured on each index.
    """

    frames_around = 6
    knows_positions = False
    margin = 0.0

    def __init__(
        self, pools: Any, n_pools: int, query: Vector, scope: Scope, *, k: int, settings: SearchSettings
    ) -> None:
        self.least = k * settings.pools_per_event
        self._pools, self._n_pools, self._query, self._scope = pools, n_pools, query, scope

    def pages(self, reader: Reader) -> Iterator[Page]:
        n_rows = self._n_pools
        n = min(n_rows, int(max(MIN_POOLS, 2 * self.least) / self._scope.share))
        best = None
        while n:
            search = _nearest(self._pools, self._query, n, self._scope.find_filter(reader.finished_audios()))
            search = search.distance_range(lower_bound=best).nprobes(ALL_PARTITIONS).refine_factor(COMPARED_POOLS)
            table = search.select(["audio_id", "first_frame", "n_frames", "_distance"]).to_arrow()
            if table.num_rows:
                yield Page(self._to_candidates(table), 1.0 - table["_distance"][-1].as_py())
            if table.num_rows < n or n == n_rows:
                return
            best, n = table["_distance"][-1].as_py(), min(n_rows, 4 * n)

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
