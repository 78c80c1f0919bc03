"""Vectors of the bundled model, repeated with noise."""

import numpy as np
import pytest

from jobs.bench import model_vectors
from jobs.bench.model_vectors import ModelVectors
from jobs.bench.synthetic import CLIPS_PER_FILE, FILE_FRAMES, to_unit


@pytest.fixture(scope="module")
def vectors() -> ModelVectors:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(model_vectors, "N_SCENES", 3)
        made = ModelVectors(seed=1)
        assert made.dimension == 64  # encodes the scenes
    return made


def test_files_are_scenes_with_noise_and_the_same_whenever_they_are_made(vectors: ModelVectors) -> None:
    frames, clips = vectors.frames(0), vectors.clips(0, 2)
    assert frames.shape == (FILE_FRAMES, 64)
    assert clips.shape == (2 * CLIPS_PER_FILE, 64)
    assert (vectors.frames(0) == frames).all()
    assert (vectors.clips(1, 2) == clips[CLIPS_PER_FILE:]).all()
    cosines = to_unit(clips.astype(np.float32)) @ to_unit(clips.astype(np.float32)).T
    assert (np.sort(cosines, axis=1)[:, -2] > 0.95).all()  # one of three scenes comes again
    assert (np.unique(frames, axis=0).shape) == frames.shape


def test_questions_are_captions_and_unheard_scenes(vectors: ModelVectors) -> None:
    texts, sounds = vectors.texts(5), vectors.sounds(2)
    assert texts.shape == (5, 64)
    assert len(np.unique(texts, axis=0)) == 5
    assert np.linalg.norm(sounds, axis=1) == pytest.approx(1.0, abs=1e-5)
