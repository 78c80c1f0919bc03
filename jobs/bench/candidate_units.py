"""A table of made frames with the exact answers to questions, and the rows that designs make of it to search them."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from jobs.bench.synthetic import CLIP_FRAMES, FILE_FRAMES, Floats, Halves, Vectors
from jobs.bench.synthetic_index import Clock
from jobs.bench.truth import Found, gather_events, make_levels
from pipeline.index.pools import pool_frames

K = 20
FRAMES_AT_ONCE = 20 * FILE_FRAMES

Integers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Table:
    """Frames of whole files, (n, D), the questions (q, D), and their best events as spans of rows."""

    vectors: Halves
    questions: Floats
    events: list[list[tuple[int, int]]]
    worst: list[float]
    """The score of the worst event of each question."""
    cosines: tuple[float, ...]
    """Those of the questions to the direction of an event, in turn; see ``Vectors``."""


@dataclass(frozen=True)
class Units:
    """What a design searches: rows that each stand for frames ``starts[i]`` .. ``starts[i] + counts[i] - 1``."""

    name: str
    starts: Integers
    counts: Integers
    vectors: Halves
    cpu_s: float
    """What making them took."""
    radii: Floats | None = None
    """Half of the radius of each unit, to be added to its score."""

    @cached_property
    def owners(self) -> Integers:
        """The unit of each frame."""
        return np.repeat(np.arange(len(self.starts)), self.counts)

    def distances(self, table: Table) -> Floats:
        """How far each frame is from the vector of its unit."""
        found = np.empty(len(table.vectors), np.float32)
        for first in range(0, len(found), FRAMES_AT_ONCE):
            some = slice(first, first + FRAMES_AT_ONCE)
            own = self.vectors[self.owners[some]].astype(np.float32)
            found[some] = np.linalg.norm(table.vectors[some].astype(np.float32) - own, axis=1)
        return found


def make_table(n_rows: int, n_questions: int, made: Vectors) -> Table:
    """A table of at least ``n_rows`` frames, with the exact answers to its questions."""
    n_files = -(-n_rows // FILE_FRAMES)
    vectors = np.empty((n_files * FILE_FRAMES, made.dimension), np.float16)
    for number in range(n_files):
        vectors[number * FILE_FRAMES : (number + 1) * FILE_FRAMES] = made.frames(number)
    questions = made.texts(n_questions)
    levels = make_levels(vectors[:: max(1, len(vectors) // 100_000)], questions)
    names = {str(number): (str(number), 0) for number in range(n_files)}
    [best] = gather_events(_score(vectors, questions), levels, names, [1], K)
    events = [[_span(event) for event in some] for some in best]
    worst = [some[-1].score if some else np.inf for some in best]
    return Table(vectors, questions, events, worst, made.cosines)


def _score(vectors: Halves, questions: Floats) -> Iterator[tuple[list[str], npt.NDArray[Any]]]:
    for first in range(0, len(vectors), FRAMES_AT_ONCE):
        block = vectors[first : first + FRAMES_AT_ONCE].astype(np.float32)
        names = [str(number) for number in range(first // FILE_FRAMES, (first + len(block)) // FILE_FRAMES)]
        yield names, (block @ questions.T).reshape(len(names), FILE_FRAMES, -1)


def _span(event: Found) -> tuple[int, int]:
    first = int(event.where) * FILE_FRAMES
    return first + event.first, first + event.stop


# --- the rows that a design searches ----------------------------------------------------------------------------------


def each_frame(table: Table) -> Units:
    n = len(table.vectors)
    return Units("frames", np.arange(n), np.ones(n, np.int64), table.vectors, 0.0)


def fixed_pools(table: Table, n: int, pool: Callable[[Floats], Any], how: str) -> Units:
    """``n`` frames side by side each, in windows of ``CLIP_FRAMES``."""
    clock = Clock()
    rows = []
    for window in _windows(table):
        rows += [pool(window[first : first + n]) for first in range(0, CLIP_FRAMES, n)]
    counts = np.array([min(n, CLIP_FRAMES - first) for first in range(0, CLIP_FRAMES, n)])
    counts = np.tile(counts, len(table.vectors) // CLIP_FRAMES)
    return _units(f"{how} of {n} frames", counts, np.stack(rows), clock)


def adaptive_pools(table: Table, n: int) -> Iterator[Units]:
    """Runs of like frames, ``n`` on average: as means, as means with radii, and as the frames nearest to the means."""
    clock = Clock()
    made = [pool_frames(window.astype(np.float16), n) for window in _windows(table)]
    starts = np.concatenate([first + CLIP_FRAMES * i for i, (first, _) in enumerate(made)])
    counts = np.diff(np.append(starts, len(table.vectors)))
    means = np.concatenate([mean for _, mean in made])
    units = _units(f"adaptive, {n} frames", counts, means, clock)
    yield units
    distances = units.distances(table)
    half_radii = (np.sqrt(np.add.reduceat(distances**2, starts) / counts) / 2).astype(np.float32)
    yield Units(f"{units.name}, half the radius added", starts, counts, means, units.cpu_s, half_radii)
    nearest = [
        start + int(distances[start : start + count].argmin()) for start, count in zip(starts, counts, strict=True)
    ]
    yield Units(f"{units.name}, nearest frame", starts, counts, table.vectors[nearest], units.cpu_s)


def _windows(table: Table) -> Iterator[Floats]:
    for first in range(0, len(table.vectors), CLIP_FRAMES):
        yield table.vectors[first : first + CLIP_FRAMES].astype(np.float32)


def _units(name: str, counts: Integers, vectors: npt.NDArray[Any], clock: Clock) -> Units:
    return Units(name, np.cumsum(counts) - counts, counts, vectors.astype(np.float16), clock.cost.cpu_s)
