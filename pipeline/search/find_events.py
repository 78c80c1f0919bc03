"""The best events of an index for a query embedding, found in stored frames; no audio is read.

Candidates are the best frames of the whole corpus, so that a short event in a long clip is found. From the best one
down, the frames around each candidate are read and turned into events, until no further candidate can change the
answer. Memory depends on the events, not on the size of the corpus.
"""

import bisect
import heapq
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from pipeline import schema
from pipeline.index.tables import to_matrix
from pipeline.search.events import EventFrames, Holder, Levels, read_events
from pipeline.search.frame_scores import FrameScorer, FrameSpan, Scores, merge_spans
from pipeline.search.scores import Vector, check_query, longest_norm, max_score_error
from pipeline.search.tables import read_rows

MIN_CANDIDATES, MAX_CANDIDATES = 2_000, 1_000_000
"""Frames that one search of the corpus returns."""

MAX_LEFT_OUT = 1_000
"""Audios that a search of the corpus may exclude by name."""

MAX_CHOSEN = 10_000
"""Audios that a search of the corpus may include by name. With more, it searches all and skips the others later."""

CANDIDATES_AT_ONCE = 64
MIN_MARGIN_FRAMES = 25

MEASURED_AT_ONCE, MEASURED_PARTS = 64, 64
"""Before a search, vector lengths are measured in a sample: 64 rows in each of 64 parts of the table."""

LONGER = 4.0
"""The search assumes that no vector is more than four times as long as the longest one of the sample."""


@dataclass(frozen=True)
class EventQuery:
    """The ``k`` best events for ``vector`` (D,), an embedding by the text tower of the frame model.

    ``where`` is SQL over the columns of ``files``: only events in these files, even where others have the same content.
    """

    vector: Vector
    levels: Levels
    k: int
    where: str | None = None


def find_events(
    frames: Any, files: Any, query: EventQuery, max_chosen: int = MAX_CHOSEN
) -> list[tuple[Holder, EventFrames]]:
    """The events with the highest peaks, best first, each with the file that it is in.

    The result equals that of a scan over all frames, except that any of several events with a peak equal to the k-th
    may be left out. The engine finds candidates with a query rounded to float16; the longer a vector, the larger the
    error. So lengths are measured in a sample, and no vector is assumed to be over ``LONGER`` times as long as the
    longest of it. If one that is read is longer, the search is repeated with a wider margin; a longer one that is never
    read may be missed.

    Args:
        frames: the table, from ``tables.open_table``. files: the ledger, likewise.
        max_chosen: if ``where`` leaves at most so many audios, the search names them.

    Raises:
        UsageError: ``where`` is not valid.
    """
    check_query(frames, query.vector)
    chosen = None if query.where is None else _choose_audios(files, query.where, max_chosen)
    if chosen == []:
        return []
    longest = _measure_some(frames)
    while True:
        reader = _Reader(frames, files, query, max_score_error(query.vector, longest))
        _search(frames, reader, chosen)
        if not reader.longest > longest:
            return reader.events
        longest = LONGER * reader.longest


def _measure_some(frames: Any) -> float:
    """The length of the longest vector if there are few; else a length that none is likely to exceed."""
    n_rows = frames.count_rows()
    is_few = n_rows <= MEASURED_PARTS * MEASURED_AT_ONCE
    begins = np.linspace(0, max(0, n_rows - MEASURED_AT_ONCE), MEASURED_PARTS, dtype=np.int64)
    offsets = np.arange(n_rows) if is_few else np.unique(begins[:, None] + np.arange(MEASURED_AT_ONCE))
    rows = frames.take_offsets(offsets.tolist()).select(["vector"]).to_arrow()
    return (1.0 if is_few else LONGER) * longest_norm(to_matrix(rows["vector"]))


def _search(frames: Any, reader: "_Reader", chosen: list[str] | None) -> None:
    """Give the reader candidates, page by page, until no further one can change its events."""
    n_rows = frames.count_rows()
    n = min(n_rows, MAX_CANDIDATES, max(MIN_CANDIDATES, 100 * reader.query.k))
    best_distance = None
    while n:
        page = _best_frames(frames, reader, n, best_distance, chosen)
        reader.read(page)
        # No frame on a later page has a better score by the engine than the last one of this page.
        if len(page) < n or n == n_rows or reader.worst_score >= page[-1].score + reader.margin:
            break
        # The next page begins at the last distance of this one. Equal frames come again: if they fill it, it must grow.
        is_level = page[0].distance == page[-1].distance
        best_distance, n = page[-1].distance, min(n_rows, 8 * n if is_level else max(n, min(8 * n, MAX_CANDIDATES)))


