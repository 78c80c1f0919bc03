"""Healthy files of every format decode to known sounds: on time, at pitch and without gaps."""

import hashlib
import io
import os
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import soxr

from pipeline.audio.decode import open_audio, to_model_rate
from pipeline.audio.source import hash_file
from pipeline.config import DecodeConfig
from pipeline.errors import FileFailure
from tests.helpers.decoding import decode_all
from tests.helpers.sounds import FORMATS, Samples, encode, noise, scribble, tone, write_formats

HZ = 48_000
RATES_HZ = (8_000, 11_025, 16_000, 22_050, 44_100, 48_000, 96_000, 192_000)
EXACT = [name for name, format_ in FORMATS.items() if format_.step is not None]
LOSSY = [name for name in FORMATS if name not in EXACT]
SHAPES = [(rate_hz, 2) for rate_hz in RATES_HZ] + [(48_000, 1), (16_000, 1), (48_000, 6)]
FEW_SHAPES = [(8_000, 2), (44_100, 2), (48_000, 1)]

Waveform = npt.NDArray[np.float32]


def cases(names: list[str], shapes: list[tuple[int, int]]) -> list[tuple[str, int, int]]:
    """(format, rate, channels), as far as the format and the encoder of the tests support them."""
    return [
        (name, rate_hz, channels)
        for name in names
        for rate_hz, channels in shapes
        if FORMATS[name].takes(rate_hz, channels)
    ]


def decode(data: bytes) -> Waveform:
    return decode_all(io.BytesIO(data))[0]


def resample(mono: Waveform, rate_hz: int) -> Waveform:
    resampled: Waveform = mono if rate_hz == HZ else soxr.resample(mono, rate_hz, HZ, "HQ")
    return resampled


def residual(heard: Waveform, frequency_hz: float, first: int = 0) -> tuple[float, Waveform]:
    """The amplitude of the best sine of this pitch, and the rest of the sound without it."""
    angles = 2 * np.pi * frequency_hz * (first + np.arange(len(heard))) / HZ
    basis = np.stack([np.sin(angles), np.cos(angles)], axis=1)
    weights, *_ = np.linalg.lstsq(basis, heard, rcond=None)
    return float(np.hypot(*weights)), heard - (basis @ weights).astype(np.float32)


def pitch_hz(heard: Waveform) -> float:
    spectrum = np.abs(np.fft.rfft(heard * np.hanning(len(heard)), 1 << 18))
    return float(np.argmax(spectrum) * HZ / (1 << 18))


