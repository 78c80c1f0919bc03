"""Encoding a block: embeddings that are not finite fail their file alone."""

from pathlib import Path

import pytest

from tests.helpers.fakes import CLIP_OVERFLOW, FRAME_OVERFLOW, NOT_FINITE, noise, write_wav
from tests.helpers.stages import audio_id_of, expected_clips, expected_frames, index, marked, named, outcomes


@pytest.mark.parametrize("value", [NOT_FINITE, CLIP_OVERFLOW, FRAME_OVERFLOW])
@pytest.mark.parametrize("at_s", [0.0, 0.65, 1.299])
def test_sound_without_finite_embedding_fails_alone(tmp_path: Path, value: float, at_s: float) -> None:
    samples = noise(1.3)
    paths = [write_wav(tmp_path / f"{k}.wav", noise(1.3, k)) for k in (1, 2)]
    bad = [write_wav(tmp_path / f"bad{k}.wav", marked(samples, value, at_s)) for k in range(2)]
    batch, frames = index([paths[0]], bad, [paths[1]])
    assert outcomes(batch) == {
        "1.wav": ("indexed", None, None),
        "bad0.wav": ("failed", "encode", "not_finite"),
        "bad1.wav": ("failed", "encode", "not_finite"),
        "2.wav": ("indexed", None, None),
    }
    assert named(batch.files.to_pylist(), "n_clips", "n_frames")[1:3] == [(0, 0), (0, 0)]
    assert batch.orphaned == {audio_id_of(bad[0])}
    assert frames == [row for k, path in enumerate(paths, 1) for row in expected_frames(path, noise(1.3, k))]
    clips = [row for k, path in enumerate(paths, 1) for row in expected_clips(path, noise(1.3, k))]
    assert named(batch.clips.to_pylist(), "clip_id", "vector") == named(clips, "clip_id", "vector")


def test_a_batch_may_have_no_finite_embedding(tmp_path: Path) -> None:
    path = write_wav(tmp_path / "a.wav", marked(noise(0.2), NOT_FINITE))
    batch, frames = index([path])
    assert outcomes(batch) == {"a.wav": ("failed", "encode", "not_finite")}
    assert (frames, batch.clips.num_rows, batch.frame_fragments) == ([], 0, [])
