"""The fewest candidates that reach a recall: questions asked with several settings, compared with exact answers.

Half of the units of the sample choose the settings: a choice looks better than it is to the events that made it. The
other half decides nothing. It measures the chosen settings, and its result is reported as it is, so it is unbiased.
"""

import math
import time
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Generic, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from pipeline.search.audit import Answer, ExactAnswer, Recall, estimate, measure_recall
from pipeline.search.sample import Matrix

Settings = TypeVar("Settings", bound=Hashable)

Ask = Callable[[Matrix, int, Settings], list[Answer]]
"""Answers to questions (n, D): the best ``k`` each, through the index, with these settings."""

TOLERANCE = 0.01
"""How far below the wanted recall the lower end of its interval may lie."""

KS = (20, 30, 50, 70, 100, 150, 200, 300, 500, 700, 1000)
"""Numbers of answers that a question may ask for."""

ENOUGH_EVENTS = 2_000
"""Exact answers in the sample that narrow the interval to about a percent."""

AT_ONCE = 16
"""Questions that are asked together."""

AT_LEAST, AT_MOST = 64, 128
"""Questions by which settings are judged. Those that are chosen are then measured by all."""

FAR_BELOW = 0.05
"""Settings whose interval ends so far below the wanted recall are given up before ``AT_LEAST`` questions."""


def choose_k(exact: Sequence[ExactAnswer], share: float) -> int:
    """The fewest answers to ask for, so that the sample holds enough; where it cannot, nearly as many as it can.

    Args:
        share: of the index, that was drawn.
    """
    n_exact = np.array([len(answer.found) for answer in exact], np.float64)
    expected = {k: float(np.minimum(n_exact, k * share).sum()) for k in KS}
    wanted = min(ENOUGH_EVENTS, 0.95 * expected[KS[-1]])
    return next(k for k in KS if expected[k] >= wanted)


def find_best_low(exact: Sequence[ExactAnswer], n_units: int, share: float) -> float:
    """The lower end that the reported interval would have if an index returned everything, with the largest k.

    Args:
        share: of the index, that was drawn.
    """
    n_counted = math.ceil(KS[-1] * share)
    units = [unit for answer in exact for unit in answer.units[:n_counted]]
    events = np.bincount(np.array(units, np.int64), minlength=n_units)[~is_for_choice(n_units)]
    return estimate(events, events).best_low


def is_for_choice(n_units: int) -> npt.NDArray[np.bool_]:
    """Which units choose the settings: every other one, for they are in random order; where there is only one, none."""
    return np.asarray(np.arange(n_units) % 2 == 1)


def is_enough(low: float, wanted: float) -> bool:
    """Whether the lower end of an interval is high enough for a recall of ``wanted``."""
    return low >= wanted - TOLERANCE


@dataclass(frozen=True)
class Exam(Generic[Settings]):
    """Questions (Q, D), their exact answers within a sample of ``n_units``, and how to ask an index for ``k`` each."""

    ask: Ask[Settings]
    questions: Matrix
    exact: Sequence[ExactAnswer]
    n_units: int
    k: int
    limit_s: float
    """With each of the settings, questions are asked in order until so much time has passed, at least one group."""
    _answers: dict[Settings, list[Answer]] = field(default_factory=dict, init=False, repr=False)
    _spent_s: dict[Settings, float] = field(default_factory=dict, init=False, repr=False)

    def count_asked(self, settings: Settings) -> int:
        """How many questions were asked with these settings."""
        return len(self._answers.get(settings, ()))

    def ask_more(self, settings: Settings) -> bool:
        """Ask the next group of questions; False where there is none, or no time left."""
        answers = self._answers.setdefault(settings, [])
        spent_s = self._spent_s.get(settings, 0.0)
        if len(answers) == len(self.questions) or (answers and spent_s >= self.limit_s):
            return False
        began = time.monotonic()
        answers += self.ask(self.questions[len(answers) : len(answers) + AT_ONCE], self.k, settings)
        self._spent_s[settings] = spent_s + time.monotonic() - began
        return True

    def measure(self, settings: Settings, *, is_choice: bool) -> Recall:
        """The recall on the half of the units that chooses, or on the other one, by the questions asked so far."""
        answers = self._answers.get(settings, [])
        chosen = is_for_choice(self.n_units) == is_choice
        return measure_recall(answers, self.exact[: len(answers)], self.n_units, chosen)

    def judge(self, settings: Settings, wanted: float) -> bool | None:
        """Whether these settings reach a recall, by as few questions as show it; None where ``AT_MOST`` do not."""
        while True:
            recall, n_asked = self.measure(settings, is_choice=True), self.count_asked(settings)
            verdict = _judge(recall, wanted)
            at_least = AT_ONCE if recall.high < wanted - FAR_BELOW else AT_LEAST
            if n_asked >= (AT_MOST if verdict is None else at_least) or not self.ask_more(settings):
                return verdict

    def finish(self, settings: Settings) -> "Measurement":
        """The recall by the half of the units that did not choose, and by all questions that there is time for."""
        while self.ask_more(settings):
            pass
        return Measurement(self.measure(settings, is_choice=False), self.count_asked(settings))


class Measurement(NamedTuple):
    recall: Recall
    n_questions: int


def choose(exam: Exam[Settings], rungs: Sequence[Settings], start: int, wanted: float) -> int:
    """The number of the first of ``rungs`` that reaches the recall, by the half of the units that chooses.

    Where that half is too small to tell, it is at least ``start``, and more where too little is found with that.

    Args:
        rungs: each one finds at least as much as the one before, and is slower.
    """

    def is_good(n: int) -> bool:
        verdict = exam.judge(rungs[n], wanted)
        if verdict is None:
            share = exam.measure(rungs[n], is_choice=True).share
            return n >= start and (share is None or share >= wanted)
        return verdict

    return _first(len(rungs), start, is_good)


def _judge(recall: Recall, wanted: float) -> bool | None:
    if recall.share is None:
        return None
    if recall.share >= wanted and is_enough(recall.low, wanted):
        return True
    return False if recall.high < wanted else None


def _first(n: int, start: int, is_good: Callable[[int], bool]) -> int:
    """The first number below ``n`` that is good, where all after a good one are; the last one if none is.

    ``start`` is tried first.
    """
    low, high, middle = 0, n - 1, start
    while low < high:
        if is_good(middle):
            high = middle
        else:
            low = middle + 1
        middle = (low + high) // 2
    return min(low, n - 1)
