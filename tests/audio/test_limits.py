"""A file that decodes to more sound than its bytes can mean, or than a run allows, is a failure."""

import io
from pathlib import Path

import numpy as np
import pytest

from jobs.bench.hostile_sounds import LONGEST, make_silent_flac
from pipeline.audio.decode import open_audio
from pipeline.audio.limits import LengthLimit
from pipeline.audio.recording import Recording
from pipeline.config import DecodeConfig
from pipeline.corpus.time_ranges import TimeRange
from pipeline.errors import FileFailure
from pipeline.grid import SAMPLE_RATE_HZ
from tests.helpers.sounds import cut, encode, noise

HOUR_S = 3_600


def read(data: bytes, max_hours: float | None = None, first_s: int = 0, stop_s: int | None = None) -> float:
    """How many seconds decode."""
    stop = None if stop_s is None else stop_s * SAMPLE_RATE_HZ
    with open_audio(io.BytesIO(data), max_hours=max_hours) as audio:
        return sum(map(len, audio.blocks(first_s * SAMPLE_RATE_HZ, stop))) / SAMPLE_RATE_HZ


BOMB = make_silent_flac(36 * HOUR_S)


def test_silence_of_36_hours_in_few_bytes_is_refused_before_it_is_decoded() -> None:
    assert len(BOMB) < 30_000
    with open_audio(io.BytesIO(BOMB)) as audio, pytest.raises(FileFailure) as caught:
        next(audio.blocks())
    assert (caught.value.stage, caught.value.reason) == ("decode", "too_long")
    assert caught.value.message == f"{len(BOMB):,} bytes decode to more than 9.4 h, the most for so few"


def test_silence_without_a_stated_length_is_refused_where_it_becomes_too_long() -> None:
    data, n_samples = make_silent_flac(6 * HOUR_S, states_length=False), list[int]()
    with open_audio(io.BytesIO(data)) as audio:
        blocks = audio.blocks()
        with pytest.raises(FileFailure, match="too_long"):
            n_samples.extend(map(len, blocks))
    assert sum(n_samples) / SAMPLE_RATE_HZ < 5 * HOUR_S


def test_silence_of_any_length_is_read_at_usual_rates() -> None:
    """In blocks as long as FLAC allows, a second of it takes less than two bytes at 8 kHz."""
    data = make_silent_flac(24 * HOUR_S, 8_000)
    assert len(data) < 2 * 24 * HOUR_S
    with open_audio(io.BytesIO(data)) as audio:
        assert len(next(audio.blocks())) > 0
    LengthLimit(12 * 10**6, None).check(10**6 * LONGEST / 8_000)


def test_silence_of_three_hours_is_read_whole() -> None:
    data = make_silent_flac(3 * HOUR_S)
    assert len(data) < 3_000
    assert read(data) == pytest.approx(3 * HOUR_S, abs=66)


def test_range_of_a_recording_that_is_too_long_is_read() -> None:
    assert read(BOMB, None, 20 * HOUR_S, 20 * HOUR_S + 60) == 60
    assert read(BOMB, 1.0, 20 * HOUR_S, 20 * HOUR_S + 60) == 60


def test_header_that_promises_too_much_is_no_reason_to_refuse_a_file() -> None:
    with open_audio(io.BytesIO(cut(BOMB, 0.05))) as audio:
        assert sum(map(len, audio.blocks())) / SAMPLE_RATE_HZ == pytest.approx(0.05 * 36 * HOUR_S, rel=0.05)
        assert audio.truncated is not None


@pytest.mark.parametrize("name", ["wav_s16", "flac", "mp3", "ogg_opus", "m4a"])
def test_run_limits_the_hours_of_a_file(name: str) -> None:
    data = encode(name, noise(12.0, 8_000), 8_000)
    assert read(data, 12.5 / HOUR_S) == pytest.approx(12.0, abs=0.1)
    with pytest.raises(FileFailure, match=r"too_long: longer than 0\.003 h, the limit `run\.max_file_hours`"):
        read(data, 0.003)


@pytest.mark.parametrize("name", ["wav_s16", "flac", "mp3", "ogg_opus", "m4a"])
def test_ranges_are_limited_by_their_own_length_wherever_they_lie(tmp_path: Path, name: str) -> None:
    """Also if a task reads several of them in one pass, or again what it has kept."""
    path = tmp_path / "a"
    path.write_bytes(encode(name, noise(30.0, 8_000), 8_000))
    lengths_s = {(0, 4): 4.0, (3, 8): 5.0, (20, 25): 5.0, (25, 31): 5.0, (26, None): 4.0}
    too_long = [(0, 6), (2, 8), (20, 26), (24, 30), (24, None), (0, None)]
    wanted = [*lengths_s, *too_long]
    for order in ([wanted], [wanted[::-1]], [[each] for each in wanted]):
        for ranges in order:
            with Recording(max_hours=5.5 / HOUR_S) as recording:
                recording.fetch(str(path))
                for first_s, stop_s in ranges:
                    first, stop = TimeRange(first_s, stop_s).samples
                    blocks = recording.stream(first, DecodeConfig()).blocks(first, stop)
                    if (first_s, stop_s) in too_long:
                        with pytest.raises(FileFailure, match=r"too_long: .*`run\.max_file_hours`"):
                            list(blocks)
                    else:
                        found_s = sum(map(len, blocks)) / SAMPLE_RATE_HZ
                        assert found_s == pytest.approx(lengths_s[first_s, stop_s], abs=0.1)


def test_bytes_limit_how_far_into_a_recording_that_must_be_read_from_its_start_a_range_lies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.audio.limits._ANY_FILE_S", 60.0)
    path = tmp_path / "a.flac"
    path.write_bytes(make_silent_flac(600, states_length=False))
    early_s, late_s = (30, 39), (300, 309)
    for order in ([early_s, late_s], [late_s, early_s]):
        with Recording() as recording:
            recording.fetch(str(path))
            for first_s, stop_s in order:
                first, stop = TimeRange(first_s, stop_s).samples
                blocks = recording.stream(first, DecodeConfig()).blocks(first, stop)
                if first_s == late_s[0]:
                    with pytest.raises(FileFailure, match="the most for so few"):
                        list(blocks)
                else:
                    assert sum(map(len, blocks)) == 9 * SAMPLE_RATE_HZ


@pytest.mark.parametrize("bytes_per_s", [1.5, 20, 25, 50, 1_000])
def test_thin_sound_of_any_length_is_allowed(bytes_per_s: float) -> None:
    """Of opus with pauses, AMR with pauses, and FLAC of silence in short and in the longest blocks."""
    for duration_s in np.geomspace(1, 10**7, 20):
        LengthLimit(int(bytes_per_s * duration_s), None).check(duration_s)
