"""A query embedding in, events out: which file, from when to when. Read from stored frames, never from audio.

Candidates are the best frames of the whole corpus, so that a short event in a long clip is found. From the best one
down, the frames around each are read, until no further one can change the answer, and events are read off their scores:
one begins where the probability passes the threshold, and goes on while the logit is at most 1 below that of the
threshold. What is held in memory depends on the events, not on the size of the corpus.
"""

import bisect
import heapq
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from pipeline import schema
from pipeline.errors import UsageError
from pipeline.grid import FRAME_S, HOP_SAMPLES, frames_to_seconds, samples_to_seconds, seconds_to_frames
from pipeline.index.vectors import to_matrix
from pipeline.search.clips import Vector, check_query, dot_products, measure_lengths, read_rows, rounding

HYSTERESIS_LOGITS = 1.0
"""An event goes on until its logit falls this far below that of the threshold."""

MIN_CANDIDATES, MAX_CANDIDATES = 2_000, 1_000_000
"""Frames that one search of the corpus asks for."""

MAX_LEFT_OUT = 1_000
"""Audios that a search of the corpus is told to leave out."""

MAX_CHOSEN = 10_000
"""Audios that a search of the corpus is told to keep to. With more, the files that are not wanted are passed over."""

CANDIDATES_AT_ONCE = 64
ROWS_AT_ONCE = 8_192
MIN_MARGIN_FRAMES = 25

MEASURED_AT_ONCE, MEASURED_PARTS = 64, 64
"""Vectors whose lengths are measured before a search: so many parts of the table, each of so many rows."""

LONGER = 4.0
"""How many times as long as the longest of those that are measured the others are taken to be at most."""

Scores = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Event:
    """A stretch of a file that sounds like the query; score and probability are those of its peak frame."""

    rank: int
    uri: str
    start_s: float
    end_s: float
    score: float
    probability: float
    peak_s: float
    metadata: dict[str, Any] = field(default_factory=dict)
    """The user's columns."""


@dataclass(frozen=True)
class Rules:
    """What counts as an event. ``threshold`` is a probability (0.3 in PE-Audio's own code), times are in seconds."""

    threshold: float = 0.3
    min_duration_s: float = 0.0
    merge_gap_s: float = 0.2

    def __post_init__(self) -> None:
        if not 0.0 < self.threshold < 1.0:
            raise UsageError(f"--threshold: {self.threshold} is not a probability between 0 and 1")
        for name in ("min_duration_s", "merge_gap_s"):
            if not 0.0 <= getattr(self, name) < math.inf:
                option = name.removesuffix("_s").replace("_", "-")
                raise UsageError(f"--{option}: {getattr(self, name)} is not a duration in seconds")


@dataclass(frozen=True)
class Levels:
    """The rules in terms of dot products: an event begins at ``on`` or above and lasts while at ``off`` or above."""

    on: float
    off: float
    gap_frames: int
    min_frames: int

    @classmethod
    def from_rules(cls, rules: Rules, logit_scale: float, logit_bias: float) -> "Levels":
        logit = math.log(rules.threshold / (1.0 - rules.threshold))
        return cls(
            on=(logit - logit_bias) / logit_scale,
            off=(logit - HYSTERESIS_LOGITS - logit_bias) / logit_scale,
            gap_frames=seconds_to_frames(rules.merge_gap_s),
            min_frames=math.ceil(rules.min_duration_s / FRAME_S - 1e-9),
        )


@dataclass(frozen=True)
class Run:
    """Frames ``first`` .. ``stop - 1`` of one audio, the best of them ``peak`` with the dot product ``score``."""

    first: int
    stop: int
    peak: int
    score: float


def read_runs(scores: npt.NDArray[Any], levels: Levels, first_frame: int = 0) -> list[Run]:
    """Read events off the dot products (n,) of consecutive frames, in order of time.

    Gaps of at most ``gap_frames`` are closed first, then what is shorter than ``min_frames`` is dropped.
    """
    runs: list[list[int]] = []
    for stretch_first, stretch_stop in _stretches(scores >= levels.off):
        begins = np.flatnonzero(scores[stretch_first:stretch_stop] >= levels.on)
        if len(begins):
            first = stretch_first + int(begins[0])
            if runs and first - runs[-1][1] <= levels.gap_frames:
                runs[-1][1] = stretch_stop
            else:
                runs.append([first, stretch_stop])
    events = []
    for first, stop in runs:
        if stop - first >= levels.min_frames:
            peak = first + int(np.argmax(scores[first:stop]))
            events.append(Run(first + first_frame, stop + first_frame, peak + first_frame, float(scores[peak])))
    return events


