"""What a Matroska file states about its duration is told from what FFmpeg guesses."""

import io

import av
import numpy as np
import pytest

from pipeline.audio.decode import open_audio
from pipeline.audio.matroska import lacks_duration, read_duration, read_track_duration
from pipeline.audio.source import Bytes
from tests.helpers.bursts import find_bursts, make_bursts, make_film
from tests.helpers.sounds import cut, encode

HZ = 48_000
LIVE = {"live": "1"}


@pytest.mark.parametrize("video", [None, "mpeg4"])
@pytest.mark.parametrize("codec", ["libmp3lame", "ac3", "pcm_s16le", "flac", "aac"])
def test_live_sound_states_no_duration(codec: str, video: str | None) -> None:
    data = make_film("matroska", codec, video, options=LIVE)
    with open_audio(io.BytesIO(data)) as audio:
        heard = np.concatenate(list(audio.blocks()))
        assert audio.info.expected_duration_s is None
        assert audio.truncated is None
    assert find_bursts(heard) == pytest.approx([2.0, 9.0], abs=0.03)


@pytest.mark.parametrize("codec", ["libmp3lame", "ac3", "pcm_s16le"])
def test_gap_in_live_sound_is_not_bounded_by_a_guess(codec: str) -> None:
    data = make_film("matroska", codec, None, move_s=lambda time_s: 20.0 if time_s >= 5 else 0.0, options=LIVE)
    with open_audio(io.BytesIO(data)) as audio:
        heard = np.concatenate(list(audio.blocks()))
        assert audio.truncated == "20.000 s are missing in the middle, and taken as silence"
    assert find_bursts(heard) == pytest.approx([2.0, 29.0], abs=0.03)


def test_duration_in_the_header_is_found() -> None:
    for data, lacks in [
        (make_film("matroska", "flac", "mpeg4"), False),
        (make_film("matroska", "flac", None, options=LIVE), True),
        (encode("webm_opus", make_bursts(HZ), HZ), False),
        (encode("ogg_opus", make_bursts(HZ), HZ), False),
    ]:
        assert lacks_duration(Bytes(io.BytesIO(data))) == lacks


def test_duration_in_the_header_is_read() -> None:
    for data, duration_s in [
        (make_film("matroska", "flac", "mpeg4", video_s=20.0), 20.0),
        (encode("webm_opus", make_bursts(HZ), HZ), 12.0),
        (make_film("matroska", "flac", None, options=LIVE), None),
    ]:
        assert read_duration(Bytes(io.BytesIO(data))) == (duration_s and pytest.approx(duration_s, abs=0.02))


@pytest.mark.parametrize("size", range(4, 80, 3))
def test_header_that_is_cut_off_states_nothing(size: int) -> None:
    assert lacks_duration(Bytes(io.BytesIO(make_film("matroska", "flac", None)[:size])))


# --- the durations of tracks ------------------------------------------------------------------------------------------


def by_mkvmerge(film: bytes, duration: bytes) -> bytes:
    """A film as mkvmerge would write it: with its name and another duration of the sound."""
    with av.open(io.BytesIO(film)) as container:
        ends = container.streams.audio[0].metadata["DURATION"].encode()
        writer = container.metadata["ENCODER"].encode()
    film = film.replace(writer, b"libebml v1.4.2"[: len(writer)].ljust(len(writer)))
    return film.replace(ends, duration)


@pytest.mark.parametrize("late_s", [0.0, 3.0])
@pytest.mark.parametrize("writer", ["FFmpeg", "mkvmerge"])
def test_duration_of_a_track_is_that_of_its_sound(late_s: float, writer: str) -> None:
    data = make_film("matroska", "flac", late_s=late_s)
    if writer == "mkvmerge":  # which counts from the beginning of the track
        data = by_mkvmerge(data, b"00:00:12.000000000")
    with open_audio(io.BytesIO(data)) as audio:
        assert audio.info.expected_duration_s == pytest.approx(12.0 + late_s, abs=0.01)
        list(audio.blocks())
        assert audio.truncated is None
    with open_audio(io.BytesIO(cut(data))) as audio:
        list(audio.blocks())
        assert audio.truncated is not None


MKVMERGE, FFMPEG = {"encoder": "libebml v1.4.2 + libmatroska v1.6.4"}, {"ENCODER": "Lavf62.12.102"}
TIME = "01:00:12.500000000"


@pytest.mark.parametrize(
    ("track", "file", "found"),
    [
        ({"DURATION": TIME}, FFMPEG, (3_612.5, True)),
        ({"DURATION": TIME}, MKVMERGE, (3_612.5, False)),
        ({"DURATION-eng": TIME, "BPS-eng": "1"}, MKVMERGE, (3_612.5, False)),
        ({"DURATION-eng": TIME}, FFMPEG, (3_612.5, False)),  # FFmpeg copies the tags of mkvmerge
        ({"DURATION-eng": "00:00:01.0", "DURATION": TIME}, FFMPEG, (3_612.5, True)),
        ({"DURATION": TIME + "\0\0"}, FFMPEG, (3_612.5, True)),
        ({"DURATION": "12"}, FFMPEG, None),
        ({"TITLE": TIME}, FFMPEG, None),
        ({}, {}, None),
    ],
)
def test_tags_of_both_writers_are_understood(
    track: dict[str, str], file: dict[str, str], found: tuple[float, bool] | None
) -> None:
    assert read_track_duration(track, file) == found


def test_only_the_first_segment_is_looked_at() -> None:
    """Many of many elements each would take minutes."""

    class Counted(io.BytesIO):
        n_reads = 0

        def read(self, size: int | None = -1, /) -> bytes:
            self.n_reads += 1
            return super().read(size)

    void, head = b"\xec\x80", b"\x1a\x45\xdf\xa3\x80"
    segment = b"\x18\x53\x80\x67\x94" + 10 * void
    file = Counted(head + 50 * segment)
    assert read_duration(Bytes(file)) is None
    assert file.n_reads < 30
