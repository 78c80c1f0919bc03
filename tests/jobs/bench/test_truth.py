"""Exact answers from blocks, and the share of them that was found."""

import pytest

from jobs.bench.truth import Best, Found, recall


def event(score: float, where: str = "a", first: int = 0, stop: int = 1) -> Found:
    return Found(score, where, first, stop)


def test_recall_counts_events_that_a_result_overlaps() -> None:
    exact = [event(3.0, "a", 10, 20), event(2.0, "a", 30, 40), event(1.0, "b", 10, 20)]
    assert recall(exact, exact, 3) == 1.0
    assert recall(exact, [event(3.0, "a", 19, 25)], 3) == pytest.approx(1 / 3)
    assert recall(exact, [event(3.0, "a", 20, 30), event(1.0, "c", 10, 20)], 3) == 0.0
    assert recall(exact, [exact[0]], 1) == 1.0


def test_results_that_change_places_by_rounding_are_not_missing() -> None:
    exact = [event(2.0, "a"), event(1.00001, "b")]
    assert recall(exact, [event(2.0, "a"), event(1.0, "c")], 2) == 1.0
    assert recall(exact, [event(2.0, "a"), event(0.9, "c")], 2) == 0.5
    assert recall(exact, [event(2.0, "a")], 2) == 0.5  # one is missing, whatever its score


def test_nothing_to_find_has_no_recall() -> None:
    assert recall([], [event(1.0)], 20) is None


def test_best_keeps_the_best() -> None:
    best = Best(2)
    for score in (1.0, 3.0, 2.0, 0.5):
        best.add(event(score))
    assert [found.score for found in best.sorted] == [3.0, 2.0]
    assert best.worst == 2.0
