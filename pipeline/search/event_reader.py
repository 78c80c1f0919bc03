"""Reads the events around candidates: the frames there are scored exactly, as far as an event reaches."""

import bisect
import heapq
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np

from pipeline.search.candidates import Candidate, FrameScan, PoolSearch
from pipeline.search.event_tables import AudioFiles, EventTables
from pipeline.search.events import EventFrames, Holder, Levels, read_events
from pipeline.search.frame_scores import FrameScorer, FrameSpan, Scores, join_scores, merge_spans
from pipeline.search.scores import Vector
from pipeline.search.stopping import check_stopped

MAX_LEFT_OUT = 1_000
"""Audios that a search of the corpus may exclude by name."""

CANDIDATES_AT_ONCE, MAX_AT_ONCE, SPANS_AT_ONCE = 64, 4_096, 16


@dataclass(frozen=True)
class EventQuery:
    """The ``k`` best events for ``vector`` (D,), an embedding by the text tower of the frame model.

    ``where`` is SQL over the columns of ``files``: only events in these files, even where others have the same content.
    """

    vector: Vector
    levels: Levels
    k: int
    where: str | None = None


@dataclass
class _Audio:
    """An audio with candidates: the selected files that hold it, and the spans of it that have been read.

    ``known`` are (first, stop) of these spans, in order and apart. Each one ends in silence too long for an event to
    cross, at both sides. So a new span may treat that end like the end of the file.
    """

    files: AudioFiles
    position_of_0: int
    """The expected place of frame 0, where no candidate tells it."""
    known: list[tuple[int, int]] = field(default_factory=list)

    @property
    def n_frames(self) -> int:
        return self.files.n_frames

    def unknown_in(self, first: int, stop: int) -> list[tuple[int, int]]:
        """(first, stop) of the unknown frames around each unknown part of ``first`` .. ``stop - 1``, in order."""
        found = []
        frame = first
        while frame < min(stop, self.n_frames):
            low, high = self.unknown_around(frame)
            if low <= frame < high:
                found.append((low, high))
                frame = high
            else:
                frame = max(low, frame + 1)
        return found

    def unknown_around(self, frame: int) -> tuple[int, int]:
        """(first, stop) of the unknown frames around ``frame``; without ``frame`` if that is known."""
        at = bisect.bisect_right(self.known, frame, key=lambda span: span[0])
        low = self.known[at - 1][1] if at else 0
        return low, self.known[at][0] if at < len(self.known) else self.n_frames

    @property
    def is_finished(self) -> bool:
        return sum(stop - first for first, stop in self.known) >= self.n_frames


