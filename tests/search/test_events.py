"""Events from scores: threshold, hysteresis, gaps and shortest length, on arrays."""

from collections.abc import Sequence

import numpy as np
import pytest

from pipeline.errors import UsageError
from pipeline.search.events import EventFrames, Holder, Levels, Rules, read_events, to_event

LEVELS = Levels(on=2.0, off=1.0, gap_frames=0, min_frames=0)


def find(scores: Sequence[float], levels: Levels = LEVELS) -> list[tuple[int, int, int]]:
    return [(event.first, event.stop, event.peak) for event in read_events(np.array(scores, np.float32), levels)]


def test_levels_are_the_threshold_and_one_logit_below() -> None:
    levels = Levels.from_rules(Rules(0.3, min_duration_s=0.1, merge_gap_s=0.2), logit_scale=4.0, logit_bias=-2.0)
    probability = 1 / (1 + np.exp(-(levels.on * 4.0 - 2.0)))
    assert probability == pytest.approx(0.3)
    assert (levels.on - levels.off) * 4.0 == pytest.approx(1.0)
    assert (levels.gap_frames, levels.min_frames) == (5, 3)


def test_event_begins_at_the_threshold_and_lasts_through_the_hysteresis() -> None:
    assert find([0, 1.5, 2, 3, 1.2, 1.0, 0.9, 3]) == [(2, 6, 3), (7, 8, 7)]
    assert find([1.9, 1.9, 1.9]) == []
    assert find([2, 2, 2]) == [(0, 3, 0)]
    assert find([]) == []


def test_gaps_are_closed_before_short_events_are_dropped() -> None:
    scores = [3, 0, 3, 0, 0, 3]
    assert find(scores, Levels(2, 1, gap_frames=1, min_frames=0)) == [(0, 3, 0), (5, 6, 5)]
    assert find(scores, Levels(2, 1, gap_frames=2, min_frames=0)) == [(0, 6, 0)]
    assert find(scores, Levels(2, 1, gap_frames=1, min_frames=2)) == [(0, 3, 0)]
    assert find(scores, Levels(2, 1, gap_frames=0, min_frames=2)) == []


def test_event_never_ends_after_its_file() -> None:
    event = to_event(1, Holder("/x", 1.0 + 1 / 3, {}), EventFrames(30, 34, 33, 5.0), 0.9)
    assert (event.start_s, event.end_s) == (1.2, 1.0 + 1 / 3)
    assert event.start_s <= event.peak_s <= event.end_s


def test_peak_time_is_the_middle_of_the_best_frame() -> None:
    assert to_event(1, Holder("/x", 100.0, {}), EventFrames(10, 20, 12, 5.0), 0.9).peak_s == 0.5


@pytest.mark.parametrize(
    "rules", [(0.0, 0, 0), (1.0, 0, 0), (float("nan"), 0, 0), (0.5, -1, 0), (0.5, 0, -0.1), (0.5, 0, float("inf"))]
)
def test_rules_out_of_range_are_refused(rules: tuple[float, float, float]) -> None:
    with pytest.raises(UsageError, match="--"):
        Rules(*rules)
