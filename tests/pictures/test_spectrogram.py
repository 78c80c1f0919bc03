"""Spectrograms show each sound at its time, its pitch and its level, at any size."""

import math
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.audio.excerpt import Samples
from pipeline.errors import FileFailure, UsageError
from pipeline.pictures import spectrogram
from pipeline.pictures.spectrogram import FLOOR_DB, View, measure_levels, read_spectrogram, sample_spectrogram
from tests.helpers.sounds import encode, noise, tone

HZ = 24_000


def in_blocks(samples: Samples, n: int = HZ) -> Iterator[Samples]:
    for begin in range(0, len(samples), n):
        yield samples[begin : begin + n]


def measure(samples: Samples, view: View, rate_hz: int = HZ) -> Any:
    return measure_levels(in_blocks(samples), 0, len(samples), rate_hz, view)


@pytest.mark.parametrize("width", [1, 7, 200, 3_000])
@pytest.mark.parametrize("height", [1, 50, 1_000])
def test_tone_shows_at_its_time_pitch_and_level(width: int, height: int) -> None:
    samples = np.zeros((10 * HZ, 1), np.float32)
    samples[4 * HZ : 6 * HZ] = tone(2.0, HZ, 3_000.0, 0.1)
    levels_db = measure(samples, View(width, height))
    assert levels_db.shape == (height, width)
    assert levels_db.dtype == np.float32
    row, column = np.unravel_index(int(np.argmax(levels_db)), levels_db.shape)
    assert levels_db.max() == pytest.approx(-20.0, abs=1.5)
    assert (row + 0.5) / height == pytest.approx(0.75, abs=0.5 / height + 0.01)
    assert 0.4 - 1 / width <= column / width <= 0.6
    if width >= 200:
        assert levels_db[:, : int(0.38 * width)].max() < -100


def test_click_shows_where_an_hour_is_one_picture() -> None:
    def hour() -> Iterator[Samples]:
        rng = np.random.default_rng(0)
        quiet = (1e-4 * rng.standard_normal((8_000 * 60, 1))).astype(np.float32)
        for minute in range(60):
            block = quiet.copy()
            if minute == 20:
                block[8_000:8_008] = 0.5
            yield block

    levels_db = measure_levels(hour(), 0, 8_000 * 3_600, 8_000, View(300, 64))
    loud = levels_db.mean(axis=0)
    assert int(np.argmax(loud)) == int((20 * 60 + 1) / 3_600 * 300)
    assert loud.max() > np.median(loud) + 15


@pytest.mark.parametrize("n", [17, 999, 100_000])
def test_blocks_of_any_size_give_the_same_picture(n: int) -> None:
    samples = noise(1.0, HZ, 2)
    for view in (View(13, 40), View(500, 200), View(1_500, 64, 1_000, 2_000)):
        expected = measure_levels([samples], 0, HZ, HZ, view)
        np.testing.assert_allclose(measure_levels(in_blocks(samples, n), 0, HZ, HZ, view), expected, atol=1e-3)


def test_pictures_beside_each_other_fit(tmp_path: Path) -> None:
    (tmp_path / "a.flac").write_bytes(encode("flac", noise(8.0, HZ, 2), HZ))
    uri = str(tmp_path / "a.flac")
    whole = read_spectrogram(uri, 1.0, 7.0, View(600, 100)).levels_db
    parts = [read_spectrogram(uri, start_s, start_s + 2.0, View(200, 100)).levels_db for start_s in (1.0, 3.0, 5.0)]
    np.testing.assert_allclose(np.concatenate(parts, axis=1), whole, atol=1e-3)


def test_band_may_be_any_part_and_reach_above_what_there_is() -> None:
    samples = tone(2.0, HZ, 5_000.0, 0.5)
    narrow = measure(samples, View(50, 100, 4_900.0, 5_100.0))
    assert abs(int(np.argmax(narrow[:, 25])) - 50) <= 3
    high = measure(samples, View(50, 96, 0.0, 24_000.0))
    assert (high[:47] == FLOOR_DB).all()
    assert int(np.argmax(high[:, 25])) == pytest.approx(96 * (1 - 5 / 24), abs=1)


def test_channels_that_cancel_each_other_are_seen() -> None:
    samples = tone(1.0, HZ, 3_000.0, 0.5)
    levels_db = measure(np.concatenate([samples, -samples], axis=1), View(10, 10))
    np.testing.assert_allclose(levels_db, measure(samples, View(10, 10)), atol=1e-3)


