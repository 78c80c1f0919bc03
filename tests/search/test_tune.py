"""The settings that reach a recall, chosen with an index that loses a known share of its events."""

import numpy as np
import pytest

from pipeline.search.audit import Answer, ExactAnswer, Found
from pipeline.search.tune import AT_LEAST, AT_ONCE, KS, Exam, Measurement, choose, choose_k, find_best_low

N_QUESTIONS, N_UNITS, K = 120, 400, 50
RUNGS = (1, 2, 4, 8, 16, 32)
RECALLS = {1: 0.6, 2: 0.9, 4: 0.97, 8: 0.991, 16: 0.999, 32: 1.0}


def to_exact(events: list[Found], units: list[int]) -> ExactAnswer:
    return ExactAnswer(events, units, -np.inf)


class LossyIndex:
    """Of the events of each question, finds a share that depends on the settings. Questions are their own numbers."""

    def __init__(
        self, recalls: dict[int, float], n_events: int = 100, seed: int = 0, *, shares_luck: bool = True
    ) -> None:
        """``shares_luck``: what is found with some settings is found with all that find more."""
        rng = np.random.default_rng(seed)
        self.recalls, self.asked = recalls, list[tuple[int, int]]()
        self._luck = dict.fromkeys(recalls, rng.random((N_QUESTIONS, n_events)))
        if not shares_luck:
            self._luck = {setting: rng.random((N_QUESTIONS, n_events)) for setting in recalls}
        self._events = [
            [
                Found(f"{unit:03d}", 10 * n, 10 * n + 5, 1000.0 - n)
                for n, unit in enumerate(rng.integers(0, N_UNITS, n_events))
            ]
            for _ in range(N_QUESTIONS)
        ]
        self.exact = [to_exact(events, [int(event.owner) for event in events]) for events in self._events]
        self.questions = np.arange(N_QUESTIONS, dtype=np.float32)[:, None]

    def ask(self, questions: "np.ndarray[tuple[int, int], np.dtype[np.float32]]", k: int, setting: int) -> list[Answer]:
        self.asked += [(int(number), setting) for number in questions[:, 0]]
        answers = []
        for number in questions[:, 0].astype(int):
            is_found = self._luck[setting][number] < self.recalls[setting]
            found = [event for event, keep in zip(self._events[number], is_found, strict=True) if keep][:k]
            answers.append(Answer(found, len(found) == k))
        return answers

    def exam(self, limit_s: float = 60.0) -> Exam[int]:
        return Exam(self.ask, self.questions, self.exact, N_UNITS, K, limit_s)


def tune(exam: Exam[int], default: int, wanted: float = 0.98) -> tuple[int, Measurement]:
    chosen = RUNGS[choose(exam, RUNGS, RUNGS.index(default), wanted)]
    return chosen, exam.finish(chosen)


@pytest.mark.parametrize("default", [1, 8, 32])
@pytest.mark.parametrize(("wanted", "expected"), [(0.5, 1), (0.85, 2), (0.98, 8), (0.995, 16)])
def test_smallest_setting_that_reaches_the_recall_is_chosen(default: int, wanted: float, expected: int) -> None:
    index = LossyIndex(RECALLS, seed=1)
    chosen, (recall, n_questions) = tune(index.exam(), default, wanted)
    assert chosen == expected
    assert recall.share == pytest.approx(RECALLS[expected], abs=0.01)
    assert recall.low <= RECALLS[expected] <= recall.high
    assert n_questions == N_QUESTIONS
    assert len(index.asked) == len(set(index.asked)) <= 4 * N_QUESTIONS


def test_index_that_loses_events_whatever_the_settings_is_noticed() -> None:
    bad = LossyIndex(dict.fromkeys(RUNGS, 0.8))
    chosen, (recall, _) = tune(bad.exam(), 8)
    assert chosen == RUNGS[-1]
    assert recall.share == pytest.approx(0.8, abs=0.03)
    assert recall.high < 0.9