def _stretches(mask: npt.NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Where ``mask`` (n,) is true without a break: (first, stop) pairs."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], mask, [False]]).astype(np.int8)))
    return [(int(first), int(stop)) for first, stop in edges.reshape(-1, 2)]


class Holder(NamedTuple):
    """An indexed file that holds an audio."""

    uri: str
    duration_s: float
    metadata: dict[str, Any]


def find_events(
    frames: Any,
    files: Any,
    query: Vector,
    levels: Levels,
    k: int,
    where: str | None = None,
    max_chosen: int = MAX_CHOSEN,
) -> list[tuple[Holder, Run]]:
    """The ``k`` events with the highest peaks, best first, each with the file that it is in.

    Exactly those that a scan over all frames would give, except that among events whose peaks are equal to the k-th any
    may be the ones left out. The engine finds candidates with a query rounded to float16, which may cost the more, the
    longer vectors are. So their lengths are measured in a sample, and none is assumed to be over ``LONGER`` times as
    long as the longest of it. Where one that is read is longer, the search is done again with a wider margin; a longer
    one that is never read may be missed.

    Args:
        frames: the table, from ``search.open_table``. files: the ledger, likewise.
        query: (D,) embedding by the text tower of the frame model.
        where: SQL over the columns of ``files``: only events in these files, of several with one content too.
        max_chosen: up to so many audios, the search is told which ones they are.

    Raises:
        UsageError: ``where`` is not valid.
    """
    check_query(frames, query)
    chosen = None if where is None else _choose_audios(files, where, max_chosen)
    if chosen == []:
        return []
    longest = _measure_some(frames)
    while True:
        reader = _Reader(frames, files, query, levels, k, where, rounding(query, longest))
        _search(frames, reader, chosen)
        if not reader.longest > longest:
            return reader.events
        longest = LONGER * reader.longest


def _measure_some(frames: Any) -> float:
    """The length of the longest vector, if there are few; else what none is likely to exceed."""
    n_rows = frames.count_rows()
    is_few = n_rows <= MEASURED_PARTS * MEASURED_AT_ONCE
    begins = np.linspace(0, max(0, n_rows - MEASURED_AT_ONCE), MEASURED_PARTS, dtype=np.int64)
    offsets = np.arange(n_rows) if is_few else np.unique(begins[:, None] + np.arange(MEASURED_AT_ONCE))
    rows = frames.take_offsets(offsets.tolist()).select(["vector"]).to_arrow()
    return (1.0 if is_few else LONGER) * measure_lengths(to_matrix(rows["vector"]))


def _search(frames: Any, reader: "_Reader", chosen: list[str] | None) -> None:
    """Give the reader candidates, page by page, until no further one can change its events."""
    n_rows = frames.count_rows()
    n = min(n_rows, MAX_CANDIDATES, max(MIN_CANDIDATES, 100 * reader.k))
    best_distance = None
    while n:
        page = _best_frames(frames, reader, n, best_distance, chosen)
        reader.read(page)
        # The engine gives every frame that is not on this page or an earlier one at most the last score of this page.
        if len(page) < n or n == n_rows or reader.worst_score >= page[-1].score + reader.margin:
            break
        # The next page begins where this one ends, among its equals: where they fill it, only a larger one gets on.
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

    Of certain audios, if they are ``chosen``, and not of those in which the reader has nothing left to find.
    """
    search = frames.search(reader.query, vector_column_name="vector").distance_type("dot").limit(n)
    search = search.distance_range(lower_bound=best_distance, upper_bound=1.0 - reader.levels.on + reader.margin)
    left_out = reader.finished_audios()
    conditions = [f"audio_id IN ({_quoted(chosen)})"] if chosen is not None else []
    conditions += [f"audio_id NOT IN ({_quoted(left_out)})"] if left_out else []
    if conditions:
        search = search.where(" AND ".join(conditions), prefilter=True)
    table = search.select(["audio_id", "frame", "_distance"]).with_row_id(True).to_arrow()
    columns = (table[name].to_pylist() for name in ("audio_id", "frame", "_rowid", "_distance"))
    return list(map(Candidate, *columns))


def _indexed(where: str | None) -> str:
    """The filter of the files that are wanted."""
    return "status = 'indexed'" + ("" if where is None else f" AND ({where})")


def _choose_audios(files: Any, where: str, max_chosen: int) -> list[str] | None:
    """The audios of the files that are wanted; None where they are so many that it is faster to look at all.

    Raises:
        UsageError: ``where`` is not valid.
    """
    rows = read_rows(files, ["audio_id"], _indexed(where), asked=where)
    audio_ids = rows["audio_id"].unique()
    return audio_ids.to_pylist() if len(audio_ids) <= max_chosen else None


class Stretch(NamedTuple):
    """Frames ``first`` .. ``stop - 1`` of an audio. Frame f should be the row ``row_id_of_0 + f``."""

    audio_id: str
    first: int
    stop: int
    row_id_of_0: int


@dataclass
class _Audio:
    """An audio with candidates: the indexed files that hold it, of those that are wanted, and what has been read of it.

    ``known`` are (first, stop) of stretches, in order and apart. At either end, each is too quiet for too long for an
    event to reach over it, so the next stretch may take that end for the end of the file.
    """

    holders: list[Holder]
    n_frames: int
    known: list[tuple[int, int]]

    def unknown_around(self, frame: int) -> tuple[int, int]:
        """(first, stop) between known stretches, with ``frame`` inside unless it is known."""
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
    """Reads the ``k`` best events around candidates; nothing is read twice for two of them.

    ``margin``: how far the engine's scores may lie from the exact ones, while no vector is longer than is thought.
    ``longest``: the length of the longest vector that was read.
    """

    def __init__(
        self, frames: Any, files: Any, query: Vector, levels: Levels, k: int, where: str | None, margin: float
    ) -> None:
        self.events: list[tuple[Holder, Run]] = []
        self.longest = 0.0
        self.query, self.levels, self.k, self.margin = query, levels, k, margin
        self._where = where
        self._names = schema.metadata_columns(files.schema).names
        self._frames, self._files = frames, files
        self._audios: dict[str, _Audio] = {}

    @property
    def worst_score(self) -> float:
        """What an event must reach to be among the best."""
        return self.events[-1][1].score if len(self.events) == self.k else -math.inf

    def finished_audios(self) -> list[str]:
        """Audios in which there is nothing left to find: those with most frames, each of which may be a candidate."""
        finished = [audio_id for audio_id, audio in self._audios.items() if audio.is_finished]
        return heapq.nlargest(MAX_LEFT_OUT, finished, key=lambda audio_id: self._audios[audio_id].n_frames)

    def read(self, candidates: Iterable[Candidate]) -> None:
        """Take in the events around ``candidates``, which come best first, as far as they can be among the best."""
        ahead = iter(candidates)
        while chosen := self._choose(ahead):
            self._look_up({candidate.audio_id for candidate in chosen} - self._audios.keys())
            around = [self._around(candidate) for candidate in chosen if self._is_open(candidate)]
            for stretch, scores in self._settle(_merge(around)).items():
                audio = self._audios[stretch.audio_id]
                bisect.insort(audio.known, (stretch.first, stretch.stop))
                runs = read_runs(scores, self.levels, stretch.first)
                self.events += [(holder, run) for run in runs for holder in audio.holders]
            self.events.sort(key=lambda event: (-event[1].score, event[0].uri, event[1].first))
            del self.events[self.k :]

    def _choose(self, ahead: Iterator[Candidate]) -> list[Candidate]:
        """The next candidates of which nothing is known; none once the best events cannot change any more."""
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
        if not audio_ids:
            return
        self._audios |= {audio_id: _Audio([], 0, []) for audio_id in audio_ids}
        where = f"audio_id IN ({_quoted(audio_ids)}) AND {_indexed(self._where)}"
        columns = ["audio_id", "uri", "duration_s", "n_frames", *self._names]
        search = self._files.search().where(where).select(columns)
        for row in search.limit(self._files.count_rows()).to_arrow().to_pylist():
            audio = self._audios[row["audio_id"]]
            audio.n_frames = row["n_frames"]
            metadata = {name: row[name] for name in self._names}
            audio.holders.append(Holder(row["uri"], row["duration_s"], metadata))

    def _around(self, candidate: Candidate) -> Stretch:
        """As far as most events reach."""
        low, high = self._audios[candidate.audio_id].unknown_around(candidate.frame)
        margin = self.levels.gap_frames + MIN_MARGIN_FRAMES
        first, stop = max(low, candidate.frame - margin), min(high, candidate.frame + margin + 1)
        return Stretch(candidate.audio_id, first, stop, candidate.row_id - candidate.frame)

    def _settle(self, stretches: list[Stretch]) -> dict[Stretch, Scores]:
        """Scores of each stretch, widened until no event reaches over its ends; stretches that meet become one."""
        settled: dict[Stretch, Scores] = {}
        while stretches:
            wider: list[Stretch] = []
            for stretch, scores in self._score(stretches).items():
                grown = self._grow(stretch, scores)
                if grown == stretch:
                    settled[stretch] = scores
                else:
                    wider.append(grown)
            merged = _merge([*wider, *settled])
            stretches = [stretch for stretch in merged if stretch not in settled]
            settled = {stretch: settled[stretch] for stretch in merged if stretch in settled}
        return settled

    def _grow(self, stretch: Stretch, scores: Scores) -> Stretch:
        """The stretch made longer at each end over which an event may go on."""
        loud = np.flatnonzero(scores >= self.levels.off)
        if len(loud) == 0:
            return stretch
        low, high = self._audios[stretch.audio_id].unknown_around(stretch.first)
        quiet = self.levels.gap_frames + 1
        more = len(scores)
        left = more if loud[0] < quiet else 0
        right = more if loud[-1] >= len(scores) - quiet else 0
        return stretch._replace(first=max(low, stretch.first - left), stop=min(high, stretch.stop + right))

    def _score(self, stretches: list[Stretch]) -> dict[Stretch, Scores]:
        """Dot products of the frames of each stretch: rows are taken from where they should be, and looked up if not.

        A vector search with a filter would read all vectors of an audio for the few that it keeps.
        """
        spans = [np.arange(stretch.first, stretch.stop) for stretch in stretches]
        rows = [stretch.row_id_of_0 + span for stretch, span in zip(stretches, spans, strict=True)]
        result = dict(zip(stretches, self._take(stretches, spans, rows), strict=True))
        for stretch, scores in result.items():
            if len(missing := np.flatnonzero(np.isneginf(scores))):
                part = stretch._replace(first=stretch.first + missing[0], stop=stretch.first + missing[-1] + 1)
                span, row_ids = self._find_rows(part)
                [found] = self._take([stretch], [span], [row_ids])
                scores[span - stretch.first] = found
        return result

    def _take(self, stretches: list[Stretch], spans: list[Integers], rows: list[Integers]) -> list[Scores]:
        """Scores of the frames ``spans`` at ``rows``, stretch by stretch; -inf where another frame, or none, is."""
        numbers = {audio_id: number for number, audio_id in enumerate({stretch.audio_id for stretch in stretches})}
        audio = np.repeat([numbers[stretch.audio_id] for stretch in stretches], [len(span) for span in spans])
        frame, row_id = np.concatenate(spans), np.concatenate(rows)
        scores = np.full(len(frame), -np.inf, np.float32)
        for begin in range(0, len(frame), ROWS_AT_ONCE):
            part = slice(begin, begin + ROWS_AT_ONCE)
            ids = np.unique(row_id[part])
            search = self._frames.take_row_ids(ids[ids >= 0].tolist()).select(["audio_id", "frame", "vector"])
            table = search.with_row_id().to_arrow().combine_chunks().sort_by("_rowid")
            if table.num_rows == 0:
                continue
            found_audio = np.array([numbers.get(audio_id, -1) for audio_id in table["audio_id"].to_pylist()])
            found_row_id = table["_rowid"].to_numpy().astype(np.int64)
            vectors = to_matrix(table["vector"])
            self.longest = max(self.longest, measure_lengths(vectors))
            found_scores = dot_products(vectors, self.query)
            at = np.minimum(np.searchsorted(found_row_id, row_id[part]), table.num_rows - 1)
            is_it = (found_row_id[at] == row_id[part]) & (found_audio[at] == audio[part])
            is_it &= table["frame"].to_numpy()[at] == frame[part]
            scores[part][is_it] = found_scores[at[is_it]]
        return np.split(scores, np.cumsum([len(span) for span in spans])[:-1])

    def _find_rows(self, stretch: Stretch) -> tuple[Integers, Integers]:
        """Frames of a stretch and their row ids: an audio need not lie in one piece."""
        where = f"audio_id = '{stretch.audio_id}' AND frame >= {stretch.first} AND frame < {stretch.stop}"
        search = self._frames.search().where(where).select(["frame"]).with_row_id(True)
        table = search.limit(stretch.stop - stretch.first).to_arrow()
        return table["frame"].to_numpy().astype(np.int64), table["_rowid"].to_numpy().astype(np.int64)


def _merge(stretches: list[Stretch]) -> list[Stretch]:
    """Those that touch made one, in order."""
    merged: list[Stretch] = []
    for stretch in sorted(stretches):
        if merged and merged[-1].audio_id == stretch.audio_id and stretch.first <= merged[-1].stop:
            merged[-1] = merged[-1]._replace(stop=max(merged[-1].stop, stretch.stop))
        else:
            merged.append(stretch)
    return merged


def _quoted(audio_ids: Iterable[str]) -> str:
    return ", ".join(f"'{audio_id}'" for audio_id in sorted(audio_ids))


def to_event(rank: int, holder: Holder, run: Run, probability: float) -> Event:
    """Frames as seconds; no event ends after its file."""
    duration_s = holder.duration_s
    return Event(
        rank=rank,
        uri=holder.uri,
        start_s=frames_to_seconds(run.first),
        end_s=min(frames_to_seconds(run.stop), duration_s),
        score=run.score,
        probability=probability,
        peak_s=min(samples_to_seconds(run.peak * HOP_SAMPLES + HOP_SAMPLES // 2), duration_s),
        metadata=holder.metadata,
    )
