"""Channels are mixed to their mean. If they cancel each other, one of them is taken, and a note says so."""

import io
import struct
from collections.abc import Iterator

import numpy as np
import pytest

from pipeline.audio.channels import Channels, Mixer
from pipeline.audio.decode import open_audio
from pipeline.audio.pieces import mean_channels
from pipeline.errors import FileFailure
from pipeline.grid import Waveform
from tests.helpers.bursts import find_bursts, make_bursts, make_film
from tests.helpers.sounds import Samples, by_av, encode, noise

HZ = 48_000
NOTE = "its two channels cancel each other: the first is read"


def turn(samples: Samples) -> Samples:
    """The same with its second channel upside down, as a wrongly wired cable gives it."""
    return samples * np.array([1, -1], np.float32)


def hear(data: bytes, first: int = 0, stop: int | None = None) -> tuple[Waveform, str | None]:
    with open_audio(io.BytesIO(data)) as audio:
        return np.concatenate(list(audio.blocks(first, stop))), audio.note


@pytest.mark.parametrize("name", ["wav_s16", "wav_f32", "flac", "aiff", "mp3", "ogg_opus", "ogg_vorbis", "m4a"])
def test_sound_whose_channels_cancel_each_other_is_heard(name: str) -> None:
    heard, note = hear(encode(name, turn(make_bursts(HZ, 2)), HZ))
    assert note == NOTE
    assert find_bursts(heard) == pytest.approx([2.0, 9.0], abs=0.001)
    one, _ = hear(encode(name, make_bursts(HZ, 1), HZ))
    assert np.sqrt(np.mean(heard**2)) == pytest.approx(np.sqrt(np.mean(one**2)), rel=0.1)


OTHERS = [
    make_bursts(HZ, 2),
    noise(3.0, HZ, 2),
    np.zeros((3 * HZ, 2), np.float32),
    noise(3.0, HZ, 2) * np.array([1, 0], np.float32),
    turn(np.repeat(noise(3.0, HZ), 2, axis=1)) + np.float32(0.03) * noise(3.0, HZ, 2, seed=1),  # 33 dB
]
SIX = turn(np.repeat(noise(3.0, HZ), 2, axis=1))[:, [0, 1, 0, 1, 0, 1]]
"""Only pairs of channels are compared."""


@pytest.mark.parametrize("samples", [*OTHERS, SIX])
def test_other_sound_is_mixed_to_its_mean(samples: Samples) -> None:
    heard, note = hear(encode("wav_f32", samples, HZ))
    np.testing.assert_allclose(heard, samples.mean(axis=1), rtol=0, atol=1e-6)
    assert note is None


@pytest.mark.parametrize("samples", OTHERS)
def test_other_sound_in_mp3_has_no_note(samples: Samples) -> None:
    assert hear(encode("mp3", samples, HZ))[1] is None


@pytest.mark.parametrize("name", ["wav_s16", "mp3"])
def test_range_is_mixed_as_the_whole(name: str) -> None:
    """Here the channels cancel each other in the second half only, in the range altogether."""
    samples = noise(8.0, HZ, 2)
    samples[4 * HZ :] = turn(np.repeat(samples[4 * HZ :, :1], 2, axis=1))
    for sound in (samples, turn(np.repeat(samples[:, :1], 2, axis=1))):
        data = encode(name, sound, HZ)
        whole, note = hear(data)
        part, also = hear(data, 5 * HZ, 7 * HZ)
        np.testing.assert_allclose(part, whole[5 * HZ : 7 * HZ], rtol=0, atol=1e-5)
        assert note == also


def test_sound_is_the_same_in_parts() -> None:
    """Each part decides by the same seconds of the file. The first minute alone would not tell."""
    samples = turn(np.repeat(noise(200.0, 8_000), 2, axis=1))
    samples[: 70 * 8_000] = 0
    data = encode("wav_s16", samples, 8_000)
    whole, note = hear(data)
    assert note == NOTE
    assert np.abs(whole).max() > 0.1
    for first in (0, 60 * HZ, 150 * HZ):
        part, also = hear(data, first, first + 10 * HZ)
        np.testing.assert_allclose(part, whole[first : first + 10 * HZ], rtol=0, atol=1e-5)
        assert also == NOTE


def test_silence_before_the_sound_of_a_film_decides_nothing() -> None:
    data = encode("matroska_flac", turn(make_bursts(HZ, 2)), HZ)
    heard, note = hear(make_film("matroska", "", data=data, late_s=3.0))
    assert note == NOTE
    assert find_bursts(heard) == pytest.approx([5.0, 12.0], abs=0.001)


@pytest.mark.parametrize("late_s", [70.0, 150.0])
def test_silence_that_fills_more_than_the_deciding_minute_decides_nothing(late_s: float) -> None:
    """In 150 s, there is more of it than may be held."""
    sound = by_av("matroska", "pcm_s16le")(turn(make_bursts(HZ)), HZ)
    heard, note = hear(make_film("matroska", "", data=sound, late_s=late_s))
    assert find_bursts(heard) == pytest.approx([late_s + 2.0, late_s + 9.0], abs=0.01)
    assert note == NOTE


def test_broken_flac_is_mixed_as_it_began() -> None:
    data = encode("flac", turn(np.repeat(noise(10.0, HZ), 2, axis=1)), HZ)
    whole, _ = hear(data)
    broken = data[: len(data) // 2] + bytes(3_000) + data[len(data) // 2 + 3_000 :]
    heard, note = hear(broken)
    assert note == NOTE
    assert np.array_equal(heard[: 4 * HZ], whole[: 4 * HZ])
    assert np.array_equal(heard[-3 * HZ :], whole[-3 * HZ :])


def test_mixer_holds_a_minute_at_most() -> None:
    quiet = turn(np.full((2 * HZ, 2), 1e-3, np.float32)).T
    n_taken = 0

    def parts() -> Iterator[Channels]:
        nonlocal n_taken
        for _ in range(100):
            n_taken += 1
            yield HZ, quiet

    mixer = Mixer()
    pieces = mixer.mix(parts())
    first = next(pieces)
    assert n_taken == 30
    assert mixer.channel == 0
    assert np.array_equal(first[1], quiet[0])
    loud = Mixer().mix(iter([(HZ, noise(2.0, HZ, 2).T * 5)] * 2))
    assert np.array_equal(next(loud)[1], mean_channels(noise(2.0, HZ, 2).T * 5))


def mix_quiet(rate_hz: int) -> int:
    """How many parts of 4 MB the mixer takes before it gives the first piece."""
    n_taken = 0

    def parts() -> Iterator[Channels]:
        nonlocal n_taken
        for _ in range(100):
            n_taken += 1
            yield rate_hz, np.zeros((2, 1 << 19), np.float32)

    next(Mixer().mix(parts()))
    return n_taken


def test_mixer_holds_little_of_a_high_rate() -> None:
    assert mix_quiet(2_000_000) <= 11  # 64 MB


def test_mixer_refuses_a_rate_before_it_holds_anything() -> None:
    with pytest.raises(FileFailure, match="unsupported: a sample rate of 2147483647 Hz"):
        mix_quiet((1 << 31) - 1)


def test_silence_that_claims_an_absurd_rate_is_refused() -> None:
    pcm = by_av("matroska", "pcm_s16le")(np.zeros((HZ, 2), np.float32), HZ)
    rate = b"\xb5\x88" + struct.pack(">d", HZ)
    assert rate in pcm
    with pytest.raises(FileFailure, match="unsupported: a sample rate"):
        hear(pcm.replace(rate, b"\xb5\x88" + struct.pack(">d", 2**31 - 1)))