def test_silence_lies_behind_the_end(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(encode("wav_s16", noise(2.0, HZ), HZ))
    found = read_spectrogram(str(tmp_path / "a.wav"), 1.0, 5.0, View(400, 20))
    assert found.levels_db[:, :95].min() > -100
    assert (found.levels_db[:, 115:] == FLOOR_DB).all()
    assert (found.low_hz, found.high_hz, found.is_approximate) == (0, HZ / 2, False)


def test_samples_show_what_they_fall_on_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten columns of four seconds: a tone in the middle of the third one, and one between the fifth and the sixth."""
    samples = np.zeros((40 * HZ, 2), np.float32)
    for start_s in (9.9, 19.9):
        samples[round(start_s * HZ) : round((start_s + 0.2) * HZ)] = tone(0.2, HZ, 3_000.0, 0.1, 2)
    (tmp_path / "a.wav").write_bytes(encode("wav_s16", samples, HZ))
    uri, view = str(tmp_path / "a.wav"), View(10, 48, 1_000.0, 5_000.0)
    found, whole = sample_spectrogram(uri, 0.0, 40.0, view), read_spectrogram(uri, 0.0, 40.0, view)
    assert np.flatnonzero(whole.levels_db.max(axis=0) > -50).tolist() == [2, 4, 5]
    assert np.flatnonzero(found.levels_db.max(axis=0) > -50).tolist() == [2]
    assert int(np.argmax(found.levels_db[:, 2])) == int(np.argmax(whole.levels_db[:, 2]))
    assert (found.is_sampled, whole.is_sampled) == (True, False)
    assert (found.low_hz, found.high_hz, found.start_s, found.end_s) == (1_000, 5_000, 0, 40)
    monkeypatch.setattr(spectrogram, "MOST_PARTS", 5)
    wide = sample_spectrogram(uri, 2.0, 18.0, View(15, 48))  # parts around 3.6, 6.8, 10, ... seconds
    assert np.flatnonzero(wide.levels_db.max(axis=0) > -50).tolist() == [6, 7, 8]


def test_samples_behind_the_end_are_silent(tmp_path: Path) -> None:
    (tmp_path / "a.flac").write_bytes(encode("flac", noise(20.0, HZ), HZ))
    found = sample_spectrogram(str(tmp_path / "a.flac"), 0.0, 30.0, View(30, 10))
    assert found.levels_db[:, :19].min() > -100
    assert (found.levels_db[:, 21:] == FLOOR_DB).all()


def test_file_that_cannot_be_entered_is_not_sampled(tmp_path: Path) -> None:
    """Ogg files that were joined: a part of them is found by decoding all that lies before."""
    links = [encode(name, noise(6.0, HZ), HZ) for name in ("ogg_vorbis", "ogg_opus")]
    (tmp_path / "a.ogg").write_bytes(b"".join(links))
    found = sample_spectrogram(str(tmp_path / "a.ogg"), 0.0, 12.0, View(20, 10))
    whole = read_spectrogram(str(tmp_path / "a.ogg"), 0.0, 12.0, View(20, 10))
    assert not found.is_sampled
    np.testing.assert_array_equal(found.levels_db, whole.levels_db)


def test_sampling_ends_once_nobody_waits(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(encode("wav_s16", noise(20.0, HZ, 1), HZ))
    asked = iter([False, True])
    found = sample_spectrogram(str(tmp_path / "a.wav"), 0.0, 20.0, View(10, 10), lambda: next(asked))
    assert found.levels_db[:, :2].min() > FLOOR_DB
    assert (found.levels_db[:, 2:] == FLOOR_DB).all()


def test_reading_ends_once_nobody_waits(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(encode("wav_s16", noise(20.0, HZ, 1), HZ))
    asked = iter([False, False])
    found = read_spectrogram(str(tmp_path / "a.wav"), 0.0, 20.0, View(200, 10), lambda: next(asked, True))
    assert found.levels_db[:, :10].min() > FLOOR_DB
    assert (found.levels_db[:, -100:] == FLOOR_DB).all()


def test_memory_does_not_grow_with_the_span() -> None:
    def blocks(n: int) -> Iterator[Samples]:
        block = noise(2.0, HZ, 2)
        for _ in range(n):
            yield block

    peaks = []
    for n in (5, 50):
        tracemalloc.start()
        measure_levels(blocks(n), 0, n * 2 * HZ, HZ, View(400, 100))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.5 * peaks[0]
    assert peaks[1] < 1e8


def test_wrong_calls_are_refused(tmp_path: Path) -> None:
    for wrong in ((0, 10), (10, 9_000), (10, 10, -1.0), (10, 10, 500.0, 400.0)):
        with pytest.raises(UsageError, match="not a"):
            View(*wrong)
    for start_s, end_s in ((2.0, 1.0), (-1.0, 1.0), (0.0, math.inf)):
        with pytest.raises(UsageError, match="not a span"):
            read_spectrogram("any", start_s, end_s, View(10, 10))
        with pytest.raises(UsageError, match="not a span"):
            sample_spectrogram("any", start_s, end_s, View(10, 10))
    with pytest.raises(FileFailure, match="vanished"):
        read_spectrogram(str(tmp_path / "none.wav"), 0.0, 1.0, View(10, 10))