def lag_s(heard: Waveform, sound: Waveform) -> float:
    """How much later ``heard`` is than ``sound``."""
    n = len(heard) + len(sound)
    correlation = np.fft.irfft(np.fft.rfft(heard, n) * np.conj(np.fft.rfft(sound, n)), n)
    best = int(np.argmax(correlation))
    return (best if best < n // 2 else best - n) / HZ


# --- every format -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "rate_hz", "channels"), cases(LOSSY, SHAPES) + cases(EXACT, FEW_SHAPES))
def test_a_tone_keeps_its_pitch_length_and_level_without_gaps(name: str, rate_hz: int, channels: int) -> None:
    format_ = FORMATS[name]
    sound = tone(1.5, rate_hz, 440.0, 0.5, channels)
    data = encode(name, sound, rate_hz)
    with open_audio(io.BytesIO(data)) as audio:
        heard = np.concatenate(list(audio.blocks()))
        assert audio.truncated is None
        info = audio.info
    assert (info.codec, info.channels) == (format_.codec, channels)
    assert info.sample_rate_hz == (HZ if info.codec == "opus" else rate_hz)
    assert (info.expected_duration_s is not None) == format_.duration_known
    if info.expected_duration_s is not None:
        # The header of an mp3 in a wav counts the padding, too.
        assert info.expected_duration_s == pytest.approx(1.5, abs=0.15 if name == "mp3_in_wav" else 0.01)

    longer_s = len(heard) / HZ - len(sound) / rate_hz
    if format_.step is not None:
        assert abs(longer_s) <= 1 / HZ
    else:  # a format that does not state its padding keeps up to three frames of it
        assert -0.001 <= longer_s <= (0.05 if format_.duration_known and name != "mp3_in_wav" else 3 * 1_152 / rate_hz)
    middle = heard[HZ // 4 : HZ * 5 // 4]
    assert pitch_hz(middle) == pytest.approx(440.0, abs=0.5)
    amplitude, rest = residual(middle, 440.0)
    # Lossy encoders keep only the bass of the sixth channel.
    level = 5 / 6 * 0.5 if format_.step is None and channels == 6 and amplitude < 0.45 else 0.5
    assert 20 * abs(np.log10(amplitude / level)) < 1.0
    # One sine explains all of it: no gap, no click, no jump of phase.
    loudest_rest = np.sqrt(np.max(np.mean(rest.reshape(-1, 480) ** 2, axis=1)))
    assert loudest_rest < (0.05 if format_.step is None else 1e-3 + format_.step)


@pytest.mark.parametrize(
    ("name", "rate_hz", "channels"), cases(EXACT, [*SHAPES, (44_100, 3), (44_100, 6), (48_000, 8)])
)
def test_lossless_files_decode_to_the_resampled_mean(name: str, rate_hz: int, channels: int) -> None:
    samples = noise(2.7, rate_hz, channels)
    heard = decode(encode(name, samples, rate_hz))
    expected = resample(samples.mean(axis=1, dtype=np.float64).astype(np.float32), rate_hz)
    step = FORMATS[name].step or 0.0
    assert len(heard) == len(expected)
    np.testing.assert_allclose(heard, expected, rtol=0, atol=1e-6 + 2 * step)


@pytest.mark.parametrize("rate_hz", [8_000, 11_025, 22_050, 44_100, 48_000, 96_000, 192_000])
def test_streaming_resamples_bitwise_like_one_call(rate_hz: int) -> None:
    samples = noise(7.3, rate_hz)
    heard = decode(encode("wav_f32", samples, rate_hz))
    assert np.array_equal(heard, resample(samples[:, 0], rate_hz))


@pytest.mark.parametrize("name", LOSSY)
def test_decoding_does_not_shift_sounds_in_time(name: str) -> None:
    """The decoder removes an encoder's delay wherever the format states it."""
    rate_hz = 44_100 if FORMATS[name].takes(44_100, 1) else 48_000
    sound = (noise(1.5, rate_hz) * np.sin(np.arange(round(1.5 * rate_hz)) / 3_000)[:, None]).astype(np.float32)
    late_s = lag_s(decode(encode(name, sound, rate_hz)), resample(sound[:, 0], rate_hz))
    unstated = ("mp3_no_xing", "mp3_vbr_no_xing", "mp3_in_wav", "aac_adts")
    assert 0.02 < late_s < 0.05 if name in unstated else abs(late_s) < 0.006 if name == "ac3" else abs(late_s) < 0.001


@pytest.mark.parametrize("duration_s", [0.1, 0.3, 0.9, 1.1])
@pytest.mark.parametrize("name", [name for name in FORMATS if FORMATS[name].duration_known and name != "mp3_in_wav"])
def test_short_sounds_keep_their_length(name: str, duration_s: float) -> None:
    for make in (tone, noise):  # encoded into pages of very different size
        with open_audio(io.BytesIO(encode(name, make(duration_s, HZ, channels=2), HZ))) as audio:
            n_samples = sum(len(block) for block in audio.blocks())
            assert audio.truncated is None
        assert n_samples / HZ == pytest.approx(duration_s, abs=0.001)


@pytest.mark.parametrize("name", [name for name in FORMATS if FORMATS[name].takes(48_000, 2)])
def test_each_channel_is_heard_at_half_its_level(name: str) -> None:
    left, right = tone(1.5, HZ, 330.0, 0.4), tone(1.5, HZ, 770.0, 0.4)
    middle = decode(encode(name, np.concatenate([left, right], axis=1), HZ))[HZ // 4 : HZ * 5 // 4]
    for frequency_hz in (330.0, 770.0):
        amplitude, _ = residual(middle, frequency_hz)
        assert 20 * abs(np.log10(amplitude / 0.2)) < 1.0


def test_eleven_channels_decode_to_their_mean() -> None:
    samples = noise(0.5, 16_000, 11)
    np.testing.assert_allclose(
        decode(encode("wav_f32", samples, 16_000)), resample(samples.mean(axis=1), 16_000), rtol=0, atol=1e-6
    )


def test_samples_above_full_scale_are_not_clipped() -> None:
    assert np.abs(decode(encode("wav_f32", tone(0.5, HZ, 440.0, 5.0), HZ))).max() == pytest.approx(5.0, abs=1e-3)


def test_configuration_sets_the_quality_of_the_resampler() -> None:
    data = io.BytesIO(encode("wav_f32", noise(1.0, 44_100), 44_100))
    finer, _ = decode_all(data, DecodeConfig(resampler="VHQ"))
    assert np.array_equal(finer, soxr.resample(noise(1.0, 44_100)[:, 0], 44_100, HZ, "VHQ"))
    assert not np.array_equal(finer, decode_all(data)[0])


# --- streams that change ----------------------------------------------------------------------------------------------


def test_concatenated_mp3_of_different_rates_play_on() -> None:
    parts = [(tone(1.5, 44_100, 440.0, channels=2), 44_100), (tone(1.5, 22_050, 880.0), 22_050)]
    heard = decode(b"".join(encode("mp3", samples, rate_hz) for samples, rate_hz in parts))
    assert len(heard) / HZ == pytest.approx(3.0, abs=0.1)
    assert pitch_hz(heard[HZ // 2 : HZ]) == pytest.approx(440.0, abs=0.5)
    assert pitch_hz(heard[2 * HZ : 5 * HZ // 2]) == pytest.approx(880.0, abs=0.5)


@pytest.mark.parametrize("name", ["ogg_vorbis", "ogg_opus"])
def test_chained_ogg_streams_play_on(name: str) -> None:
    heard = decode(b"".join(encode(name, tone(1.5, HZ, hz), HZ) for hz in (440.0, 880.0)))
    assert len(heard) / HZ == pytest.approx(3.0, abs=0.01)
    assert pitch_hz(heard[HZ // 2 : HZ]) == pytest.approx(440.0, abs=0.5)
    assert pitch_hz(heard[2 * HZ : 5 * HZ // 2]) == pytest.approx(880.0, abs=0.5)


@pytest.mark.parametrize("name", ["ogg_vorbis", "ogg_opus", "ogg_flac"])
@pytest.mark.parametrize("channels", [(2, 1), (1, 2), (2, 1, 2), (1, 1, 6, 2)])
def test_chained_ogg_streams_of_other_channels_play_on(name: str, channels: tuple[int, ...]) -> None:
    links = [
        encode(name, tone(1.5, HZ, 440.0 * (number + 1), channels=count), HZ) for number, count in enumerate(channels)
    ]
    with open_audio(io.BytesIO(b"".join(links))) as audio:
        assert audio.info.channels == channels[0]
        heard = np.concatenate(list(audio.blocks()))
        assert audio.truncated is None
    assert len(heard) / HZ == pytest.approx(1.5 * len(links), abs=0.02)
    for number in range(len(links)):
        middle = heard[round((1.5 * number + 0.4) * HZ) :][: HZ // 2]
        assert pitch_hz(middle) == pytest.approx(440.0 * (number + 1), abs=1.0)


def test_many_links_of_chained_ogg_play_on() -> None:
    links = [encode("ogg_vorbis", tone(0.5, HZ, channels=1 + number % 2), HZ) for number in range(2)]
    heard = decode(b"".join(links * 60))
    assert len(heard) / HZ == pytest.approx(60.0, abs=0.45)  # less than one link


@pytest.mark.parametrize("behind", [b"OggS\0\2" + bytes(100), b"\1" * 1_000])
def test_link_that_cannot_be_read_is_told(behind: bytes) -> None:
    data = encode("ogg_vorbis", tone(1.5, HZ, channels=2), HZ)
    with open_audio(io.BytesIO(data + encode("ogg_vorbis", tone(1.5, HZ), HZ)[:60] + behind)) as audio:
        heard = np.concatenate(list(audio.blocks()))
        assert audio.truncated is not None
    assert len(heard) / HZ == pytest.approx(1.5, abs=0.02)


def test_a_broken_flac_is_read_on_without_gap_or_overlap() -> None:
    """libsndfile gives up at the damage, FFmpeg goes on: before and after, every sample is in its place."""
    samples = noise(10.0, HZ)
    whole = encode("flac", samples, HZ)
    with open_audio(io.BytesIO(scribble(whole, 0.5, 0.6))) as audio:
        heard = np.concatenate(list(audio.blocks()))
        assert audio.truncated is not None
    expected = decode(whole)
    assert len(heard) == len(expected)
    same = heard == expected
    assert same[: round(4.8 * HZ)].all()
    assert same[round(6.2 * HZ) :].all()
    assert not heard[round(5.2 * HZ) : round(5.8 * HZ)].any()


@pytest.mark.parametrize("name", ["ogg_vorbis", "ogg_opus", "webm_opus", "m4a_faststart", "matroska_flac"])
def test_times_after_a_gap_are_right(name: str) -> None:
    sound = noise(10.0, HZ)
    with open_audio(io.BytesIO(scribble(encode(name, sound, HZ), 0.3, 0.5))) as audio:
        heard = np.concatenate(list(audio.blocks()))
        assert audio.truncated is not None
    assert len(heard) / HZ == pytest.approx(10.0, abs=0.02)
    assert abs(lag_s(heard[7 * HZ :], sound[7 * HZ :, 0])) < 0.002


# --- names, sources, ranges -------------------------------------------------------------------------------------------

NAMES = [
    "-",
    "-leading.wav",
    "concat:a.wav|b.wav",
    "file:x.wav",
    "http:__example.org_x.wav",
    "%03d.wav",
    "two words.wav",
    "new\nline.wav",
    "quo'te\".wav",
    "sound.raw",
    "ünïcödé 音.wav",
    "*?[x].wav",
    os.fsdecode(b"not utf-8 \xff\xfe.wav"),
]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("format_", ["wav_s16", "ogg_opus"])
def test_decoders_do_not_interpret_file_names(
    name: str, format_: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = encode(format_, tone(0.5, HZ), HZ)
    (tmp_path / name).write_bytes(data)
    monkeypatch.chdir(tmp_path)
    for source in (name, Path(name), tmp_path / name):
        waveform, info = decode_all(source)
        assert info.codec == FORMATS[format_].codec
        assert np.array_equal(waveform, decode(data))
        assert hash_file(source) == hashlib.sha256(data).hexdigest()


def test_file_objects_are_left_open_and_read_from_the_start(tmp_path: Path) -> None:
    path = tmp_path / "tone.flac"
    path.write_bytes(encode("flac", tone(0.5, HZ), HZ))
    with path.open("rb") as file:
        file.seek(100)
        assert np.array_equal(decode_all(file)[0], decode_all(path)[0])
        assert not file.closed
        assert hash_file(file) == hash_file(path)


def test_decoding_leaves_no_file_open(tmp_path: Path) -> None:
    paths = write_formats(tmp_path, tone(0.5, HZ)[:, 0], HZ, channels=2)
    assert len(paths) == len(FORMATS)
    before = len(list(Path("/proc/self/fd").iterdir()))
    for path in paths:
        with open_audio(path) as audio:
            next(audio.blocks())
        decode_all(path)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


@pytest.mark.parametrize("name", ["wav_s16", "flac", "mp3", "ogg_vorbis", "ogg_opus", "m4a", "webm_opus"])
def test_blocks_are_the_same_each_time_and_small(name: str) -> None:
    data = encode(name, noise(9.0, HZ, 2), HZ)

    def blocks() -> list[Samples]:
        with open_audio(io.BytesIO(data)) as audio:
            return list(audio.blocks())

    once, again = blocks(), blocks()
    assert [len(block) for block in once] == [len(block) for block in again]
    assert all(np.array_equal(a, b) for a, b in zip(once, again, strict=True))
    assert {block.dtype for block in once} == {np.dtype(np.float32)}
    assert max(len(block) for block in once) <= 2.1 * HZ
    assert len(once) <= 9


RATES_OF = {"wav_s16": (8_000, 11_025, 44_056, 44_100, 48_000, 96_000), "flac": (22_050, 44_100), "mp3": (44_100,)}
RATES_OF |= {"m4a": (44_100,), "ogg_opus": (48_000,), "ogg_vorbis": (22_050,)}


@pytest.mark.parametrize(("name", "rate_hz"), [(name, hz) for name, rates in RATES_OF.items() for hz in rates])
def test_a_range_is_a_slice_of_the_whole(name: str, rate_hz: int) -> None:
    data = encode(name, 5 * noise(9.7, rate_hz), rate_hz)
    whole = decode(data)
    rng = np.random.default_rng(0)
    for start_s, end_s in [(0, 3), (2, 4), (5.25, 5.29), (3.3, 20), *np.sort(rng.uniform(0, 9.6, (5, 2))).tolist()]:
        part, _ = decode_all(io.BytesIO(data), start_s=start_s, end_s=end_s)
        assert part.shape == whole[round(start_s * HZ) : round(end_s * HZ)].shape
        np.testing.assert_allclose(part, whole[round(start_s * HZ) : round(end_s * HZ)], rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ["wav_s16", "mp3"])
def test_little_is_read_behind_a_range(name: str) -> None:
    class Counted(io.BytesIO):
        n_bytes = 0

        def read(self, size: int | None = -1, /) -> bytes:
            data = super().read(size)
            self.n_bytes += len(data)
            return data

    data = Counted(encode(name, noise(240.0, 44_100), 44_100))
    with open_audio(data) as stream:
        list(stream.blocks(HZ, 2 * HZ))
    assert data.n_bytes < len(data.getvalue()) / 4


def test_range_behind_the_end_is_out_of_range() -> None:
    with pytest.raises(FileFailure, match=r"out_of_range: nothing from 3\.000 s on: the recording lasts 1\.000 s"):
        decode_all(io.BytesIO(encode("flac", tone(1.0, HZ), HZ)), start_s=3)


@pytest.mark.parametrize("dtype", ["float32", "float64", "int16", "int32", "uint8"])
def test_to_model_rate_matches_decoding_a_file(dtype: str) -> None:
    floats = noise(1.0, 22_050, 2)
    full_scale = {"int16": 2**15, "int32": 2**31, "uint8": 2**7}.get(dtype, 1)
    samples = (floats.astype(np.float64) * full_scale + (128 if dtype == "uint8" else 0)).astype(dtype)
    expected = decode(encode("wav_f32", floats, 22_050))
    np.testing.assert_allclose(
        to_model_rate(samples, 22_050), expected, rtol=0, atol=3e-7 + 2 / full_scale * (full_scale > 1)
    )
    np.testing.assert_allclose(
        to_model_rate(samples[:, 0], 22_050),
        resample(floats[:, 0], 22_050),
        rtol=0,
        atol=3e-7 + 2 / full_scale * (full_scale > 1),
    )
