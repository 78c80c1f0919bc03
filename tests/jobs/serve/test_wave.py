"""WAV files that are computed byte by byte: any part is that of the whole, and the whole is the recording."""

import io
from collections.abc import Iterator

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.serve.sounds import Sound, Span, make_span_wave
from jobs.serve.wave import HEADER_BYTES, Samples, WaveStream, choose_step, make_wave
from pipeline.errors import FileFailure, UsageError


class Recording:
    """Made samples, opened like a file."""

    def __init__(self, samples: Samples, sample_rate_hz: int, block: int = 1_000) -> None:
        self._samples, self._rate_hz, self._block = samples, sample_rate_hz, block
        self.n_open = 0

    def open(self, start_s: float, end_s: float | None) -> "Opened":
        first = round(start_s * self._rate_hz)
        if first and first >= len(self._samples):
            raise FileFailure("decode", "out_of_range", "nothing there")
        stop = len(self._samples) if end_s is None else round(end_s * self._rate_hz)
        self.n_open += 1
        return Opened(self, self._samples[first:stop], self._rate_hz, self._block)


class Opened:
    is_approximate = False

    def __init__(self, recording: Recording, samples: Samples, sample_rate_hz: int, block: int) -> None:
        self._recording, self._samples, self._block = recording, samples, block
        self.sample_rate_hz, self.channels = sample_rate_hz, samples.shape[1]

    def blocks(self) -> Iterator[Samples]:
        for at in range(0, len(self._samples), self._block):
            yield self._samples[at : at + self._block]

    def close(self) -> None:
        self._recording.n_open -= 1


def noise(n: int, channels: int, seed: int = 0) -> Samples:
    return np.random.default_rng(seed).uniform(-1, 1, (n, channels)).astype(np.float32)


def read_all(stream: WaveStream) -> bytes:
    pieces = []
    while piece := stream.read():
        pieces.append(piece)
    stream.close()
    return b"".join(pieces)


CASES = [
    (44_100, 2, 1),
    (8_000, 1, 1),
    (48_000, 5, 1),
    (96_000, 2, 1),
    (250_000, 1, 1),
    (384_000, 1, 10),
    (22_050, 2, 4),
]


@pytest.mark.parametrize(("rate_hz", "channels", "expand"), CASES)
def test_any_part_is_that_of_the_whole(rate_hz: int, channels: int, expand: int) -> None:
    recording = Recording(noise(5_000, channels), rate_hz, block=333)
    wave = make_wave(rate_hz, channels, 500 / rate_hz, 4_500 / rate_hz, expand)
    whole = read_all(WaveStream(wave, recording.open, 0, wave.n_bytes))
    assert len(whole) == wave.n_bytes

    @settings(max_examples=60)
    @given(st.tuples(st.integers(0, wave.n_bytes), st.integers(0, wave.n_bytes)).map(sorted))
    def check(part: list[int]) -> None:
        first, stop = part
        assert read_all(WaveStream(wave, recording.open, first, stop)) == whole[first:stop]

    check()
    assert recording.n_open == 0


@pytest.mark.parametrize(("rate_hz", "channels", "expand"), CASES)
def test_another_reader_finds_what_the_header_states(rate_hz: int, channels: int, expand: int) -> None:
    samples = noise(4_000, channels)
    wave = make_wave(rate_hz, channels, 0, 4_000 / rate_hz, expand)
    data = read_all(WaveStream(wave, Recording(samples, rate_hz).open, 0, wave.n_bytes))
    heard, heard_hz = soundfile.read(io.BytesIO(data), dtype="float32", always_2d=True)
    assert heard.shape == (wave.n_samples, channels if channels <= 2 else 1)
    assert heard_hz == wave.rate_hz <= 48_000
    assert len(heard) / heard_hz == pytest.approx(expand * 4_000 / rate_hz, rel=1e-3)
    if wave.step == 1:
        expected = samples if channels <= 2 else samples.mean(axis=1, keepdims=True)
        assert np.abs(heard - expected).max() < 1e-4


@pytest.mark.parametrize("rate_hz", [96_000, 192_000, 250_000])
def test_high_rates_keep_what_can_be_heard_and_nothing_else(rate_hz: int) -> None:
    t = np.arange(rate_hz // 5) / rate_hz
    for tone_hz, is_kept in ((1_000, True), (10_000, True), (40_000, False)):
        samples = np.sin(2 * np.pi * tone_hz * t)[:, None].astype(np.float32)
        wave = make_wave(rate_hz, 1, 0, len(t) / rate_hz)
        data = read_all(WaveStream(wave, Recording(samples, rate_hz).open, 0, wave.n_bytes))
        heard, heard_hz = soundfile.read(io.BytesIO(data))
        middle = heard[len(heard) // 4 : -len(heard) // 4]
        level = np.sqrt(2 * (middle**2).mean())
        assert level == pytest.approx(1.0, abs=0.02) if is_kept else level < 0.003
        if is_kept:
            spectrum = np.abs(np.fft.rfft(middle * np.hanning(len(middle))))
            assert spectrum.argmax() * heard_hz / len(middle) == pytest.approx(tone_hz, rel=0.01)


def test_rates_are_divided_into_whole_numbers_where_that_is_near() -> None:
    assert [choose_step(rate) for rate in (8_000, 48_000, 88_200, 96_000, 192_000, 384_000)] == [1, 1, 2, 2, 4, 8]
    assert 250_000 % choose_step(250_000) == 0


def test_recording_that_ends_early_is_filled_with_silence() -> None:
    wave = make_wave(8_000, 1, 0, 1.0)
    data = read_all(WaveStream(wave, Recording(noise(5_000, 1), 8_000).open, 0, wave.n_bytes))
    assert len(data) == wave.n_bytes
    assert not any(data[HEADER_BYTES + 10_000 :])
    last = wave.n_bytes - 2
    assert read_all(WaveStream(wave, Recording(noise(5_000, 1), 8_000).open, last, last + 2)) == bytes(2)


def test_closed_stream_reads_nothing_more() -> None:
    recording = Recording(noise(5_000, 1), 8_000, block=100)
    wave = make_wave(8_000, 1, 0, 0.5)
    stream = WaveStream(wave, recording.open, 0, wave.n_bytes)
    stream.read()
    stream.close()
    assert stream.read() == b""
    assert recording.n_open == 0


def test_samples_beyond_full_scale_are_clipped() -> None:
    wave = make_wave(8_000, 1, 0, 2 / 8_000)
    samples = np.array([[7.0], [-7.0]], np.float32)
    data = read_all(WaveStream(wave, Recording(samples, 8_000).open, HEADER_BYTES, wave.n_bytes))
    assert np.frombuffer(data, "<i2").tolist() == [32_767, -32_768]


def test_more_than_a_wav_file_can_hold_is_said_with_what_it_can() -> None:
    sound = Sound(48_000, 2, 12 * 3_600.0)
    with pytest.raises(UsageError, match=r"of 8\.3 GB, and one can hold 4\.3 GB: ask for at most 22,369 s"):
        make_span_wave("a.wav", sound, Span(), 1)
    most = make_span_wave("a.wav", sound, Span(1_000.0, 1_000.0 + 22_369), 1)
    assert most.n_bytes < 2**32
    assert len(most.header) == HEADER_BYTES


@pytest.mark.parametrize(
    ("span", "said"),
    [(Span(2, 1), "end_s: 1 s is not after"), (Span(3), "start_s: 3 s, and"), (Span(9, 10), "start_s")],
)
def test_span_without_sound_is_refused(span: Span, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        make_span_wave("a.wav", Sound(8_000, 1, 3.0), span, 1)
