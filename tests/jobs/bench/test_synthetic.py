"""Made vectors follow their recipe, and are the same whenever they are made."""

import numpy as np
import pytest

from jobs.bench.synthetic import (
    CLIPS_PER_FILE,
    COSINES,
    FILE_FRAMES,
    NOISE,
    MadeVectors,
    to_clips,
    to_unit,
)

MADE = MadeVectors(seed=3)


def test_files_are_the_same_in_any_order() -> None:
    again = MadeVectors(seed=3)
    last, first = again.frames(7), again.frames(2)
    assert (MADE.frames(2) == first).all()
    assert (MADE.frames(7) == last).all()
    assert (first != last).any()
    assert (MadeVectors(seed=4).frames(2) != first).any()


def test_frames_lie_in_96_dimensions() -> None:
    frames = MADE.frames(0).astype(np.float32)
    assert frames.shape == (FILE_FRAMES, 1024)
    within = frames @ MADE.basis.T
    assert np.linalg.norm(within, axis=1) == pytest.approx(np.linalg.norm(frames, axis=1), rel=1e-3)
    assert np.linalg.matrix_rank(within) == 96


def test_events_lie_over_a_background_with_noise() -> None:
    """The recipe's numbers, measured: frames between events have a background of 0.5 and noise of 0.25."""
    latents = np.stack([MADE.frames(n).astype(np.float32) @ MADE.basis.T for n in range(20)])
    lengths = np.linalg.norm(latents, axis=2)
    quiet = np.hypot(0.5, NOISE)
    assert np.quantile(lengths, 0.3) == pytest.approx(quiet, abs=0.05)
    is_loud = lengths > quiet + 0.2
    assert 0.2 < is_loud.mean() < 0.45  # events of 2.1 s and pauses of 4.2 s on average
    steps = np.linalg.norm(np.diff(latents, axis=1), axis=2)
    assert np.median(steps) == pytest.approx(NOISE * np.sqrt(2), rel=0.05)


def test_clips_are_drawn_as_the_means_of_their_frames() -> None:
    of_frames = np.concatenate([to_clips(MADE.frames(n)) for n in range(5)])
    drawn = MADE.clips(0, 5).astype(np.float32)
    assert drawn.shape == (5 * CLIPS_PER_FILE, 1024)
    differences = np.linalg.norm(of_frames - drawn, axis=1)
    assert differences.mean() == pytest.approx(NOISE * np.sqrt(2 / 250), rel=0.1)
    assert MADE.clips(3, 5) == pytest.approx(MADE.clips(0, 5)[3 * CLIPS_PER_FILE :], abs=1e-3)


def test_questions_have_their_cosines_and_an_offset_in_common() -> None:
    texts = MADE.texts(300)
    directions = MADE.directions @ MADE.basis
    best = (texts @ directions.T).max(axis=1)
    assert best[2::3] == pytest.approx(COSINES[2], abs=1e-5)
    assert np.linalg.norm(texts, axis=1) == pytest.approx(1.0, abs=1e-5)
    assert np.linalg.norm(to_unit(texts).mean(axis=0)) > 0.7
    assert len(np.unique(texts[:, 0])) == 300
    assert MADE.texts(2001).shape == (2001, 1024)


def test_sounds_are_directions_of_clips_that_no_index_has() -> None:
    sounds = MADE.sounds(12)
    assert np.linalg.norm(sounds, axis=1) == pytest.approx(1.0, abs=1e-5)
    cosines = to_unit(MADE.clips(0, 50).astype(np.float32)) @ sounds.T
    assert cosines.max() < 0.98