class EventReader:
    """Reads the best events around the candidates of ``source``; no frame is read twice."""

    def __init__(self, tables: EventTables, query: EventQuery, source: FrameScan | PoolSearch) -> None:
        self.query = query
        self.events: list[tuple[Holder, EventFrames]] = []
        self._tables, self._source = tables, source
        self._scorer = FrameScorer(tables.frames, tables.positions, query.vector)
        self._audios: dict[str, _Audio] = {}
        self._n_seen = 0

    @property
    def longest(self) -> float:
        """The length of the longest vector that was read."""
        return self._scorer.longest

    @property
    def worst_score(self) -> float:
        """The score that an event must reach to be among the best."""
        is_full = len(self.events) == self.query.k
        return max(self.query.levels.on, self.events[-1][1].score if is_full else -math.inf)

    def is_sure(self, score: float) -> bool:
        """Whether no candidate of at most this score can change the events."""
        return self._n_seen >= self._source.least and self.worst_score >= score + self._source.margin

    def finished_audios(self) -> list[str]:
        """The longest audios that have been read completely, to be left out: their frames would only come again."""
        finished = [audio_id for audio_id, audio in self._audios.items() if audio.is_finished]
        return heapq.nlargest(MAX_LEFT_OUT, finished, key=lambda audio_id: self._audios[audio_id].n_frames)

    def read(self, candidates: Iterable[Candidate]) -> None:
        """Add the events around ``candidates``, which come best first, until no further one can be among the best."""
        ahead = iter(candidates)
        while chosen := self._choose(ahead):
            check_stopped()
            self._look_up({candidate.audio_id for candidate in chosen} - self._audios.keys())
            spans = merge_spans(span for candidate in chosen for span in self._around(candidate))
            scored = sorted(self._scorer.score(spans).items(), key=lambda item: -item[1].max(initial=-np.inf))
            at_once = max(SPANS_AT_ONCE, self.query.k)
            for begin in range(0, len(scored), at_once):
                self._add(scored[begin : begin + at_once])

    def _add(self, scored: list[tuple[FrameSpan, Scores]]) -> None:
        """Add the events in and around spans, except where a span is far from the best events: if an event there has
        its peak elsewhere, another candidate leads to it."""
        parts = dict(part for span, scores in scored for part in self._unknown_parts(span, scores))
        for span, scores in self._settle(parts).items():
            audio = self._audios[span.audio_id]
            bisect.insort(audio.known, (span.first, span.stop))
            found = read_events(scores, self.query.levels, span.first)
            self.events += [(holder, event) for event in found for holder in audio.files.holders]
        self.events.sort(key=lambda event: (-event[1].score, event[0].uri, event[1].first))
        del self.events[self.query.k :]

    def _unknown_parts(self, span: FrameSpan, scores: Scores) -> Iterator[tuple[FrameSpan, Scores]]:
        """The parts of a span that are still unknown and may hold one of the best events. Others of its frames became
        known when an earlier span was widened."""
        for low, high in self._audios[span.audio_id].unknown_in(span.first, span.stop):
            part = span._replace(first=max(low, span.first), stop=min(high, span.stop))
            of_part = scores[part.first - span.first : part.stop - span.first]
            if of_part.max() >= self.worst_score:
                yield part, of_part

    def _choose(self, ahead: Iterator[Candidate]) -> list[Candidate]:
        """The next candidates in unknown frames; none once the best events cannot change any more."""
        chosen: list[Candidate] = []
        for candidate in ahead:
            if self._n_seen >= self._source.least and self.worst_score > candidate.score + self._source.margin:
                break
            self._n_seen += 1
            if self._is_open(candidate):
                chosen.append(candidate)
            if len(chosen) == min(max(CANDIDATES_AT_ONCE, self._source.least), MAX_AT_ONCE):
                break
        return chosen

    def _is_open(self, candidate: Candidate) -> bool:
        """Whether frames of a candidate are unknown, as far as is known of its audio."""
        audio = self._audios.get(candidate.audio_id)
        return audio is None or bool(audio.unknown_in(candidate.first, candidate.stop))

    def _look_up(self, audio_ids: set[str]) -> None:
        """Find the files of new audios, and the place of their first frames."""
        if not audio_ids:
            return
        with_positions = not self._source.knows_positions
        files, positions = self._tables.look_up(audio_ids, self.query.where, with_positions=with_positions)
        self._audios |= {each: _Audio(files[each], positions.get(each, 0)) for each in audio_ids}

    def _around(self, candidate: Candidate) -> list[FrameSpan]:
        """The unknown frames in and around a candidate, as far as most events reach."""
        audio = self._audios[candidate.audio_id]
        position = audio.position_of_0 if candidate.position_of_0 is None else candidate.position_of_0
        margin = self.query.levels.gap_frames + self._source.frames_around
        return [
            FrameSpan(
                candidate.audio_id,
                max(low, candidate.first - margin),
                min(high, candidate.stop + margin),
                position,
            )
            for low, high in audio.unknown_in(candidate.first, candidate.stop)
        ]

    def _settle(self, scored: dict[FrameSpan, Scores]) -> dict[FrameSpan, Scores]:
        """The spans, widened until no event crosses their ends, with their scores; those that meet become one."""
        settled: dict[FrameSpan, Scores] = {}
        while scored:
            ends: list[FrameSpan] = []
            for span, scores in list(scored.items()):
                grown = self._grow(span, scores)
                if grown == span:
                    settled[span] = scored.pop(span)
                ends += [grown._replace(stop=span.first)] if grown.first < span.first else []
                ends += [grown._replace(first=span.stop)] if grown.stop > span.stop else []
            joined = join_scores({**settled, **scored, **self._scorer.score(ends)}) if ends else settled
            scored = {span: scores for span, scores in joined.items() if span not in settled}
            settled = {span: scores for span, scores in joined.items() if span in settled}
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
