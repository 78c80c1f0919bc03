"""The exam: its clips and captions, and how events are found and matched."""

import numpy as np
import torch

from jobs.tiny.captions import CAPTIONS, DISTRACTORS
from jobs.tiny.evaluate import Clip, Exam, encode_clips, make_exam, make_long_exam, match_events, precision_at_10
from jobs.tiny.evaluate import find_events as find
from jobs.tiny.synth import CLASSES, Event
from pipeline.grid import FRAME_S, HOP_SAMPLES, Grid


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


def test_long_exam_has_the_lengths_and_about_four_sounds_in_ten_seconds() -> None:
    exam = make_long_exam(10.04, 15.0, n_clips=12)
    lengths_s = [len(clip.waveform) / HOP_SAMPLES * FRAME_S for clip in exam.clips]
    assert 10 < min(lengths_s) < 12 < max(lengths_s) <= 15
    assert sum(len(clip.events) for clip in exam.clips) > 0.3 * sum(lengths_s)


def test_windows_of_a_clip_give_each_frame_once_from_the_window_that_owns_it() -> None:
    def embed(samples: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The first sample of each frame, and how many frames the window has."""
        frames = samples.reshape(len(samples), -1, HOP_SAMPLES)[:, :, :1]
        n_frames = torch.full_like(frames, frames.shape[1])
        return frames[:, 0], torch.cat([frames, n_frames], dim=2)

    numbers = np.repeat(np.arange(700, dtype=np.float32), HOP_SAMPLES)
    clips = [Clip(numbers[: n * HOP_SAMPLES], [], "mixture") for n in (700, 100, 300)]
    pooled, frames = encode_clips(embed, clips, Grid(250, 10))
    assert [rows[:, 0].tolist() for rows in pooled] == [[0, 240, 475], [0], [0]]  # a length of the quantum
    assert [rows[:, 0].tolist() for rows in frames] == [list(range(n)) for n in (700, 100, 300)]
    assert set(frames[0][:, 1]) == {250, 225}
    assert frames[0][244:246, 1].tolist() == [250, 250]
    assert [set(rows[:, 1]) for rows in encode_clips(embed, clips)[1]] == [{700}, {100}, {300}]


def test_best_window_of_a_clip_counts() -> None:
    def make(label: str) -> Clip:
        return Clip(np.zeros(HOP_SAMPLES, np.float32), [Event(label, 0.0, 0.04)], "mixture")

    clips = [make("bell")] * 10 + [make("drum")] * 10
    good, bad = np.array([[0, 0], [1, 0]], np.float32), np.array([[0.5, 0]], np.float32)
    text = np.array([[1, 0]], np.float32)
    assert precision_at_10(clips, [good] * 10 + [bad] * 10, text, "bell") == 1
    assert precision_at_10(clips, [bad] * 10 + [good] * 10, text, "bell") == 0
