"""Exact events within a sample of an index: units are drawn, their vectors read in blocks, and all questions answered.

A unit is a whole audio, or a part of ten minutes of a longer one. Each has the same probability. Exact answers name the
audios that they are in, whose parts belong together when recall is measured.

A block of vectors is multiplied once with all questions (float32), so the cost is that of reading the sample and of one
matrix product; the memory is that of one block, and of at most ``keep`` answers a question.
"""

import heapq
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.index.tables import among, indexed_files, to_matrix
from pipeline.search.audit import ExactAnswer, Found
from pipeline.search.events import EventFrames, Levels, read_events

Matrix = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int64]

PART_FRAMES = 15_000
"""Longer audios are drawn in parts of so many frames, ten minutes."""

MARGIN_FRAMES = 1_000
"""Frames that are read beside a part, for the events that cross its ends; of longer ones, nothing is known."""

BLOCK_FRAMES, BLOCK_UNITS = 16_384, 500
"""Frames and units that are read together: with 1,024 numbers and 400 questions, 130 MB."""

BLOCKS_HELD = 4
"""The first blocks, held with their scores, about 55 MB each: they show whether lower thresholds are needed."""


class Unit(NamedTuple):
    """Frames ``first`` .. ``stop - 1`` of an audio with ``n_frames``."""

    audio_id: str
    first: int
    stop: int
    n_frames: int

    @property
    def read_first(self) -> int:
        return max(0, self.first - MARGIN_FRAMES)

    @property
    def read_stop(self) -> int:
        return min(self.n_frames, self.stop + MARGIN_FRAMES)

    @property
    def is_whole(self) -> bool:
        return self.stop - self.first == self.n_frames


def draw_units(files: Any, max_frames: int, rng: np.random.Generator) -> list[Unit]:
    """Units of the indexed audios, of about ``max_frames`` together, in random order; each content counts once.

    Args:
        files: the ledger, a ``lance.LanceDataset``.
    """
    rows = files.to_table(columns=["audio_id", "n_frames"], filter=indexed_files("n_frames > 0"))
    rows = rows.group_by("audio_id").aggregate([("n_frames", "max")])
    n_frames = rows["n_frames_max"].to_numpy().astype(np.int64)
    audios, parts = draw_parts(n_frames, PART_FRAMES, max_frames, rng)
    columns = rows["audio_id"].take(pa.array(audios)).to_pylist(), parts.tolist(), n_frames[audios].tolist()
    return [
        Unit(audio_id, part * PART_FRAMES, min((part + 1) * PART_FRAMES, n), n)
        for audio_id, part, n in zip(*columns, strict=True)
    ]


