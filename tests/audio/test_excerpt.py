"""Excerpts of every format are what a whole decode has there, or are called approximate."""

import io
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from pipeline import storage
from pipeline.audio import seeking_reader
from pipeline.audio.decode import to_model_rate
from pipeline.audio.excerpt import Samples, open_excerpt, open_span
from pipeline.audio.source import Source
from pipeline.corpus.raw_formats import RAW_FORMATS
from pipeline.corpus.time_ranges import TimeRange
from pipeline.errors import FileFailure
from pipeline.grid import SAMPLE_RATE_HZ
from tests.helpers.bursts import find_bursts, make_film
from tests.helpers.decoding import decode_all
from tests.helpers.shards import write_shard
from tests.helpers.sounds import FORMATS, by_av, encode, noise, scribble, tone, write_long

DURATION_S = 36.0
SPANS_S = [(0.0, 0.5), (0.013, 0.3), (4.7, 5.9), (20.001, 20.5), (33.3, 34.9), (35.5, 50.0)]
NEAR_S = 0.05
"""What players and people take for the same moment."""


def rate_of(name: str) -> int:
    return 8_000 if FORMATS[name].takes(8_000, 2) else 32_000


@cache
def sound(name: str) -> bytes:
    return encode(name, 3 * noise(DURATION_S, rate_of(name), 2), rate_of(name))


def cut(data: Source, start_s: float = 0.0, end_s: float | None = None) -> tuple[Samples, int, bool]:
    """The samples of a span, their rate, and whether they are approximate."""
    with open_span(data, TimeRange(start_s, end_s)) as excerpt:
        return excerpt.read(), excerpt.sample_rate_hz, excerpt.is_approximate


def lag_samples(heard: Samples, expected: Samples) -> int:
    n = len(heard) + len(expected)
    likeness = np.fft.irfft(np.fft.rfft(heard[:, 0], n) * np.conj(np.fft.rfft(expected[:, 0], n)), n)
    best = int(np.argmax(likeness))
    return best if best < n // 2 else best - n


def check_spans(data: bytes) -> bool:
    """Every span is a slice of the whole, or approximate and near it; returns whether any is approximate."""
    whole, rate_hz, _ = cut(io.BytesIO(data))
    found = False
    for start_s, end_s in SPANS_S:
        part, _, is_approximate = cut(io.BytesIO(data), start_s, end_s)
        expected = whole[round(start_s * rate_hz) : round(end_s * rate_hz)]
        if is_approximate:
            found = True
            assert abs(lag_samples(part, expected)) <= NEAR_S * rate_hz
            assert abs(len(part) - len(expected)) <= NEAR_S * rate_hz
        else:
            assert part.shape == expected.shape
            np.testing.assert_allclose(part, expected, rtol=0, atol=1e-4)
    return found


@pytest.mark.parametrize("name", FORMATS)
def test_excerpts_are_slices_of_the_whole(name: str) -> None:
    is_approximate = check_spans(sound(name))
    assert not (is_approximate and FORMATS[name].step is not None and "matroska" not in name)


@pytest.mark.parametrize("name", FORMATS)
def test_whole_excerpt_is_what_decoding_hears(name: str) -> None:
    data = encode(name, noise(2.5, rate_of(name), 2), rate_of(name))
    whole, rate_hz, is_approximate = cut(io.BytesIO(data))
    heard, info = decode_all(io.BytesIO(data))
    assert not is_approximate
    assert whole.shape[1] == info.channels == 2
    assert whole.dtype == np.float32
    np.testing.assert_allclose(to_model_rate(whole, rate_hz), heard, rtol=0, atol=1e-5)


@pytest.mark.parametrize("rate_hz", [8_000, 11_025, 44_056, 192_000])
def test_exact_formats_are_exact_at_every_rate(rate_hz: int) -> None:
    samples = noise(6.0, rate_hz, 3)
    part, found_hz, _ = cut(io.BytesIO(encode("wav_f32", samples, rate_hz)), 3.21, 4.0)
    assert found_hz == rate_hz
    assert np.array_equal(part, samples[round(3.21 * rate_hz) : 4 * rate_hz])


