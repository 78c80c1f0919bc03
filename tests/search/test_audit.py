"""The estimator of recall, on arrays: unbiased, with an interval that holds, and right at ties and borders."""

import numpy as np
import pytest

from pipeline.search.audit import Answer, ExactAnswer, Found, estimate, measure_recall, wilson

N_AUDIOS, N_QUESTIONS = 600, 40


def exact_answer(found: list[Found], floor: float = -np.inf, units: list[int] | None = None) -> ExactAnswer:
    return ExactAnswer(found, units or [0] * len(found), floor)


def population(rng: np.random.Generator) -> tuple[list[list[Found]], list[Found]]:
    """Events by question, best first, more of them in some audios than in others; and those that an index loses.

    It loses many events in a few audios, so that an interval over events, instead of audios, would be too narrow."""
    loses = rng.choice([0.01, 0.4], N_AUDIOS, p=[0.95, 0.05])
    often = rng.dirichlet(np.full(N_AUDIOS, 0.5))
    questions, lost = [], []
    for number in range(N_QUESTIONS):
        audios = rng.choice(N_AUDIOS, rng.integers(50, 800), p=often)
        scores = -np.sort(-rng.normal(0, 1, len(audios)))
        numbered = enumerate(zip(audios.tolist(), scores.tolist(), strict=True))
        events = [Found(f"{audio:04d}", 10 * i, 10 * i + 5, score) for i, (audio, score) in numbered]
        questions.append(events)
        lost += [
            event._replace(owner=f"{number}/{event.owner}")
            for event in events
            if rng.random() < loses[int(event.owner)]
        ]
    return questions, lost


def answers_of(questions: list[list[Found]], lost: list[Found], k: int) -> list[Answer]:
    missing = set(lost)
    answers = []
    for number, events in enumerate(questions):
        kept = [event for event in events if event._replace(owner=f"{number}/{event.owner}") not in missing]
        answers.append(Answer(kept[:k], len(kept) >= k))
    return answers


@pytest.mark.parametrize("seed", [0, 1])
def test_estimate_is_unbiased_and_its_interval_holds(seed: int) -> None:
    rng = np.random.default_rng(seed)
    questions, lost = population(rng)
    answers = answers_of(questions, lost, k=100)
    whole = [exact_answer(events, units=[int(event.owner) for event in events]) for events in questions]
    truth = measure_recall(answers, whole, N_AUDIOS).share
    assert truth is not None
    assert 0.9 < truth < 0.99
    shares, held = [], 0
    for _ in range(150):
        drawn = np.isin(np.arange(N_AUDIOS), rng.choice(N_AUDIOS, 200, replace=False))
        found = measure_recall(answers, whole, N_AUDIOS, drawn)
        assert found.share is not None
        shares.append(found.share)
        held += found.low <= truth <= found.high
    assert np.mean(shares) == pytest.approx(truth, abs=4 * np.std(shares) / np.sqrt(150))
    assert np.std(shares) > 0.005  # so the line above is a test
    assert held >= 0.9 * 150


def test_question_that_has_more_than_k_counts_only_what_reaches_the_last_score() -> None:
    events = [Found("a", 0, 5, 9.0), Found("b", 0, 5, 8.0), Found("c", 0, 5, 7.0), Found("d", 0, 5, 6.0)]
    found = measure_recall([Answer([events[0], events[2]], True)], [exact_answer(events)], 1)
    assert found.share == pytest.approx(2 / 3)
    assert found.n_events == 3


def test_index_that_returns_fewer_than_k_should_have_returned_all() -> None:
    events = [Found("a", 0, 5, 9.0), Found("b", 0, 5, 8.0), Found("c", 0, 5, 7.0), Found("d", 0, 5, 6.0)]
    found = measure_recall([Answer([events[0], events[2]], False)], [exact_answer(events)], 1)
    assert (found.share, found.n_events) == (0.5, 4)
    nothing = measure_recall([Answer([], False)], [exact_answer(events)], 1)
    assert (nothing.share, nothing.n_events) == (0.0, 4)


def test_ties_with_the_last_score_may_be_left_out() -> None:
    events = [Found("a", 0, 5, 9.0), *(Found(name, 0, 5, 7.0) for name in "bcd")]
    found = measure_recall([Answer([events[0], events[2]], True)], [exact_answer(events)], 1)
    assert (found.share, found.n_events) == (1.0, 2)


def test_events_match_by_their_frames() -> None:
    exact = exact_answer([Found("a", 10, 20, 5.0), Found("a", 30, 40, 4.0), Found("b", 10, 20, 3.0)])
    returned = [Found("a", 11, 20, 5.0), Found("a", 40, 50, 2.0), Found("c", 10, 20, 1.0)]
    found = measure_recall([Answer(returned, False)], [exact], 1)
    assert found.share == pytest.approx(1 / 3)
    assert found.n_events == 3


def test_events_below_the_floor_of_the_sample_are_unknown() -> None:
    """Of a question with very many events, the sample keeps the best: what lies below cannot be judged."""
    events = [Found("a", 0, 5, 9.0), Found("b", 0, 5, 8.0)]
    low = Found("z", 0, 5, 1.0)
    found = measure_recall([Answer([events[0], low], True)], [exact_answer(events, floor=8.0)], 1)
    assert (found.share, found.n_events) == (1.0, 1)


def test_sample_without_events_says_nothing() -> None:
    found = measure_recall([Answer([Found("a", 0, 5, 9.0)], False)], [exact_answer([])], 3)
    assert (found.share, found.low, found.high, found.n_events) == (None, 0.0, 1.0, 0)


def test_few_events_or_few_units_widen_the_interval() -> None:
    ones = np.ones(400, np.int64)
    many, few = estimate(ones, ones), estimate(ones[:20], ones[:20])
    crowded = estimate(np.full(20, 20), np.full(20, 20))
    assert many.share == few.share == crowded.share == 1.0
    assert many.low > 0.99 > crowded.low > 0.9 > few.low
    assert estimate(np.array([400]), np.array([400])).low < few.low


def test_misses_in_one_unit_are_less_certain_than_misses_everywhere() -> None:
    events = np.full(100, 10)
    spread = events - (np.arange(100) % 2)
    lumped = np.where(np.arange(100) < 5, 0, events)
    assert estimate(spread, events).share == estimate(lumped, events).share == 0.95
    assert estimate(spread, events).low > estimate(lumped, events).low


def test_equal_losses_everywhere_are_not_more_certain_than_the_number_of_events() -> None:
    events = np.full(50, 2)
    assert estimate(events // 2, events).low < wilson(0.5, 100)[0] + 1e-9


def test_wilson_interval_has_its_known_values() -> None:
    assert wilson(0.5, 10) == pytest.approx((0.2366, 0.7634), abs=1e-4)
    assert wilson(1.0, 100) == pytest.approx((0.9630, 1.0), abs=1e-4)
