"""The fewest candidates that reach a recall: questions asked with several settings, compared with exact answers.

Half of the units of the sample choose the settings, the other half measures them: a choice looks better than it is to
the events that made it.
"""

import time
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Generic, TypeVar

import numpy as np
import numpy.typing as npt

from pipeline.search.audit import Answer, ExactAnswer, Recall, measure_recall
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


def choose_k(exact: Sequence[ExactAnswer], share: float) -> int:
    """The fewest answers to ask for, so that the sample holds enough; where it cannot, nearly as many as it can.

    Args:
        share: of the index, that was drawn.
    """
    n_exact = np.array([len(answer.found) for answer in exact], np.float64)
    expected = {k: float(np.minimum(n_exact, k * share).sum()) for k in KS}
    wanted = min(ENOUGH_EVENTS, 0.95 * expected[KS[-1]])
    return next(k for k in KS if expected[k] >= wanted)


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
    seed: int = 0
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
        chosen = self._is_for_choice if is_choice or self.n_units < 2 else ~self._is_for_choice
        return measure_recall(answers, self.exact[: len(answers)], self.n_units, chosen)

    def judge(self, settings: Settings, wanted: float) -> bool | None:
        """Whether these settings reach a recall, by as few questions as show it; None where ``AT_MOST`` do not."""
        while True:
            verdict, n_asked = _judge(self.measure(settings, is_choice=True), wanted), self.count_asked(settings)
            is_enough = n_asked >= (AT_MOST if verdict is None else AT_LEAST)
            if is_enough or not self.ask_more(settings):
                return verdict

    def finish(self, settings: Settings) -> "Tuned[Settings]":
        """The recall by the other half of the units, and by as many questions as there is time for."""
        while self.ask_more(settings):
            pass
        return Tuned(settings, self.measure(settings, is_choice=False), self.count_asked(settings))

    @cached_property
    def _is_for_choice(self) -> npt.NDArray[np.bool_]:
        """The half of the units (n_units,) that chooses the settings; all of them where there is only one."""
        return np.asarray(np.random.default_rng(self.seed).permutation(self.n_units) % 2 == 0)


@dataclass(frozen=True)
class Tuned(Generic[Settings]):
    """Settings, and the recall that was measured with them."""

    settings: Settings
    recall: Recall
    n_questions: int


def tune(exam: Exam[Settings], rungs: Sequence[Settings], default: Settings, wanted: float) -> Tuned[Settings]:
    """The first of ``rungs`` that reaches the recall. Each one finds at least as much as the one before, and is slower.

    Where the sample is too small to tell, the settings are at least those of ``default``, and more where too little is
    found with them.

    Args:
        rungs: in order; ``default`` is one of them.
    """
    start = rungs.index(default)

    def is_good(n: int) -> bool:
        verdict = exam.judge(rungs[n], wanted)
        if verdict is None:
            share = exam.measure(rungs[n], is_choice=True).share
            return n >= start and (share is None or share >= wanted)
        return verdict

    best = _first(len(rungs), start, is_good)
    tuned = exam.finish(rungs[best])
    # The half that did not choose may find the choice too low.
    while best + 1 < len(rungs) and tuned.recall.share is not None and tuned.recall.share < wanted:
        best += 1
        tuned = exam.finish(rungs[best])
    return tuned


def _judge(recall: Recall, wanted: float) -> bool | None:
    if recall.share is None:
        return None
    if recall.share >= wanted and recall.low >= wanted - TOLERANCE:
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
    return low
