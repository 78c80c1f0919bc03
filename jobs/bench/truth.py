"""The exact answers to many questions at once: each block of vectors is read once, and multiplied by all questions.

Scores are float32 sums over the stored float16 numbers. So two results whose scores differ by rounding may change
places; ``recall`` does not count that.
"""

import heapq
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from jobs.bench.synthetic import FILE_FRAMES, Floats, Halves, to_unit
from pipeline.index.tables import open_published, to_matrix
from pipeline.search.events import Levels, read_events

FILES_AT_ONCE, CLIPS_AT_ONCE = 20, 20_000
ROUNDING = 1e-4
"""Scores closer than this are equal."""

LOUD_SHARE, HYSTERESIS = 0.005, 0.1
"""An event begins among the loudest 0.5 % of all frames, and lasts until its score falls 0.1 below that."""

LEVEL_ROWS, LEVEL_PARTS = 1_000, 100


class Found(NamedTuple):
    """A result: frames ``first`` .. ``stop - 1`` of a file, or one clip, which is all of what it overlaps."""

    score: float
    where: str
    """A uri, or the id of a clip."""
    first: int = 0
    stop: int = 1

    def overlaps(self, other: "Found") -> bool:
        return self.where == other.where and self.first < other.stop and other.first < self.stop


def recall(exact: Sequence[Found], found: Sequence[Found], k: int) -> float | None:
    """The share of the ``k`` best exact results that was found; None if there is none.

    A result that is no better than the worst of ``k`` found ones is not missing: it changed places by rounding.
    """
    best = exact[:k]
    if not best:
        return None
    level = min(each.score for each in found) + ROUNDING if len(found) >= k else -np.inf
    n_found = sum(each.score <= level or any(each.overlaps(other) for other in found) for each in best)
    return n_found / len(best)


@dataclass
class Best:
    """The best results of one question."""

    k: int
    _heap: list[Found] = field(default_factory=list)

    @property
    def worst(self) -> float:
        return self._heap[0].score if len(self._heap) == self.k else -np.inf

    def add(self, found: Found) -> None:
        if len(self._heap) < self.k:
            heapq.heappush(self._heap, found)
        else:
            heapq.heappushpop(self._heap, found)

    @property
    def sorted(self) -> list[Found]:
        return sorted(self._heap, reverse=True)


def measure_levels(index: str, questions: Floats) -> list[Levels]:
    """For each question, scores at which an event begins and ends, from a sample of the frames."""
    table = open_published(index, "frames")
    n_rows = table.count_rows()
    begins = np.unique(np.linspace(0, max(0, n_rows - LEVEL_ROWS), LEVEL_PARTS, dtype=np.int64))
    offsets = np.unique((begins[:, None] + np.arange(min(n_rows, LEVEL_ROWS))).ravel())
    return make_levels(to_matrix(table.take(offsets.tolist(), columns=["vector"])["vector"]), questions)


def make_levels(vectors: Halves, questions: Floats) -> list[Levels]:
    """The same, from a sample (n, D) of the frames."""
    levels = np.quantile(vectors.astype(np.float32) @ questions.T, 1 - LOUD_SHARE, axis=0)
    return [Levels(on, on - HYSTERESIS, gap_frames=5, min_frames=0) for on in levels.astype(float).tolist()]


def best_events(
    index: str, questions: Floats, levels: Sequence[Levels], limits: Sequence[int], k: int
) -> list[list[list[Found]]]:
    """The ``k`` best events of each question, for each of ``limits``: only files whose ``lot`` is below it count."""
    rows = open_published(index, "files").to_table(columns=["audio_id", "uri", "lot"]).to_pylist()
    files = {row["audio_id"]: (row["uri"], row["lot"]) for row in rows}
    return gather_events(_score_files(index, questions), levels, files, limits, k)


