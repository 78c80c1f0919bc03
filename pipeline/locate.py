"""A query embedding in, events out: which file, from when to when. Read from stored frames, never from audio.

Candidates are the best frames of the whole corpus, so that a short event in a long clip is found. Around them the
scores of all frames are taken inside the engine, and events are read off: one begins where the probability passes
the threshold, and goes on while the logit is at most 1 below that of the threshold.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.errors import UsageError
from pipeline.search import Vector, check_query
from pipeline.window import FRAME_S, HOP_SAMPLES, frames_to_seconds, samples_to_seconds, seconds_to_frames

HYSTERESIS_LOGITS = 1.0
"""An event goes on until its logit falls this far below that of the threshold."""

MIN_CANDIDATES = 2_000
AUDIOS_AT_ONCE = 16
MIN_MARGIN_FRAMES = 25


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


def find_events(frames: Any, files: Any, query: Vector, levels: Levels, k: int) -> Iterator[tuple[str, float, Run]]:
    """The ``k`` events with the highest peaks: (uri, duration of the file in seconds, run), best first.

    Args:
        frames: the table, from ``search.open_table``. files: the ledger, likewise.
        query: (D,) embedding by the text tower of the frame model.
    """
    check_query(frames, query)
    n_rows = frames.count_rows()
    n_candidates = min(n_rows, max(MIN_CANDIDATES, 100 * k))
    while n_candidates:
        candidates = _best_frames(frames, query, levels.on, n_candidates)
        complete = len(candidates) < n_candidates or n_candidates == n_rows
        # What lies below the worst candidate may have competitors that were not fetched.
        floor = -math.inf if complete else min(score for _, _, score in candidates)
        found = _read_audios(frames, files, query, levels, k, candidates, floor)
        if complete or len(found) >= k:
            yield from found[:k]
            return
        n_candidates = min(n_rows, 8 * n_candidates)


def _best_frames(frames: Any, query: Vector, on: float, n: int) -> list[tuple[str, int, float]]:
    """(audio_id, frame, dot product) of the ``n`` best frames that can begin an event."""
    search = frames.search(query, vector_column_name="vector").distance_type("dot")
    search = search.distance_range(upper_bound=np.nextafter(np.float32(1.0 - on), np.float32(np.inf)).item()).limit(n)
    table = search.select(["audio_id", "frame", "_distance"]).to_arrow()
    scores = (1.0 - table["_distance"].to_numpy()).tolist()
    return list(zip(table["audio_id"].to_pylist(), table["frame"].to_pylist(), scores, strict=True))


def _read_audios(
    frames: Any,
    files: Any,
    query: Vector,
    levels: Levels,
    k: int,
    candidates: list[tuple[str, int, float]],
    floor: float,
) -> list[tuple[str, float, Run]]:
    by_audio: dict[str, list[tuple[int, float]]] = {}
    for audio_id, frame, score in candidates:
        by_audio.setdefault(audio_id, []).append((frame, score))
    best = {audio_id: max(score for _, score in hits) for audio_id, hits in by_audio.items()}
    order = sorted(best, key=lambda audio_id: (-best[audio_id], audio_id))
    found: list[tuple[str, float, Run]] = []
    for at in range(0, len(order), AUDIOS_AT_ONCE):
        # No event of an audio is better than its best frame: k better ones make the rest superfluous.
        if len(found) >= k and found[k - 1][2].score > best[order[at]]:
            break
        chosen = order[at : at + AUDIOS_AT_ONCE]
        holders = _holders(files, chosen)
        ranges = [span for audio_id in chosen for span in _around(audio_id, by_audio[audio_id], levels, holders)]
        for audio_id, first, scores in _settled(frames, query, levels, ranges, holders):
            for run in read_runs(scores, levels, first):
                if run.score >= floor:
                    found += [(uri, duration_s, run) for uri, duration_s, _ in holders[audio_id]]
        found.sort(key=lambda event: (-event[2].score, event[0], event[2].first))
    return found


def _holders(files: Any, audio_ids: list[str]) -> dict[str, list[tuple[str, float, int]]]:
    """(uri, duration_s, n_frames) of the indexed files that hold each audio."""
    quoted = ", ".join(f"'{audio_id}'" for audio_id in audio_ids)
    where = f"audio_id IN ({quoted}) AND status = 'indexed'"
    columns = ["audio_id", "uri", "duration_s", "n_frames"]
    rows = files.search().where(where).select(columns).limit(files.count_rows()).to_arrow().to_pylist()
    holders: dict[str, list[tuple[str, float, int]]] = {audio_id: [] for audio_id in audio_ids}
    for row in rows:
        holders[row["audio_id"]].append((row["uri"], row["duration_s"], row["n_frames"]))
    return {audio_id: sorted(rows) for audio_id, rows in holders.items()}


Range = tuple[str, int, int]
"""(audio_id, first frame, stop frame)"""


def _around(audio_id: str, hits: list[tuple[int, float]], levels: Levels, holders: dict[str, Any]) -> list[Range]:
    """Ranges of frames around the candidates of one audio, those that touch made one."""
    if not holders[audio_id]:
        return []
    margin = levels.gap_frames + MIN_MARGIN_FRAMES
    n_frames = holders[audio_id][0][2]
    return _merge([(audio_id, max(0, f - margin), min(n_frames, f + margin + 1)) for f, _ in sorted(hits)])


def _merge(ranges: list[Range]) -> list[Range]:
    merged: list[Range] = []
    for audio_id, first, stop in sorted(ranges):
        if merged and merged[-1][0] == audio_id and first <= merged[-1][2]:
            merged[-1] = (audio_id, merged[-1][1], max(merged[-1][2], stop))
        else:
            merged.append((audio_id, first, stop))
    return merged


def _settled(
    frames: Any, query: Vector, levels: Levels, ranges: list[Range], holders: dict[str, Any]
) -> Iterator[tuple[str, int, npt.NDArray[np.float32]]]:
    """Scores of each range, widened until no event reaches over its edges; ranges that meet become one."""
    settled: dict[Range, npt.NDArray[np.float32]] = {}
    while ranges:
        wider: list[Range] = []
        for span, scores in _score_frames(frames, query, ranges).items():
            grown = _grow(span, scores, levels, holders[span[0]][0][2])
            if grown == span:
                settled[span] = scores
            else:
                wider.append(grown)
        merged = _merge([*wider, *settled])
        ranges = [span for span in merged if span not in settled]
        settled = {span: settled[span] for span in merged if span in settled}
    for (audio_id, first, _), scores in settled.items():
        yield audio_id, first, scores


def _grow(span: Range, scores: npt.NDArray[np.float32], levels: Levels, n_frames: int) -> Range:
    """The range made longer on each side where an event may go on beyond it."""
    audio_id, first, stop = span
    loud = np.flatnonzero(scores >= levels.off)
    if len(loud) == 0:
        return span
    quiet = levels.gap_frames + 1
    more = 2 * (stop - first)
    left = more if loud[0] < quiet else 0
    right = more if loud[-1] >= stop - first - quiet else 0
    return audio_id, max(0, first - left), min(n_frames, stop + right)


def _score_frames(frames: Any, query: Vector, ranges: list[Range]) -> dict[Range, npt.NDArray[np.float32]]:
    """Dot products of the frames of each range, computed inside the engine."""
    clauses = [f"(audio_id = '{audio_id}' AND frame >= {first} AND frame < {stop})" for audio_id, first, stop in ranges]
    n_frames = sum(stop - first for _, first, stop in ranges)
    search = frames.search(query, vector_column_name="vector").distance_type("dot").limit(n_frames)
    search = search.where(" OR ".join(clauses), prefilter=True)
    table = search.select(["audio_id", "frame", "_distance"]).to_arrow()
    by_audio: dict[str, list[Range]] = {}
    for span in ranges:
        by_audio.setdefault(span[0], []).append(span)
    scores = {span: np.full(span[2] - span[1], -np.inf, np.float32) for span in ranges}
    values = 1.0 - table["_distance"].to_numpy()
    for audio_id, frame, score in zip(table["audio_id"].to_pylist(), table["frame"].to_pylist(), values, strict=True):
        for span in by_audio[audio_id]:
            if span[1] <= frame < span[2]:
                scores[span][frame - span[1]] = score
    return scores


def to_event(rank: int, uri: str, duration_s: float, run: Run, probability: float) -> Event:
    """Frames as seconds; no event ends after its file."""
    return Event(
        rank=rank,
        uri=uri,
        start_s=frames_to_seconds(run.first),
        end_s=min(frames_to_seconds(run.stop), duration_s),
        score=run.score,
        probability=probability,
        peak_s=min(samples_to_seconds(run.peak * HOP_SAMPLES + HOP_SAMPLES // 2), duration_s),
    )
