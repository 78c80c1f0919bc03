"""The exam: its clips and captions, and how events are found and matched."""

import numpy as np

from jobs.tiny.captions import CAPTIONS, DISTRACTORS
from jobs.tiny.evaluate import Exam, make_exam, match_events
from jobs.tiny.evaluate import find_events as find
from jobs.tiny.synth import CLASSES, Event


def test_held_out_exam_has_enough_of_every_class(exam: Exam) -> None:
    assert min(sum(label in clip.labels for clip in exam.clips) for label in CLASSES) >= 20
    assert all(len(captions) >= 6 for captions in exam.captions.values())


def test_validation_exam_asks_training_captions_only() -> None:
    exam = make_exam(held_out=False)
    assert all(set(exam.captions[label]) <= set(CAPTIONS[label].train) for label in CLASSES)
    assert set(exam.distractors) <= set(DISTRACTORS.train)


def test_events_continue_one_logit_below_the_threshold() -> None:
    logits = np.array([-5, -1.5, -0.5, 2, -1.5, -5, -1.5, -5, 1], np.float32)
    np.testing.assert_allclose(find(logits), [(0.08, 0.2), (0.32, 0.36)])


def test_event_matches_once_within_the_collar() -> None:
    true = [Event("bell", 1.0, 2.0), Event("bell", 3.0, 4.0)]
    np.testing.assert_allclose(match_events([(1.04, 2.0), (1.16, 1.2), (3.3, 4.0)], true), [(0.04, 0.0)], atol=1e-9)
