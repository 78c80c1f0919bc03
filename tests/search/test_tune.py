"""The settings that reach a recall, chosen with an index that loses a known share of its events."""

import numpy as np
import pytest

from pipeline.search.audit import Answer, ExactAnswer, Found
from pipeline.search.tune import AT_LEAST, AT_ONCE, KS, Exam, choose_k, tune

N_QUESTIONS, N_UNITS, K = 120, 400, 50
RUNGS = (1, 2, 4, 8, 16, 32)
RECALLS = {1: 0.6, 2: 0.9, 4: 0.97, 8: 0.991, 16: 0.999, 32: 1.0}


class LossyIndex:
    """Of the events of each question, finds a share that depends on the settings. Questions are their own numbers."""

    def __init__(self, recalls: dict[int, float], n_events: int = 100) -> None:
        rng = np.random.default_rng(0)
        self.recalls, self.asked = recalls, list[tuple[int, int]]()
        self._luck = rng.random((N_QUESTIONS, n_events))
        self._events = [
            [
                Found(f"{unit:03d}", 10 * n, 10 * n + 5, 1000.0 - n)
                for n, unit in enumerate(rng.integers(0, N_UNITS, n_events))
            ]
            for _ in range(N_QUESTIONS)
        ]
        self.exact = [ExactAnswer(events, [int(event.owner) for event in events], -np.inf) for events in self._events]
        self.questions = np.arange(N_QUESTIONS, dtype=np.float32)[:, None]

    def ask(self, questions: "np.ndarray[tuple[int, int], np.dtype[np.float32]]", k: int, setting: int) -> list[Answer]:
        self.asked += [(int(number), setting) for number in questions[:, 0]]
        answers = []
        for number in questions[:, 0].astype(int):
            is_found = self._luck[number] < self.recalls[setting]
            found = [event for event, keep in zip(self._events[number], is_found, strict=True) if keep][:k]
            answers.append(Answer(found, len(found) == k))
        return answers

    def exam(self, limit_s: float = 60.0) -> Exam[int]:
        return Exam(self.ask, self.questions, self.exact, N_UNITS, K, limit_s)


@pytest.mark.parametrize("default", [1, 8, 32])
@pytest.mark.parametrize(("wanted", "expected"), [(0.5, 1), (0.85, 2), (0.98, 8), (0.995, 16)])
def test_smallest_setting_that_reaches_the_recall_is_chosen(default: int, wanted: float, expected: int) -> None:
    index = LossyIndex(RECALLS)
    tuned = tune(index.exam(), RUNGS, default, wanted)
    assert tuned.settings == expected
    assert tuned.recall.share is not None
    assert tuned.recall.share >= wanted
    assert tuned.recall.low >= wanted - 0.01
    assert tuned.recall.low <= RECALLS[expected] <= tuned.recall.high
    assert tuned.n_questions == N_QUESTIONS
    assert len(index.asked) == len(set(index.asked)) <= 4 * N_QUESTIONS


def test_index_that_loses_events_whatever_the_settings_is_noticed() -> None:
    bad = LossyIndex(dict.fromkeys(RUNGS, 0.8))
    tuned = tune(bad.exam(), RUNGS, 8, 0.98)
    assert tuned.settings == RUNGS[-1]
    assert tuned.recall.share == pytest.approx(0.8, abs=0.03)
    assert tuned.recall.high < 0.9


def test_recall_is_measured_by_units_that_did_not_choose() -> None:
    exam = LossyIndex(RECALLS).exam()
    exam.finish(8)
    chose, measured = exam.measure(8, is_choice=True), exam.measure(8, is_choice=False)
    assert chose.n_units + measured.n_units <= N_UNITS
    assert abs(chose.n_units - measured.n_units) < 0.2 * N_UNITS
    assert chose.share != measured.share


def test_sample_that_is_too_small_to_be_sure_never_goes_below_the_default() -> None:
    index = LossyIndex(dict.fromkeys(RUNGS, 1.0), n_events=1)
    exam = Exam(index.ask, index.questions[:20], index.exact[:20], N_UNITS, K, 60.0)
    tuned = tune(exam, RUNGS, 8, 0.98)
    assert (tuned.settings, tuned.recall.share) == (8, 1.0)
    assert tuned.recall.low < 0.97


def test_sample_without_events_leaves_the_default() -> None:
    index = LossyIndex(RECALLS)
    exam = Exam(index.ask, index.questions, [ExactAnswer([], [], -np.inf)] * N_QUESTIONS, N_UNITS, K, 60.0)
    tuned = tune(exam, RUNGS, 4, 0.98)
    assert (tuned.settings, tuned.recall.share) == (4, None)


def test_questions_end_when_time_is_up() -> None:
    index = LossyIndex(RECALLS)
    tuned = tune(index.exam(limit_s=0.0), RUNGS, 8, 0.98)
    assert tuned.n_questions == AT_ONCE
    assert {number for number, _ in index.asked} == set(range(AT_ONCE))


def test_single_unit_chooses_and_measures() -> None:
    index = LossyIndex(RECALLS)
    exact = [ExactAnswer(answer.found, [0] * len(answer.found), answer.floor) for answer in index.exact]
    exam = Exam(index.ask, index.questions, exact, 1, K, 60.0)
    exam.finish(8)
    assert exam.measure(8, is_choice=True) == exam.measure(8, is_choice=False)


def test_bad_settings_are_given_up_after_few_questions() -> None:
    index = LossyIndex(RECALLS)
    assert tune(index.exam(), RUNGS, 1, 0.98).settings == 8
    asked = [setting for _, setting in index.asked]
    assert asked.count(1) == AT_LEAST < asked.count(8) == N_QUESTIONS


@pytest.mark.parametrize(
    ("n_exact", "share", "expected"), [(50, 1.0, 20), (50, 0.1, 200), (50, 0.001, 1000), (1, 0.1, 20), (0, 0.1, 20)]
)
def test_k_grows_until_the_sample_holds_enough_answers(n_exact: int, share: float, expected: int) -> None:
    exact = [ExactAnswer([Found("a", 0, 1, 1.0)] * n_exact, [0] * n_exact, -np.inf)] * N_QUESTIONS
    assert choose_k(exact, share) == expected
    assert expected in KS
