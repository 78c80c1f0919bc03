"""The fewest candidates that reach a recall: questions asked with several settings, compared with exact answers.

Half of the units of the sample choose the settings, the other half measures them: a choice looks better than it is to
the events that made it.
"""

import time
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
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

ENOUGH_EVENTS = 1_500
"""Exact answers in the sample that narrow the interval to about a percent."""

AT_ONCE = 16
"""Questions that are asked together."""


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

    @cached_property
    def _answers(self) -> dict[Settings, list[Answer]]:
        return {}

    @cached_property
    def is_for_choice(self) -> npt.NDArray[np.bool_]:
        """The half of the units (n_units,) that chooses the settings; all of them where there is only one."""
        return np.asarray(np.random.default_rng(self.seed).permutation(self.n_units) % 2 == 0)

    def measure(self, settings: Settings, *, is_choice: bool) -> Recall:
        """The recall on one half of the units."""
        answers = self.answer(settings)
        chosen = self.is_for_choice if is_choice or self.n_units < 2 else ~self.is_for_choice
        return measure_recall(answers, self.exact[: len(answers)], self.n_units, chosen)

    def answer(self, settings: Settings) -> list[Answer]:
        """The answers to as many questions as there was time for; each question is asked once."""
        if settings not in self._answers:
            answers: list[Answer] = []
            began = time.monotonic()
            while len(answers) < len(self.questions) and (not answers or time.monotonic() - began < self.limit_s):
                answers += self.ask(self.questions[len(answers) : len(answers) + AT_ONCE], self.k, settings)
            self._answers[settings] = answers
        return self._answers[settings]


@dataclass(frozen=True)
class Tuned(Generic[Settings]):
    """Settings, and the recall that was measured with them."""

    settings: Settings
    recall: Recall
    n_questions: int

    def reaches(self, wanted: float) -> bool:
        return _reaches(self.recall, wanted)


def tune(exam: Exam[Settings], rungs: Sequence[Settings], default: Settings, wanted: float) -> Tuned[Settings]:
    """The first of ``rungs`` that reaches the recall. Each one finds at least as much as the one before, and is slower.

    Where no answer is in the sample, or none of them reaches the recall for certain since the sample is too small, the
    settings are at least those of ``default``.

    Args:
        rungs: in order; ``default`` is one of them.
    """
    start = rungs.index(default)
    if exam.measure(default, is_choice=True).share is None:
        return _measured(exam, default)
    best = _first(len(rungs), start, lambda n: _reaches(exam.measure(rungs[n], is_choice=True), wanted))
    if best is None:
        best = _first(len(rungs), start, lambda n: n >= start and _share(exam, rungs[n]) >= wanted)
    if best is None:
        return _measured(exam, rungs[-1])
    tuned = _measured(exam, rungs[best])
    # The half that did not choose may find the choice too low.
    while best + 1 < len(rungs) and tuned.recall.share is not None and tuned.recall.share < wanted:
        best += 1
        tuned = _measured(exam, rungs[best])
    return tuned


def _reaches(recall: Recall, wanted: float) -> bool:
    return recall.share is not None and recall.share >= wanted and recall.low >= wanted - TOLERANCE


def _share(exam: Exam[Settings], settings: Settings) -> float:
    return exam.measure(settings, is_choice=True).share or 0.0


def _measured(exam: Exam[Settings], settings: Settings) -> Tuned[Settings]:
    return Tuned(settings, exam.measure(settings, is_choice=False), len(exam.answer(settings)))


def _first(n: int, start: int, is_good: Callable[[int], bool]) -> int | None:
    """The first number below ``n`` that is good, where all after a good one are; ``start`` is tried first."""
    low, high, middle = 0, n, min(start, n - 1)
    while low < high:
        if is_good(middle):
            high = middle
        else:
            low = middle + 1
        middle = (low + high) // 2
    return low if low < n else None