class Candidate(NamedTuple):
    """A frame that may begin an event; ``distance`` is the engine's: 1 - dot product."""

    audio_id: str
    frame: int
    row_id: int
    distance: float

    @property
    def score(self) -> float:
        return 1.0 - self.distance


def _best_frames(
    frames: Any, reader: "_Reader", n: int, best_distance: float | None, chosen: list[str] | None
) -> list[Candidate]:
    """The ``n`` best frames that can begin an event, best first, none of them better than ``best_distance``.

    They are of the ``chosen`` audios, if any are given, and not of those in which the reader has nothing left to find.
    """
    search = frames.search(reader.query.vector, vector_column_name="vector").distance_type("dot").limit(n)
    search = search.distance_range(lower_bound=best_distance, upper_bound=1.0 - reader.query.levels.on + reader.margin)
    left_out = reader.finished_audios()
    conditions = [f"audio_id IN ({_quoted(chosen)})"] if chosen is not None else []
    conditions += [f"audio_id NOT IN ({_quoted(left_out)})"] if left_out else []
    if conditions:
        search = search.where(" AND ".join(conditions), prefilter=True)
    table = search.select(["audio_id", "frame", "_distance"]).with_row_id(True).to_arrow()
    columns = (table[name].to_pylist() for name in ("audio_id", "frame", "_rowid", "_distance"))
    return list(map(Candidate, *columns))


def _indexed(where: str | None) -> str:
    """The filter of the indexed files that ``where`` selects."""
    return "status = 'indexed'" + ("" if where is None else f" AND ({where})")


def _choose_audios(files: Any, where: str, max_chosen: int) -> list[str] | None:
    """The audios of the files that ``where`` selects; None if there are more than ``max_chosen``."""
    rows = read_rows(files, ["audio_id"], _indexed(where), asked=where)
    audio_ids = rows["audio_id"].unique()
    return audio_ids.to_pylist() if len(audio_ids) <= max_chosen else None


@dataclass
class _Audio:
    """An audio with candidates: the selected files that hold it, and the spans of it that have been read.

    ``known`` are (first, stop) of these spans, in order and apart. Each one ends in silence too long for an event to
    cross, at both sides. So a new span may treat that end like the end of the file.
    """

    holders: list[Holder]
    n_frames: int
    known: list[tuple[int, int]]

    def unknown_around(self, frame: int) -> tuple[int, int]:
        """(first, stop) of the unknown frames around ``frame``; without ``frame`` if that is known."""
        at = bisect.bisect_right(self.known, frame, key=lambda span: span[0])
        low = self.known[at - 1][1] if at else 0
        return low, self.known[at][0] if at < len(self.known) else self.n_frames

    def is_open(self, frame: int) -> bool:
        low, high = self.unknown_around(frame)
        return low <= frame < high

    @property
    def is_finished(self) -> bool:
        return sum(stop - first for first, stop in self.known) >= self.n_frames