def gather_events(
    scored: Iterable[tuple[list[str], npt.NDArray[Any]]],
    levels: Sequence[Levels],
    files: dict[str, tuple[str, int]],
    limits: Sequence[int],
    k: int,
) -> list[list[list[Found]]]:
    """The same, from audios and their scores (audios, FILE_FRAMES, questions).

    Args:
        files: audio -> uri and ``lot`` of its file.
    """
    best = [[Best(k) for _ in levels] for _ in limits]
    on = np.array([each.on for each in levels])
    for audio_ids, scores in scored:
        loudest = scores.max(axis=1)
        for number, audio_id in enumerate(audio_ids):
            uri, lot = files[audio_id]
            lists = [of for limit, of in zip(limits, best, strict=True) if lot < limit]
            if not lists:
                continue
            worst = np.min([[each.worst for each in of] for of in lists], axis=0)
            for q in np.flatnonzero(loudest[number] >= np.maximum(on, worst)).tolist():
                for event in read_events(scores[number, :, q], levels[q]):
                    for of in lists:
                        of[q].add(Found(event.score, uri, event.first, event.stop))
    return [[each.sorted for each in of] for of in best]


def _score_files(index: str, questions: Floats) -> Iterator[tuple[list[str], npt.NDArray[Any]]]:
    """Some files, and their scores (files, FILE_FRAMES, questions). The rows must be file after file."""
    table = open_published(index, "frames")
    n_rows = table.count_rows()
    if n_rows % FILE_FRAMES:
        raise ValueError(f"{index}: {n_rows} frames are not whole files of {FILE_FRAMES}")
    for first in range(0, n_rows, FILES_AT_ONCE * FILE_FRAMES):
        stop = min(n_rows, first + FILES_AT_ONCE * FILE_FRAMES)
        rows = table.to_table(columns=["audio_id", "frame", "vector"], offset=first, limit=stop - first)
        frames = rows["frame"].to_numpy().reshape(-1, FILE_FRAMES)
        if (frames != np.arange(FILE_FRAMES)).any():
            raise ValueError(f"{index}: the frames of a file are not in order")
        scores = to_matrix(rows["vector"]).astype(np.float32) @ questions.T
        yield rows["audio_id"].to_pylist()[::FILE_FRAMES], scores.reshape(len(frames), FILE_FRAMES, -1)


def best_clips(
    index: str, questions: Floats, limits: Sequence[int], k: int, *, by_cosine: bool
) -> list[list[list[Found]]]:
    """The ``k`` best clips of each question, for each of ``limits``: only files whose ``lot`` is below it count.

    ``by_cosine``: the score is the cosine, as of ``similar``, not the dot product.
    """
    best = [[_Top(k) for _ in questions] for _ in limits]
    table = open_published(index, "clips")
    turned = (to_unit(questions) if by_cosine else questions).T
    for batch in table.to_batches(columns=["clip_id", "lot", "vector"], batch_size=CLIPS_AT_ONCE):
        vectors = to_matrix(batch["vector"]).astype(np.float32)
        scores = (to_unit(vectors) if by_cosine else vectors) @ turned
        lots, clip_ids = batch["lot"].to_numpy(), np.array(batch["clip_id"].to_pylist())
        for limit, of in zip(limits, best, strict=True):
            kept = np.flatnonzero(lots < limit)
            for q, top in enumerate(of):
                top.add(clip_ids[kept], scores[kept, q])
    return [[top.found for top in of] for of in best]


class _Top:
    """The ``n`` best clips."""

    def __init__(self, n: int) -> None:
        self._n = n
        self._ids, self._scores = np.empty(0, "U32"), np.empty(0, np.float32)

    def add(self, ids: npt.NDArray[Any], scores: Floats) -> None:
        if len(self._scores) == self._n:
            better = scores > self._scores.min()
            ids, scores = ids[better], scores[better]
        if len(scores) == 0:
            return
        ids, scores = np.concatenate([self._ids, ids]), np.concatenate([self._scores, scores])
        keep = np.argsort(-scores, kind="stable")[: self._n]
        self._ids, self._scores = ids[keep], scores[keep]

    @property
    def found(self) -> list[Found]:
        """Best first."""
        return [Found(float(score), str(name)) for score, name in zip(self._scores, self._ids, strict=True)]
