"""How much an index misses: answers through the index in, and exact ones from a sample; recall with an interval out.

What is estimated: of all events of an index that score at least as high as the last one that the index returned, the
share that it returned. A question counts once for each such event. The same holds for clips.

How: whole audios and parts of long ones are drawn, each with the same probability. In them the exact events are known.
Of those that reach the index's k-th score, the sample shows how many were returned. So numerator and denominator are
both unbiased up to one common factor, and their ratio has a bias of the order of 1 / audios. It does not matter how
many events a question has in the whole index, which nobody knows without a full scan.

Ties: an index may leave out events that score as high as its k-th one. Those count only if they were returned.

Interval: audios, not events, are independent. All that was drawn of one audio is a *unit*. The jackknife over units
gives the variance of the ratio, which says how many independent events would be as uncertain; Wilson's interval of 95 %
for so many follows. Where little is missed, that variance says little: so the events of a unit count as correlated by
at least ``MIN_CORRELATION``. The interval does not get narrower because a large share of the index was drawn.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Counts = npt.NDArray[np.int64]

Z = 1.96
"""Standard deviations that hold 95 % of a normal distribution."""

MIN_CORRELATION = 0.05
"""How much losses within a unit are alike, at least: n events of one unit tell as much as n / (1 + 0.05 (n - 1))."""

TIE = 1e-5
"""Scores that differ by less than this share of their size are equal: the sample's products are float32."""


class Found(NamedTuple):
    """An event: frames ``first`` .. ``stop - 1`` of the audio ``owner``. A clip: its id, 0 and 1."""

    owner: str
    first: int
    stop: int
    score: float


class Answer(NamedTuple):
    """What an index returned for a question, best first. ``is_full``: as many as were asked for; more may exist."""

    found: Sequence[Found]
    is_full: bool


class ExactAnswer(NamedTuple):
    """All events of a question in the sample whose scores are above ``floor``, best first, and the numbers of their
    units."""

    found: Sequence[Found]
    units: Sequence[int]
    floor: float


@dataclass(frozen=True)
class Recall:
    """The share of ``n_events`` exact events that an index returned, and its interval of 95 %. None where there is
    no event."""

    share: float | None
    low: float
    high: float
    n_events: int
    n_units: int
    """Units with an event."""
    best_low: float
    """What ``low`` would be had all events been returned."""


def measure_recall(
    answers: Sequence[Answer], exact: Sequence[ExactAnswer], n_units: int, of_units: npt.NDArray[np.bool_] | None = None
) -> Recall:
    """The recall of ``answers`` on a sample of ``n_units``, by the ``exact`` ones to the same questions.

    Args:
        of_units: (n_units,) measure on these units only.
    """
    hits, events = np.zeros(n_units, np.int64), np.zeros(n_units, np.int64)
    for answer, whole in zip(answers, exact, strict=True):
        for unit, is_hit in _compare(answer, whole):
            events[unit] += 1
            hits[unit] += is_hit
    chosen = slice(None) if of_units is None else of_units
    return estimate(hits[chosen], events[chosen])


def _compare(answer: Answer, exact: ExactAnswer) -> list[tuple[int, bool]]:
    """The unit of each exact event that counts, and whether it was returned."""
    returned = defaultdict(list)
    for found in answer.found:
        returned[found.owner].append(found)
    last = answer.found[-1].score if answer.is_full and answer.found else -np.inf
    compared = []
    for event, unit in zip(exact.found, exact.units, strict=True):
        # Spans may differ by a frame where a score lies on a threshold, so any overlap will do.
        is_hit = any(event.first < other.stop and other.first < event.stop for other in returned[event.owner])
        if _reaches(event.score, last, is_hit) and _reaches(event.score, exact.floor, is_hit):
            compared.append((unit, is_hit))
    return compared


def _reaches(score: float, last: float, is_hit: bool) -> bool:
    """Whether a score is above the last one that was returned, or as high and returned itself."""
    tolerance = TIE * max(1.0, abs(last)) if np.isfinite(last) else 0.0
    return score > last + tolerance or (is_hit and score >= last - tolerance)


def estimate(hits: Counts, events: Counts) -> Recall:
    """The ratio of two sums over units (n,), and its interval."""
    hits, events = hits[events > 0], events[events > 0]
    n_events, n_units = int(events.sum()), len(events)
    if n_events == 0:
        return Recall(None, 0.0, 1.0, 0, 0, 0.0)
    share = float(hits.sum() / n_events)
    in_a_unit = float((events.astype(np.float64) ** 2).sum()) / n_events  # of an event
    n_independent = n_events / (1.0 + MIN_CORRELATION * (in_a_unit - 1.0))
    best_low, _ = wilson(1.0, n_independent)
    if 0.0 < share < 1.0 and n_units > 1:
        without = (hits.sum() - hits) / (n_events - events)
        variance = float(((without - without.mean()) ** 2).sum()) * (n_units - 1) / n_units
        n_independent = min(n_independent, share * (1.0 - share) / max(variance, 1e-12))
    low, high = wilson(share, n_independent)
    return Recall(share, low, high, n_events, n_units, best_low)


def wilson(share: float, n: float) -> tuple[float, float]:
    """Wilson's interval of 95 % for a share seen in ``n`` independent trials."""
    middle = (share + Z**2 / (2 * n)) / (1 + Z**2 / n)
    half = Z / (1 + Z**2 / n) * float(np.sqrt(share * (1 - share) / n + Z**2 / (4 * n**2)))
    return (max(0.0, middle - half) if share > 0 else 0.0), (min(1.0, middle + half) if share < 1 else 1.0)
