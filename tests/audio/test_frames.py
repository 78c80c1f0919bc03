"""Frames become arrays of channels, whatever their number and layout."""

import io

import numpy as np
import pytest

from pipeline.audio.ffmpeg import open_container
from pipeline.audio.frames import join_frames, kind_of, make_silence
from pipeline.audio.pieces import PIECE_VALUES
from tests.helpers.sounds import encode, noise

HZ = 48_000


@pytest.mark.parametrize("channels", [1, 2, 6, 8])
@pytest.mark.parametrize("name", ["wavpack", "matroska_flac", "m4a", "wav_s16"])
def test_joined_frames_have_the_samples_of_each_channel(name: str, channels: int) -> None:
    samples = noise(0.5, HZ, channels)
    with open_container(io.BytesIO(encode(name, samples, HZ))) as container:
        frames = list(container.decode(audio=0))
    assert {kind_of(frame)[:2] for frame in frames} == {(HZ, channels)}
    rate_hz, values = join_frames(frames)
    assert rate_hz == HZ
    assert values.shape == (channels, sum(frame.samples for frame in frames))
    if name != "m4a":
        scale = 1 if values.dtype.kind == "f" else 2.0 ** (8 * values.dtype.itemsize - 1)
        np.testing.assert_allclose(values / scale, samples.T, rtol=0, atol=1e-4)


def test_silence_comes_in_parts_of_bounded_size() -> None:
    parts = list(make_silence(HZ, 100.0, 2))
    assert sum(values.shape[1] for _, values in parts) == 100 * HZ
    assert max(values.size for _, values in parts) <= PIECE_VALUES
    assert {values.shape[0] for _, values in parts} == {2}
    assert not any(values.any() for _, values in parts)