class _Reader:
    """Reads the best events around candidates; no frame is read twice.

    ``margin``: how far the engine's scores may lie from the exact ones, if no vector is longer than assumed.
    """

    def __init__(self, frames: Any, files: Any, query: EventQuery, margin: float) -> None:
        self.query, self.margin = query, margin
        self.events: list[tuple[Holder, EventFrames]] = []
        self._scorer = FrameScorer(frames, query.vector)
        self._names = schema.metadata_columns(files.schema).names
        self._files = files
        self._audios: dict[str, _Audio] = {}

    @property
    def longest(self) -> float:
        """The length of the longest vector that was read."""
        return self._scorer.longest

    @property
    def worst_score(self) -> float:
        """The score that an event must reach to be among the best."""
        return self.events[-1][1].score if len(self.events) == self.query.k else -math.inf

    def finished_audios(self) -> list[str]:
        """The longest audios that have been read completely, to be left out: their frames would only come again."""
        finished = [audio_id for audio_id, audio in self._audios.items() if audio.is_finished]
        return heapq.nlargest(MAX_LEFT_OUT, finished, key=lambda audio_id: self._audios[audio_id].n_frames)

    def read(self, candidates: Iterable[Candidate]) -> None:
        """Add the events around ``candidates``, which come best first, until no further one can be among the best."""
        ahead = iter(candidates)
        while chosen := self._choose(ahead):
            self._look_up({candidate.audio_id for candidate in chosen} - self._audios.keys())
            around = [self._around(candidate) for candidate in chosen if self._is_open(candidate)]
            for span, scores in self._settle(merge_spans(around)).items():
                audio = self._audios[span.audio_id]
                bisect.insort(audio.known, (span.first, span.stop))
                found = read_events(scores, self.query.levels, span.first)
                self.events += [(holder, event) for event in found for holder in audio.holders]
            self.events.sort(key=lambda event: (-event[1].score, event[0].uri, event[1].first))
            del self.events[self.query.k :]

    def _choose(self, ahead: Iterator[Candidate]) -> list[Candidate]:
        """The next candidates in unknown frames; none once the best events cannot change any more."""
        chosen: list[Candidate] = []
        for candidate in ahead:
            if self.worst_score > candidate.score + self.margin:
                break
            if self._is_open(candidate):
                chosen.append(candidate)
            if len(chosen) == CANDIDATES_AT_ONCE:
                break
        return chosen

    def _is_open(self, candidate: Candidate) -> bool:
        audio = self._audios.get(candidate.audio_id)
        return audio is None or audio.is_open(candidate.frame)

    def _look_up(self, audio_ids: set[str]) -> None:
        """Find the files of new audios."""
        if not audio_ids:
            return
        self._audios |= {audio_id: _Audio([], 0, []) for audio_id in audio_ids}
        where = f"audio_id IN ({_quoted(audio_ids)}) AND {_indexed(self.query.where)}"
        columns = ["audio_id", "uri", "duration_s", "n_frames", *self._names]
        for row in read_rows(self._files, columns, where, asked=self.query.where).to_pylist():
            audio = self._audios[row["audio_id"]]
            audio.n_frames = row["n_frames"]
            metadata = {name: row[name] for name in self._names}
            audio.holders.append(Holder(row["uri"], row["duration_s"], metadata))

    def _around(self, candidate: Candidate) -> FrameSpan:
        """The frames around a candidate, as far as most events reach."""
        low, high = self._audios[candidate.audio_id].unknown_around(candidate.frame)
        margin = self.query.levels.gap_frames + MIN_MARGIN_FRAMES
        first, stop = max(low, candidate.frame - margin), min(high, candidate.frame + margin + 1)
        return FrameSpan(candidate.audio_id, first, stop, candidate.row_id - candidate.frame)

    def _settle(self, spans: list[FrameSpan]) -> dict[FrameSpan, Scores]:
        """The scores of each span, widened until no event crosses its ends; spans that meet become one."""
        settled: dict[FrameSpan, Scores] = {}
        while spans:
            wider: list[FrameSpan] = []
            for span, scores in self._scorer.score(spans).items():
                grown = self._grow(span, scores)
                if grown == span:
                    settled[span] = scores
                else:
                    wider.append(grown)
            merged = merge_spans([*wider, *settled])
            spans = [span for span in merged if span not in settled]
            settled = {span: settled[span] for span in merged if span in settled}
        return settled

    def _grow(self, span: FrameSpan, scores: Scores) -> FrameSpan:
        """The span, longer at each end that an event may cross."""
        loud = np.flatnonzero(scores >= self.query.levels.off)
        if len(loud) == 0:
            return span
        low, high = self._audios[span.audio_id].unknown_around(span.first)
        quiet = self.query.levels.gap_frames + 1
        more = len(scores)
        left = more if loud[0] < quiet else 0
        right = more if loud[-1] >= len(scores) - quiet else 0
        return span._replace(first=max(low, span.first - left), stop=min(high, span.stop + right))


def _quoted(audio_ids: Iterable[str]) -> str:
    return ", ".join(f"'{audio_id}'" for audio_id in sorted(audio_ids))
