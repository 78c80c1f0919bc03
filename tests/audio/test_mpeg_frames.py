"""The places of frames are those that FFmpeg finds."""

import io
from pathlib import Path

import av
import numpy as np
import pytest

from jobs.bench.hostile_sounds import with_cover
from pipeline.audio import mpeg_frames
from pipeline.audio.mpeg_frames import find_places, read_kind
from pipeline.audio.source import Bytes
from tests.helpers.sounds import by_av, encode, noise

CASES = [("mp3", rate_hz) for rate_hz in (8_000, 11_025, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000)]
CASES += [("mp3_vbr", 44_100), ("mp3_vbr_no_xing", 16_000), ("mp2", 48_000), ("mp2", 22_050)]
CASES += [("aac_adts", rate_hz) for rate_hz in (8_000, 24_000, 44_100, 96_000)]


def make(name: str, rate_hz: int) -> bytes:
    sound = noise(12.0, rate_hz) * np.repeat(np.linspace(0, 1, 12), rate_hz)[:, None].astype(np.float32)
    return by_av("mp2", "mp2")(sound, rate_hz) if name == "mp2" else encode(name, sound, rate_hz)


def ffmpeg_places(data: bytes) -> list[tuple[int, float]]:
    """Where each packet lies in the file, and when it begins."""
    with av.open(io.BytesIO(data)) as container:
        packets = [packet for packet in container.demux(container.streams.audio[0]) if packet.size]
        return [(packet.pos, float(packet.pts * packet.time_base)) for packet in packets]


@pytest.mark.parametrize(("name", "rate_hz"), CASES)
def test_frames_lie_where_ffmpeg_finds_them(name: str, rate_hz: int) -> None:
    data = make(name, rate_hz)
    expected = ffmpeg_places(data)
    source = Bytes(io.BytesIO(data))
    places = find_places(source, expected[0][0], len(data))
    assert places is not None
    assert places.kind.rate_hz == rate_hz
    numbers = [0, 1, 63, 64, 65, len(expected) // 2, len(expected) - 1]
    for number in numbers:
        assert places.find(source, number) == (number, expected[number][0])
        assert number * places.kind.n_samples / rate_hz == pytest.approx(expected[number][1], abs=1e-4)
    assert places.find(source, len(expected)) is None
    assert places.is_whole


def test_junk_between_frames_is_noticed_and_tags_are_not(tmp_path: Path) -> None:
    data = make("mp3", 44_100)
    expected = [pos for pos, _ in ffmpeg_places(data)]
    half = expected[100]
    for between, is_whole in ((with_cover(b"", 3_000), True), (bytes(3_000), False)):
        path = tmp_path / str(is_whole)
        path.write_bytes(data[:half] + between + data[half:])
        with Bytes(path) as source:
            places = find_places(source, expected[0], source.size_bytes)
            assert places is not None
            assert places.find(source, 200) == (200, expected[200] + len(between))
            assert places.is_whole is is_whole


class Counting(Bytes):
    """A file that counts the bytes that are read."""

    n_bytes = 0

    def read(self, size: int = -1) -> bytes:
        data = super().read(size)
        self.n_bytes += len(data)
        return data


@pytest.mark.parametrize("between", [bytes(1), b"\xff" * 300, with_cover(b"", 300)])
def test_breaks_are_passed_without_reading_again(between: bytes) -> None:
    """Thousands of them in a file of 4 MB, each behind two frames."""
    data = make("mp3", 44_100)
    places = [pos for pos, _ in ffmpeg_places(data)]
    pairs = [data[begin:end] for begin, end in zip(places[::2], places[2::2], strict=False)]
    broken = between.join(pairs * (4 * 10**6 // len(data)))
    source = Counting(io.BytesIO(broken))
    found = find_places(source, 0, len(broken))
    assert found is not None
    n_frames = 2 * len(pairs) * (4 * 10**6 // len(data))
    assert found.find(source, n_frames) is None
    at = found.find(source, n_frames - 65)
    assert at is not None
    assert at[1] < len(broken)
    assert source.n_bytes < 2.5 * len(broken) + (1 << 21)


def test_frames_with_too_much_between_are_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    data = make("mp3", 44_100)
    places = [pos for pos, _ in ffmpeg_places(data)]
    half = places[len(places) // 2]
    source = Bytes(io.BytesIO(data[:half] + bytes(5_000) + data[half:]))
    for most, is_lost in ((5_000, False), (4_999, True)):
        monkeypatch.setattr(mpeg_frames, "MOST_LOST_BYTES", most)
        found = find_places(source, places[0], len(data) + 5_000)
        assert found is not None
        assert (found.find(source, len(places) - 1) is None) is is_lost
        assert found.is_lost is is_lost


def test_places_are_kept_for_a_file_until_it_changes(tmp_path: Path) -> None:
    (path := tmp_path / "a.aac").write_bytes(make("aac_adts", 44_100))
    with Bytes(path) as source:
        first = find_places(source, 0, source.size_bytes)
        assert first is not None
        assert find_places(source, 0, source.size_bytes) is first
    path.write_bytes(make("aac_adts", 24_000))
    with Bytes(path) as source:
        second = find_places(source, 0, source.size_bytes)
        assert second is not None
        assert second.kind.rate_hz == 24_000


def test_other_bytes_are_no_frame() -> None:
    for head in (b"", b"ID3\x04\0\0\0", b"RIFF\0\0\0", b"\xff\xe0" + bytes(5), b"\xff\xfb\xff\xff\0\0\0"):
        assert read_kind(head) is None