def test_recall_that_is_reported_is_unbiased_whatever_was_chosen() -> None:
    """Most of the settings find exactly what is wanted, so luck decides which are chosen."""
    recalls = {1: 0.9, 2: 0.98, 4: 0.98, 8: 0.98, 16: 0.98, 32: 1.0}
    errors, chosen_ones = [], set[int]()
    for seed in range(100):
        index = LossyIndex(recalls, n_events=40, seed=seed, shares_luck=False)
        chosen, (recall, _) = tune(index.exam(), 8)
        assert recall.share is not None
        errors.append(recall.share - recalls[chosen])
        chosen_ones.add(chosen)
    assert len(chosen_ones) >= 4
    error = np.std(errors) / np.sqrt(len(errors))
    assert abs(np.mean(errors)) < 3 * error < 0.002


def test_half_of_the_units_that_did_not_choose_measures() -> None:
    exam = LossyIndex(RECALLS).exam()
    exam.finish(8)
    chose, measured = exam.measure(8, is_choice=True), exam.measure(8, is_choice=False)
    assert chose.n_units + measured.n_units <= N_UNITS
    assert abs(chose.n_units - measured.n_units) < 0.2 * N_UNITS
    assert chose.share != measured.share


def test_sample_that_is_too_small_to_be_sure_never_goes_below_the_default() -> None:
    index = LossyIndex(dict.fromkeys(RUNGS, 1.0), n_events=1)
    exam = Exam(index.ask, index.questions[:20], index.exact[:20], N_UNITS, K, 60.0)
    chosen, (recall, _) = tune(exam, 8)
    assert (chosen, recall.share) == (8, 1.0)
    assert recall.low == recall.best_low < 0.97


def test_sample_without_events_leaves_the_default() -> None:
    index = LossyIndex(RECALLS)
    exam = Exam(index.ask, index.questions, [to_exact([], [])] * N_QUESTIONS, N_UNITS, K, 60.0)
    chosen, (recall, _) = tune(exam, 4)
    assert (chosen, recall.share, recall.best_low) == (4, None, 0.0)


def test_questions_end_when_time_is_up() -> None:
    index = LossyIndex(RECALLS)
    _, (_, n_questions) = tune(index.exam(limit_s=0.0), 8)
    assert n_questions == AT_ONCE
    assert {number for number, _ in index.asked} == set(range(AT_ONCE))


def test_single_unit_measures_the_default() -> None:
    index = LossyIndex(RECALLS)
    exact = [answer._replace(units=[0] * len(answer.found)) for answer in index.exact]
    exam = Exam(index.ask, index.questions, exact, 1, K, 60.0)
    chosen, (recall, _) = tune(exam, 2)
    assert chosen == 2
    assert recall.share == pytest.approx(RECALLS[2], abs=0.02)


def test_bad_settings_are_given_up_after_few_questions() -> None:
    index = LossyIndex(RECALLS)
    assert tune(index.exam(), 1)[0] == 8
    asked = [setting for _, setting in index.asked]
    assert asked.count(1) == AT_ONCE < AT_LEAST < asked.count(8) == N_QUESTIONS


def test_best_lower_end_is_that_of_an_index_that_finds_everything() -> None:
    perfect = LossyIndex(dict.fromkeys(RUNGS, 1.0))
    exam = Exam(perfect.ask, perfect.questions, perfect.exact, N_UNITS, KS[-1], 60.0)
    expected = exam.finish(1).recall
    assert expected.share == 1.0
    assert find_best_low(perfect.exact, N_UNITS, share=1.0) == expected.low == expected.best_low
    few = find_best_low(perfect.exact, N_UNITS, share=0.001)  # one event a question
    assert 0.9 < few < expected.low
    assert find_best_low([to_exact([], [])], N_UNITS, share=1.0) == 0.0


@pytest.mark.parametrize(
    ("n_exact", "share", "expected"), [(50, 1.0, 20), (50, 0.1, 200), (50, 0.001, 1000), (1, 0.1, 20), (0, 0.1, 20)]
)
def test_k_grows_until_the_sample_holds_enough_answers(n_exact: int, share: float, expected: int) -> None:
    exact = [to_exact([Found("a", 0, 1, 1.0)] * n_exact, [0] * n_exact)] * N_QUESTIONS
    assert choose_k(exact, share) == expected
    assert expected in KS
