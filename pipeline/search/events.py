"""What counts as an event: the scores of consecutive frames in, events out, on arrays alone.

An event begins where the probability passes the threshold, and lasts while the logit is at most 1 below that of the
threshold (hysteresis). Gaps are closed, and short events dropped.
"""

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from pipeline.errors import UsageError
from pipeline.grid import FRAME_S, HOP_SAMPLES, frames_to_seconds, samples_to_seconds, seconds_to_frames
from pipeline.search.found import Event as Event
from pipeline.search.found import Events as Events

HYSTERESIS_LOGITS = 1.0
"""An event lasts until its logit falls this far below that of the threshold."""


@dataclass(frozen=True)
class Rules:
    """What counts as an event. ``threshold`` is a probability (0.3 in PE-Audio's own code); times are in seconds."""

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
    """The rules as dot products: an event begins at ``on`` or above, and lasts while at ``off`` or above."""

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
class EventFrames:
    """An event as frames ``first`` .. ``stop - 1`` of an audio; ``score`` is the dot product of the best, ``peak``."""

    first: int
    stop: int
    peak: int
    score: float


def read_events(scores: npt.NDArray[Any], levels: Levels, first_frame: int = 0) -> list[EventFrames]:
    """Events from the dot products (n,) of consecutive frames, in order of time.

    Gaps of at most ``gap_frames`` are closed first, then events shorter than ``min_frames`` are dropped.
    """
    loud = np.flatnonzero(scores >= levels.on)
    if not len(loud):
        return []
    lasts = scores >= levels.off
    edges = np.flatnonzero(lasts[1:] != lasts[:-1]) + 1
    span = np.searchsorted(edges, loud, side="right")  # the unbroken span, before this edge, of each loud frame
    is_first = np.diff(span, prepend=-1) > 0
    firsts, stops = loud[is_first], np.append(edges, len(scores))[span[is_first]]
    is_apart = firsts[1:] - stops[:-1] > levels.gap_frames
    firsts, stops = firsts[np.append(True, is_apart)], stops[np.append(is_apart, True)]
    events = []
    for first, stop in zip(firsts.tolist(), stops.tolist(), strict=True):
        if stop - first >= levels.min_frames:
            peak = first + int(scores[first:stop].argmax())
            events.append(EventFrames(first + first_frame, stop + first_frame, peak + first_frame, float(scores[peak])))
    return events


class Holder(NamedTuple):
    """An indexed file that holds an audio."""

    uri: str
    duration_s: float
    metadata: dict[str, Any]
    audio_id: str | None = None


def to_event(rank: int, holder: Holder, frames: EventFrames, probability: float) -> Event:
    """Frames as seconds. No event ends after its file."""
    duration_s = holder.duration_s
    return Event(
        rank=rank,
        uri=holder.uri,
        start_s=frames_to_seconds(frames.first),
        end_s=min(frames_to_seconds(frames.stop), duration_s),
        score=frames.score,
        probability=probability,
        peak_s=min(samples_to_seconds(frames.peak * HOP_SAMPLES + HOP_SAMPLES // 2), duration_s),
        metadata=dict(holder.metadata),  # the holder is kept for other questions
        audio_id=holder.audio_id,
    )