def draw_parts(sizes: Integers, part_size: int, max_size: int, rng: np.random.Generator) -> tuple[Integers, Integers]:
    """Parts of things of these ``sizes`` (n,), about ``max_size`` together, in random order: for each part the number
    of the thing, and which part of it this is."""
    first_parts = np.concatenate([[0], np.cumsum(-(-sizes // part_size))])
    n_all = int(first_parts[-1])
    n_drawn = min(n_all, max(1, int(max_size * n_all / max(1, sizes.sum()))))
    numbers = rng.permutation(n_all)[:n_drawn]
    things = np.searchsorted(first_parts, numbers, side="right") - 1
    return things, numbers - first_parts[things]


def number_audios(audio_ids: Iterable[str]) -> list[int]:
    """The number of each audio, in the order in which they first occur."""
    numbers: dict[str, int] = {}
    return [numbers.setdefault(audio_id, len(numbers)) for audio_id in audio_ids]


def count_audios(units: Sequence[Unit]) -> int:
    return len({unit.audio_id for unit in units})


class Block(NamedTuple):
    """Vectors (n, D) of the units ``numbers``: those of one unit are rows ``starts[i]`` .. ``starts[i + 1] - 1``."""

    numbers: list[int]
    starts: list[int]
    vectors: npt.NDArray[np.float16]


def read_blocks(frames: Any, units: Sequence[Unit]) -> Iterator[Block]:
    """The frames of all units. A unit that the table does not hold as the ledger says is left out.

    Args:
        frames: a ``lance.LanceDataset``.
    """
    for numbers in _group(units):
        some = [units[number] for number in numbers]
        where = among("audio_id", {unit.audio_id for unit in some})
        if not some[0].is_whole:
            where += f" AND frame >= {some[0].read_first} AND frame < {some[0].read_stop}"
        rows = frames.to_table(columns=["audio_id", "frame", "vector"], filter=where)
        yield _arrange(rows, numbers, some)


def _group(units: Sequence[Unit]) -> Iterator[list[int]]:
    """Whole units that fit a block together; a part of an audio has one for itself."""
    group: list[int] = []
    size = 0
    for number, unit in enumerate(units):
        if not unit.is_whole:
            yield [number]
            continue
        if group and (size + unit.n_frames > BLOCK_FRAMES or len(group) == BLOCK_UNITS):
            yield group
            group, size = [], 0
        group.append(number)
        size += unit.n_frames
    if group:
        yield group


def _arrange(rows: pa.Table, numbers: list[int], units: list[Unit]) -> Block:
    """The rows by unit, in order of time."""
    order = pc.sort_indices(rows.select(["audio_id", "frame"]), [("audio_id", "ascending"), ("frame", "ascending")])
    ids, frame = rows["audio_id"].take(order), rows["frame"].take(order).to_numpy()
    encoded = ids.combine_chunks().dictionary_encode()
    first_rows = np.flatnonzero(np.diff(encoded.indices.to_numpy(), prepend=-1))
    stop_rows = [*first_rows[1:].tolist(), len(frame)]
    spans = {ids[first].as_py(): (first, stop) for first, stop in zip(first_rows.tolist(), stop_rows, strict=True)}
    kept, pieces, starts = [], [], [0]
    for number, unit in zip(numbers, units, strict=True):
        first, stop = spans.get(unit.audio_id, (0, 0))
        if np.array_equal(frame[first:stop], np.arange(unit.read_first, unit.read_stop)):
            kept.append(number)
            pieces.append(np.arange(first, stop))
            starts.append(starts[-1] + stop - first)
    matrix = to_matrix(rows["vector"])
    at = order.to_numpy()[np.concatenate(pieces)] if pieces else np.zeros(0, np.int64)
    is_in_order = np.array_equal(at, np.arange(len(matrix)))
    return Block(kept, starts, matrix if is_in_order else matrix[at])


class BestAnswers:
    """The best answers to one question, at most ``keep``; those that fall out raise ``floor``."""

    def __init__(self, keep: int) -> None:
        self._keep, self._n_added = keep, 0
        self._heap: list[tuple[float, int, Found, int]] = []
        self.floor = -np.inf

    def add(self, found: Found, audio: int) -> None:
        """Keep ``found`` if its score is among the best."""
        entry = (found.score, -self._n_added, found, audio)
        self._n_added += 1
        if len(self._heap) < self._keep:
            heapq.heappush(self._heap, entry)
        else:
            self.floor = max(self.floor, heapq.heappushpop(self._heap, entry)[0])

    def answer(self) -> ExactAnswer:
        best = sorted(self._heap, key=lambda entry: -entry[0])
        _, _, found, audios = zip(*best, strict=True) if best else ((), (), (), ())
        return ExactAnswer(found, audios, self.floor)


class EventFinder:
    """The best events of each question (Q, D) in the units, by the rules of ``levels``.

    An event belongs to the unit that it begins in. One that may go on beyond the frames that were read is left out.
    """

    def __init__(self, units: Sequence[Unit], questions: Matrix, levels: Levels, keep: int) -> None:
        self._units, self._questions, self._levels = units, questions, levels
        self._best = [BestAnswers(keep) for _ in questions]
        self._audios = number_audios(unit.audio_id for unit in units)

    def add(self, block: Block, scores: Matrix) -> None:
        """The events of a block, whose vectors have these rough ``scores`` (n, Q)."""
        highest = np.maximum.reduceat(scores, block.starts[:-1], axis=0)
        floors = np.array([each.floor for each in self._best])
        events, rows, questions = list[tuple[EventFrames, int]](), list[int](), list[int]()
        for at, question in np.argwhere(highest >= np.maximum(self._levels.on, floors)).tolist():
            begin, number = block.starts[at], block.numbers[at]
            unit = self._units[number]
            for event in read_events(scores[begin : block.starts[at + 1], question], self._levels, unit.read_first):
                if event.score >= floors[question] and _belongs(event, unit, self._levels):
                    events.append((event, number))
                    rows.append(begin + event.peak - unit.read_first)
                    questions.append(question)
        peaks = np.vecdot(block.vectors[rows].astype(np.float64), self._questions[questions].astype(np.float64))
        for (event, number), score, question in zip(events, peaks.astype(np.float32).tolist(), questions, strict=True):
            found = Found(self._units[number].audio_id, event.first, event.stop, score)
            self._best[question].add(found, self._audios[number])

    def answers(self) -> list[ExactAnswer]:
        return [each.answer() for each in self._best]


def score_blocks(blocks: Iterable[Block], questions: Matrix) -> Iterator[tuple[Block, Matrix]]:
    """Each block that is not empty, and its dot products (n, Q) with the questions."""
    turned = np.ascontiguousarray(questions.T, dtype=np.float32)
    for block in blocks:
        if block.numbers:
            yield block, block.vectors.astype(np.float32) @ turned


def find_events_in(
    scored: Iterable[tuple[Block, Matrix]], finders: Sequence[EventFinder], shows: Callable[[EventFinder], bool]
) -> list[EventFinder]:
    """Give the blocks to the first of ``finders``; and if the first blocks do not show it enough events, to each
    further one as long as none before it has enough. Most samples never need the others.

    Returns:
        The finders that got all blocks, in order.

    Args:
        shows: whether a finder has enough events; more blocks only add to them.
    """
    blocks, used = iter(scored), list(finders[:1])
    held = list(islice(blocks, BLOCKS_HELD))
    _add(held, used)
    if not shows(used[0]):
        _add(held, finders[1:])
        used = list(finders)
    held.clear()
    for each in blocks:
        _add([each], used)
        if len(used) > 1:
            n_needed = 1 + next((at for at, finder in enumerate(used) if shows(finder)), len(used))
            del used[n_needed:]
    return used


def _add(scored: Iterable[tuple[Block, Matrix]], finders: Sequence[EventFinder]) -> None:
    for block, scores in scored:
        for finder in finders:
            finder.add(block, scores)


def _belongs(event: EventFrames, unit: Unit, levels: Levels) -> bool:
    is_cut_before = unit.read_first > 0 and event.first - levels.gap_frames <= unit.read_first
    is_cut_after = unit.read_stop < unit.n_frames and event.stop + levels.gap_frames >= unit.read_stop
    return unit.first <= event.first < unit.stop and not is_cut_before and not is_cut_after