@pytest.mark.parametrize(
    ("container", "codec", "video"),
    [
        ("mp4", "aac", "mpeg4"),
        ("mp4", "libopus", None),
        ("matroska", "aac", "mpeg4"),
        ("webm", "libopus", None),
        ("mpegts", "ac3", "mpeg2video"),
        ("mpeg", "mp2", "mpeg1video"),
        ("flv", "aac", "libx264"),
        ("nut", "ac3", "mpeg4"),
    ],
)
def test_gaps_and_late_beginnings_count_in_the_middle_too(
    container: str, codec: str, video: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(seeking_reader, "NEAR_S", 0.0)
    monkeypatch.setattr(seeking_reader, "FIRST_S", 0.0)
    late_s = 3.0 if video else 0.0
    moves = {"move_s": lambda time_s: 4.0 if time_s >= 5.0 else 0.0}
    data = make_film(container, codec, video, late_s=late_s, **moves)  # type: ignore[arg-type]
    part, rate_hz, _ = cut(io.BytesIO(data), late_s + 12.0, late_s + 15.0)
    assert len(part) == 3 * rate_hz
    assert min(abs(burst_s - 1.0) for burst_s in find_bursts(to_model_rate(part, rate_hz))) <= NEAR_S
    assert np.abs(part[: rate_hz // 2]).max() < 0.05 < np.abs(part[rate_hz : 3 * rate_hz // 2]).max()
    part, rate_hz, _ = cut(io.BytesIO(data), late_s + 7.0, late_s + 10.0)
    assert len(part) == 3 * rate_hz
    assert np.abs(part).max() < 0.05


@pytest.mark.parametrize(("container", "live"), [("matroska", True), ("matroska", False), ("flv", False)])
@pytest.mark.parametrize("end_s", [None, 9.5])
def test_broken_clock_gives_no_silence(
    container: str, live: bool, end_s: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A clock that jumps by weeks: as in a whole decode, the sound goes on."""
    monkeypatch.setattr(seeking_reader, "NEAR_S", 0.0)
    monkeypatch.setattr(seeking_reader, "FIRST_S", 0.0)
    options = {"live": "1"} if live else {}
    data = make_film(container, "aac", None, move_s=lambda time_s: 2e6 if time_s >= 5.0 else 0.0, options=options)
    blocks: list[Samples] = []
    with open_span(io.BytesIO(data), TimeRange(3.0, end_s)) as excerpt:
        for block in excerpt.blocks():
            blocks.append(block)
            assert sum(map(len, blocks)) < 60 * excerpt.sample_rate_hz
        heard = to_model_rate(np.concatenate(blocks), excerpt.sample_rate_hz)
    assert len(heard) / SAMPLE_RATE_HZ == pytest.approx((end_s or 12.0) - 3.0, abs=0.1)
    assert min(abs(burst_s - 6.0) for burst_s in find_bursts(heard)) <= 0.05


@pytest.mark.parametrize("name", ["wav_s16", "flac", "ogg_opus", "m4a", "webm_opus"])
def test_little_of_a_long_file_is_read(name: str, tmp_path: Path) -> None:
    class Counted(io.BytesIO):
        n_bytes = 0

        def read(self, size: int | None = -1, /) -> bytes:
            data = super().read(size)
            self.n_bytes += len(data)
            return data

    write_long(tmp_path / "long", name, 480.0, 24_000, channels=1)
    data = Counted((tmp_path / "long").read_bytes())
    with open_span(data, TimeRange(400.0, 402.0)) as excerpt:
        assert len(excerpt.read()) == 2 * excerpt.sample_rate_hz
    assert data.n_bytes < max(len(data.getvalue()) / 4, 2_000_000)
    assert data.n_bytes < len(data.getvalue()) / 2


@pytest.mark.parametrize("name", ["mp3", "mp3_vbr_no_xing", "aac_adts"])
def test_long_files_of_frames_are_entered_exactly(name: str, tmp_path: Path) -> None:
    write_long(tmp_path / "long", name, 300.0, 24_000, channels=1)
    whole, rate_hz, _ = cut(tmp_path / "long")
    for start_s in (100.0, 230.77):  # the second one after places were kept
        part, _, is_approximate = cut(tmp_path / "long", start_s, start_s + 1.5)
        assert not is_approximate
        first = round(start_s * rate_hz)
        np.testing.assert_allclose(part, whole[first : first + len(part)], rtol=0, atol=1e-4)
        assert len(part) == 1.5 * rate_hz


def test_mp3_with_junk_inside_is_approximate() -> None:
    data = sound("mp3")
    junk = data[: len(data) // 4] + np.random.default_rng(0).bytes(5_000) + data[len(data) // 4 :]
    _, _, is_approximate = cut(io.BytesIO(junk), 33.0, 34.0)
    assert is_approximate
    assert not cut(io.BytesIO(junk), 1.0, 2.0)[2]


def test_damaged_flac_is_read_on_as_decoding_does() -> None:
    data = scribble(sound("flac"), 0.3, 0.31)
    whole, rate_hz, _ = cut(io.BytesIO(data))
    assert abs(len(whole) / rate_hz - DURATION_S) < 1.0
    part, _, _ = cut(io.BytesIO(data), 2.0, 4.0)
    assert np.array_equal(part, whole[2 * rate_hz : 4 * rate_hz])
    assert np.abs(cut(io.BytesIO(data), 33.0, 34.0)[0]).max() > 0.1


def test_chain_keeps_the_rate_and_channels_of_its_beginning() -> None:
    first, second = noise(5.0, 24_000, 2), tone(5.0, 48_000, 1_000.0)
    data = encode("ogg_vorbis", first, 24_000) + encode("ogg_opus", second, 48_000)
    part, rate_hz, is_approximate = cut(io.BytesIO(data), 4.0, 9.0)
    assert (rate_hz, part.shape[1], is_approximate) == (24_000, 2, False)
    spectrum = np.abs(np.fft.rfft(part[3 * rate_hz : 4 * rate_hz, 1]))
    assert int(np.argmax(spectrum)) == 1_000


def test_what_is_not_finite_is_silent() -> None:
    samples = noise(1.0, 48_000)
    samples[100:200] = np.nan
    part, _, _ = cut(io.BytesIO(encode("wav_f32", samples, 48_000)))
    assert not part[100:200].any()
    assert np.array_equal(part[200:], samples[200:])


def test_number_of_samples_is_known_before_they_are_read() -> None:
    for name in ("wav_s16", "flac", "mp3", "m4a", "ogg_vorbis"):
        for start_s, end_s in ((0.0, None), (4.0, 5.0), (35.0, 99.0)):
            with open_span(io.BytesIO(sound(name)), TimeRange(start_s, end_s)) as excerpt:
                assert excerpt.n_samples == pytest.approx(len(excerpt.read()), abs=1)


def test_blocks_are_small() -> None:
    with open_span(io.BytesIO(sound("mp3"))) as excerpt:
        assert max(len(block) for block in excerpt.blocks()) <= 2.2 * excerpt.sample_rate_hz


# --- uris -------------------------------------------------------------------------------------------------------------


def test_uri_may_name_a_range_or_a_member(tmp_path: Path) -> None:
    data = sound("flac")
    whole, rate_hz, _ = cut(io.BytesIO(data))
    (tmp_path / "a.flac").write_bytes(data)
    shard = write_shard(tmp_path / "s.tar", [("a.flac", data)])
    for uri in (str(tmp_path / "a.flac"), f"{shard}#a.flac"):
        with open_excerpt(f"{uri}#t=10,20", 2.0, 30.0) as excerpt:
            assert np.array_equal(excerpt.read(), whole[12 * rate_hz : 20 * rate_hz])
        with open_excerpt(uri, 35.0) as excerpt:
            assert np.array_equal(excerpt.read(), whole[35 * rate_hz :])


def test_uri_may_name_an_object_of_a_store(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, rate_hz, _ = cut(io.BytesIO(sound("mp3")))
    store, name = storage.find_store(f"{bucket}/a.mp3")
    store.pipe_file(name, sound("mp3"))
    with open_excerpt(f"{bucket}/a.mp3", 33.0, 34.0) as excerpt:
        assert not excerpt.is_approximate
        np.testing.assert_allclose(excerpt.read(), whole[33 * rate_hz : 34 * rate_hz], rtol=0, atol=1e-4)
    monkeypatch.setattr(seeking_reader, "MOST_FETCHED_BYTES", 1_000)
    with open_excerpt(f"{bucket}/a.mp3", 33.0, 34.0) as excerpt:
        assert excerpt.is_approximate
        lag = lag_samples(excerpt.read(), whole[33 * rate_hz : 34 * rate_hz])
        assert abs(lag) <= 2 * 576  # frames are long at this rate


def test_file_without_a_header_is_read_by_its_extension() -> None:
    data = by_av("g722", "g722")(tone(40.0, 16_000), 16_000)
    with open_span(io.BytesIO(data), TimeRange(35.0, 36.0), RAW_FORMATS["g722"]) as excerpt:
        assert excerpt.is_approximate
        samples = excerpt.read()[:, 0]
    assert int(np.argmax(np.abs(np.fft.rfft(samples)))) == 440


def test_failures_have_their_reasons(tmp_path: Path) -> None:
    (tmp_path / "text.wav").write_bytes(b"no sound " * 100)
    for uri, reason in (("none.wav", "vanished"), ("text.wav", "not_audio")):
        with pytest.raises(FileFailure) as failure:
            open_excerpt(str(tmp_path / uri))
        assert failure.value.reason == reason
    for name in ("flac", "mp3", "m4a", "webm_opus"):
        with pytest.raises(FileFailure, match=r"out_of_range: nothing from 99\.000 s on"):
            cut(io.BytesIO(sound(name)), 99.0, 100.0)
