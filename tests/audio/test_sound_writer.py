"""Written sounds hold the samples that they were given."""

import io
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pytest
import soundfile

from pipeline.audio.sound_writer import Container, write_sound
from pipeline.errors import FileFailure


@pytest.mark.parametrize("container", ["wav", "flac"])
@pytest.mark.parametrize("rate_hz", [8_000, 44_100, 384_000])
def test_samples_of_24_bits_come_back_exactly(container: Container, rate_hz: int) -> None:
    rng = np.random.default_rng(0)
    samples = rng.integers(-(2**23), 2**23, (5_000, 3)).astype(np.int32)
    data = io.BytesIO()
    blocks = np.split(samples.astype(np.float32) / np.float32(2**23), [10, 10, 3_000])
    assert write_sound(data, blocks, rate_hz, 3, container) == 5_000
    data.seek(0)
    found, found_hz = soundfile.read(data, dtype="int32")
    assert found_hz == rate_hz
    assert np.array_equal(found >> 8, samples)


@pytest.mark.parametrize("container", ["wav", "flac"])
def test_what_exceeds_full_scale_is_clipped_and_does_not_wrap(container: Container) -> None:
    data = io.BytesIO()
    write_sound(data, [np.array([[1.5], [1.0], [-1.0], [-7.0]], np.float32)], 48_000, 1, container)
    data.seek(0)
    found, _ = soundfile.read(data)
    assert found.tolist() == pytest.approx([1.0, 1.0, -1.0, -1.0], abs=1e-6)


def test_too_many_channels_for_flac_are_a_failure_that_says_so() -> None:
    with pytest.raises(FileFailure, match="flac cannot hold 9 channels at 48000 Hz") as caught:
        write_sound(io.BytesIO(), [np.zeros((10, 9), np.float32)], 48_000, 9, "flac")
    assert caught.value.reason == "unsupported"


def test_failure_of_the_source_passes() -> None:
    def blocks() -> Iterator[npt.NDArray[np.float32]]:
        yield np.zeros((10, 1), np.float32)
        raise FileFailure("read", "vanished", "gone")

    with pytest.raises(FileFailure, match="vanished"):
        write_sound(io.BytesIO(), blocks(), 48_000, 1, "wav")
