"""Sound lies where its container says: after the beginning of the picture, and behind gaps, but not behind splices."""

import io
import re
import struct

import numpy as np
import pytest

from pipeline.audio.decode import open_audio
from pipeline.audio.timeline import Container, Neighbour, Timeline, find_spliced_zero, find_zero
from tests.helpers.bursts import find_bursts, make_bursts, make_film
from tests.helpers.sounds import cut, encode, noise

HZ = 48_000
WRAP_S = (1 << 33) / 90_000
"""MPEG counts time with 33 bits."""


def hear(data: bytes) -> tuple[list[float], float, str | None]:
    """When the bursts begin, the duration, and why the file counts as truncated."""
    with open_audio(io.BytesIO(data)) as audio:
        heard = np.concatenate(list(audio.blocks()))
        return find_bursts(heard), len(heard) / HZ, audio.truncated


def late_from_5_s(by_s: float) -> dict[str, object]:
    return {"move_s": lambda time_s: by_s if time_s >= 5.0 else 0.0}


FILMS = [
    ("mp4", "aac", "libx264"),
    ("mov", "aac", "mpeg4"),
    ("matroska", "aac", "libx264"),  # with frames that are decoded before they are shown
    ("matroska", "libopus", "mpeg4"),
    ("webm", "libopus", "libvpx"),
    ("mpegts", "aac", "libx264"),
    ("mpegts", "ac3", "mpeg2video"),
    ("mpeg", "mp2", "mpeg1video"),
    ("flv", "aac", "libx264"),
    ("nut", "ac3", "mpeg4"),
]


@pytest.mark.parametrize(("container", "codec", "video"), FILMS)
def test_sound_that_begins_after_the_picture_keeps_its_place(container: str, codec: str, video: str) -> None:
    bursts_s, duration_s, truncated = hear(make_film(container, codec, video, late_s=3.0))
    assert bursts_s == pytest.approx([5.0, 12.0], abs=0.03)
    assert duration_s == pytest.approx(15.0, abs=0.05)
    assert truncated is None


@pytest.mark.parametrize(("container", "codec", "video"), [*FILMS, ("webm", "libopus", None), ("mpegts", "aac", None)])
@pytest.mark.parametrize("with_picture", [True, False])
def test_gap_in_the_sound_becomes_silence(container: str, codec: str, video: str | None, with_picture: bool) -> None:
    """Whether the picture has the same gap or not; live, so that no duration is stated."""
    moves = late_from_5_s(4.0)
    options = {"live": "1"} if container in ("webm", "matroska") else {}
    moves |= {"move_video_s": moves["move_s"]} if with_picture else {}
    bursts_s, duration_s, truncated = hear(make_film(container, codec, video, **moves, options=options))  # type: ignore[arg-type]
    assert bursts_s == pytest.approx([2.0, 13.0], abs=0.03)
    assert duration_s == pytest.approx(16.0, abs=0.05)
    assert truncated is not None
    assert "s are missing in the middle, and taken as silence" in truncated
    assert float(truncated.split()[0]) == pytest.approx(4.0, abs=0.01)


@pytest.mark.parametrize(("container", "codec"), [("mp4", "libopus"), ("mp4", "flac"), ("asf", "libmp3lame")])
def test_gap_in_rarer_pairs_becomes_silence(container: str, codec: str) -> None:
    bursts_s, duration_s, truncated = hear(make_film(container, codec, None, **late_from_5_s(4.0)))  # type: ignore[arg-type]
    assert bursts_s == pytest.approx([2.0, 13.0], abs=0.03)
    assert duration_s == pytest.approx(16.0, abs=0.05)
    assert truncated is not None


@pytest.mark.parametrize("late_s", [0.0, 3.0])
def test_sound_of_an_asf_film_may_end_before_its_picture(late_s: float) -> None:
    data = make_film("asf", "libmp3lame", late_s=late_s)
    bursts_s, duration_s, truncated = hear(data)
    assert bursts_s == pytest.approx([2.0 + late_s, 9.0 + late_s], abs=0.03)
    assert duration_s == pytest.approx(12.0 + late_s, abs=0.05)
    assert truncated is None
    assert hear(cut(data, 0.7))[2] == "cut off before the end of its samples"


@pytest.mark.parametrize("name", ["flac", "mp3", "mp3_no_xing", "ogg_flac", "aac_adts"])
def test_files_that_were_joined_play_on(name: str) -> None:
    data = encode(name, make_bursts(HZ, 2), HZ)
    with open_audio(io.BytesIO(data + data)) as audio:
        heard = np.concatenate(list(audio.blocks()))
        assert audio.truncated is None
    assert len(heard) / HZ == pytest.approx(24.0, abs=0.08)
    assert find_bursts(heard[: 12 * HZ]) == pytest.approx([2.0, 9.0], abs=0.03)
    assert find_bursts(heard[12 * HZ :]) == pytest.approx([2.0, 9.0], abs=0.08)


def test_gap_may_be_long_if_the_picture_goes_on() -> None:
    bursts_s, *_ = hear(make_film("mpegts", "aac", "libx264", video_s=45.0, **late_from_5_s(30.0)))  # type: ignore[arg-type]
    assert bursts_s == pytest.approx([2.0, 39.0], abs=0.03)


@pytest.mark.parametrize("by_s", [100.0, 50_000.0])
@pytest.mark.parametrize("video", ["libx264", None])
def test_splice_is_no_gap(by_s: float, video: str | None) -> None:
    moves = late_from_5_s(by_s)
    data = make_film("mpegts", "aac", video, move_video_s=moves["move_s"], **moves)  # type: ignore[arg-type]
    bursts_s, duration_s, truncated = hear(data)
    assert bursts_s == pytest.approx([2.0, 9.0], abs=0.03)
    assert duration_s == pytest.approx(12.0, abs=0.05)
    assert truncated is None


@pytest.mark.parametrize("live", ["0", "1"])
def test_track_that_was_muted_for_most_of_an_hour_keeps_its_time(live: str) -> None:
    """A recorded call sends nothing meanwhile: the file has 13 bytes a second."""
    data = make_film("webm", "libopus", None, **late_from_5_s(3_000.0), options={"live": live})  # type: ignore[arg-type]
    with open_audio(io.BytesIO(data)) as audio:
        at_s, loud_s = 0.0, list[float]()
        for block in audio.blocks():
            loud_s += [at_s] if np.abs(block).max() > 0.1 else []
            at_s += len(block) / HZ
        assert audio.truncated is not None
        assert audio.truncated.startswith("3000.00")
        assert audio.note is None
    assert {round(begin_s / 10) for begin_s in loud_s} == {0, 301}


def test_jump_that_is_not_filled_is_told() -> None:
    data = make_film("webm", "libopus", None, **late_from_5_s(50_000.0), options={"live": "1"})  # type: ignore[arg-type]
    with open_audio(io.BytesIO(data)) as audio:
        assert sum(map(len, audio.blocks())) == pytest.approx(12 * HZ, abs=HZ / 50)
        assert audio.note == "its clock jumps ahead 1 time, by up to 50,000.0 s: this is not taken for silence"


@pytest.mark.parametrize("by_s", [1_000.0, 40_000.0, -40_000.0])
@pytest.mark.parametrize("container", ["mpegts", "mpeg"])
def test_splice_before_the_sound_begins_is_no_silence(container: str, by_s: float) -> None:
    """A large file may have long gaps. The picture plays on for 2 s before the sound begins."""

    def move_s(time_s: float) -> float:
        return 41_000.0 + by_s

    def move_video_s(time_s: float) -> float:
        return 41_000.0 + (by_s if time_s >= 3.0 else 0.0)

    data = make_film(container, "mp2", "mpeg2video", late_s=5.0, move_s=move_s, move_video_s=move_video_s)
    packet = b"\x47\x1f\xff\x10" + bytes(184) if container == "mpegts" else b"\0\0\1\xbe\xff\xf0" + bytes(65_520)
    bursts_s, duration_s, truncated = hear(data + packet * (5_000_000 // len(packet)))
    assert bursts_s == pytest.approx([4.0, 11.0], abs=0.5)  # some pictures at the splice have no times
    assert duration_s == pytest.approx(14.0, abs=0.5)
    assert truncated is None


def test_gap_behind_a_splice_is_found() -> None:
    def move_s(time_s: float) -> float:
        return (1_000.0 if time_s >= 4.0 else 0.0) + (3.0 if time_s >= 6.0 else 0.0)

    bursts_s, *_ = hear(make_film("mpegts", "aac", None, move_s=move_s))
    assert bursts_s == pytest.approx([2.0, 12.0], abs=0.03)


@pytest.mark.parametrize("video", ["libx264", None])
def test_clock_that_wraps_goes_on(video: str | None) -> None:
    def move_s(time_s: float) -> float:
        return WRAP_S - 7.0

    bursts_s, duration_s, truncated = hear(make_film("mpegts", "aac", video, move_s=move_s, move_video_s=move_s))
    assert bursts_s == pytest.approx([2.0, 9.0], abs=0.03)
    assert duration_s == pytest.approx(12.0, abs=0.05)
    assert truncated is None


@pytest.mark.parametrize("before_s", [5.0, 1.0])
@pytest.mark.parametrize("container", ["mpegts", "mpeg"])
def test_sound_that_begins_later_keeps_its_place_beside_a_wrap(container: str, before_s: float) -> None:
    """Both begin before the clock does anew, or only the picture."""

    def move_s(time_s: float) -> float:
        return WRAP_S - before_s

    film = make_film(container, "mp2", "mpeg2video", late_s=3.0, move_s=move_s, move_video_s=move_s)
    bursts_s, duration_s, truncated = hear(film)
    assert bursts_s == pytest.approx([5.0, 12.0], abs=0.03)
    assert duration_s == pytest.approx(15.0, abs=0.05)
    assert truncated is None


@pytest.mark.parametrize("gap_at_s", [5.0, 8.0])
def test_gap_beside_a_wrap_becomes_silence(gap_at_s: float) -> None:
    def move_s(time_s: float) -> float:
        return WRAP_S - 5.0

    def move_sound_s(time_s: float) -> float:
        return move_s(time_s) + (4.0 if time_s >= gap_at_s else 0.0)

    film = make_film("mpegts", "aac", "mpeg2video", move_s=move_sound_s, move_video_s=move_s)
    assert hear(film)[0] == pytest.approx([2.0, 13.0], abs=0.03)


def test_concatenated_streams_play_on() -> None:
    """Each sets the clock back. A gap behind that is found."""
    whole = make_film("mpegts", "aac", None)
    with_gap = make_film("mpegts", "aac", None, **late_from_5_s(4.0))  # type: ignore[arg-type]
    assert hear(whole + whole)[1] == pytest.approx(24.0, abs=0.1)
    assert hear(whole + with_gap)[1] == pytest.approx(28.0, abs=0.1)


def test_film_that_is_cut_off_is_truncated() -> None:
    data = make_film("webm", "libopus", "libvpx", video_s=12.0)
    with open_audio(io.BytesIO(data)) as audio:
        assert audio.info.expected_duration_s == pytest.approx(12.0, abs=0.02)
    *_, truncated = hear(cut(data))
    assert truncated is not None
    assert truncated.endswith("s decoded of 12.008 s")


@pytest.mark.parametrize("codec", ["aac", "libmp3lame"])
def test_flv_that_is_cut_off_is_truncated(codec: str) -> None:
    """Without a picture: else its duration is that of the film. Where none is stated, FFmpeg guesses."""
    data = make_film("flv", codec, None)
    assert hear(data)[2] is None
    *_, truncated = hear(cut(data))
    assert truncated is not None
    assert re.fullmatch(r"6\.\d+ s decoded of 12\.0\d+ s", truncated)
    for other in (
        make_film("flv", codec, "libx264"),
        make_film("flv", codec, None, late_s=3.0),
        make_film("flv", codec, None, options={"flvflags": "no_duration_filesize"}),
    ):
        with open_audio(io.BytesIO(cut(other))) as audio:
            assert audio.info.expected_duration_s is None


def test_stream_that_begins_in_the_middle_of_flv_costs_nothing() -> None:
    """Damage may look like one."""
    picture = b"\x22" + bytes(10)
    tag = (
        b"\x09" + len(picture).to_bytes(3) + (5_000).to_bytes(3) + bytes(4) + picture + (11 + len(picture)).to_bytes(4)
    )
    data = make_film("flv", "aac", None, options={"flvflags": "no_metadata"})
    bursts_s, duration_s, truncated = hear(data + 3 * tag)
    assert bursts_s == pytest.approx([2.0, 9.0], abs=0.03)
    assert duration_s == pytest.approx(12.0, abs=0.05)
    assert truncated is None


def make_dsf(duration_s: float) -> bytes:
    """Silence of one bit per sample."""
    rate_hz, block_bytes = 2_822_400, 4_096
    n_samples = round(duration_s * rate_hz)
    n_blocks = -(-n_samples // 8 // block_bytes)
    layout = struct.pack("<4sQ6IQ2I", b"fmt ", 52, 1, 0, 1, 1, rate_hz, 1, n_samples, block_bytes, 0)
    sound = struct.pack("<4sQ", b"data", 12 + n_blocks * block_bytes) + b"\x69" * n_blocks * block_bytes
    return struct.pack("<4s3Q", b"DSD ", 28, 28 + len(layout) + len(sound), 0) + layout + sound


def test_dsf_that_is_cut_off_is_truncated() -> None:
    data = make_dsf(3.0005)
    with open_audio(io.BytesIO(data)) as audio:
        assert sum(map(len, audio.blocks())) / HZ == pytest.approx(3.0005, abs=0.001)
        assert audio.info.expected_duration_s == pytest.approx(3.0005, abs=1e-5)
        assert audio.truncated is None
    with open_audio(io.BytesIO(cut(data))) as audio:
        assert len(list(audio.blocks())) > 0
        assert audio.truncated is not None
        assert re.fullmatch(r"1\.50\d s decoded of 3\.000 s", audio.truncated)


def test_headers_of_frames_are_no_damage() -> None:
    """MXF has pictures and headers between the frames of its sound."""
    assert hear(make_film("mxf", "pcm_s16le", "mpeg2video")) == ([2.0, 9.0], 12.0, None)


@pytest.mark.parametrize("name", ["ogg_vorbis", "mp3_vbr", "ac3", "mp3"])
@pytest.mark.parametrize("video", ["mpeg4", None])
def test_sound_in_avi_runs_from_the_start_without_gaps(name: str, video: str | None) -> None:
    data = make_film("avi", "", video, data=encode(name, make_bursts(HZ, 2) + noise(12.0, HZ, 2) * np.float32(0.1), HZ))
    bursts_s, duration_s, truncated = hear(data)
    assert bursts_s == pytest.approx([2.0, 9.0], abs=0.03)
    assert duration_s == pytest.approx(12.0, abs=0.05)
    assert truncated is None


def test_vorbis_in_avi_gains_nothing_by_its_bit_rate() -> None:
    """avi counts it in bytes, by an average rate. Here that is too low, so that its times run ahead."""
    data = make_film("avi", "", None, data=encode("ogg_vorbis", make_bursts(HZ, 2), HZ))
    at = data.index(b"auds") + 20
    scale, rate = struct.unpack_from("<II", data, at)
    data = data[:at] + struct.pack("<II", 1_000 * scale, rate) + data[at + 8 :]
    bursts_s, duration_s, truncated = hear(data)
    assert bursts_s == pytest.approx([2.0, 9.0], abs=0.001)
    assert duration_s == pytest.approx(12.0, abs=0.01)
    assert truncated is None


BARE = [("matroska", "aac"), ("webm", "libopus"), ("ogg", "libopus"), ("mp4", "aac"), ("mpegts", "ac3"), ("flv", "aac")]


@pytest.mark.parametrize(
    ("container", "codec", "video"),
    [*((*bare, None) for bare in BARE), ("matroska", "aac", "libx264"), ("mpegts", "ac3", "libx264")],
)
def test_damage_at_the_beginning_keeps_the_time_of_what_follows(container: str, codec: str, video: str | None) -> None:
    data = make_film(container, codec, video, spoil=lambda time_s: time_s < 1.5)
    bursts_s, duration_s, truncated = hear(data)
    assert bursts_s == pytest.approx([2.0, 9.0], abs=0.03)
    assert duration_s == pytest.approx(12.0, abs=0.05)
    assert truncated is not None


# --- the rules --------------------------------------------------------------------------------------------------------


def place(container: Container, times_s: list[float], neighbours: list[Neighbour] | None = None) -> list[float]:
    """The silence before frames of one second with these times."""
    timeline, silences_s = Timeline(container, neighbours or []), []
    for time_s in times_s:
        silences_s.append(timeline.silence_before(time_s))
        timeline.at_s += 1.0
    return silences_s


def test_silence_ends_within_the_stated_duration() -> None:
    assert place(Container(10**6, 10.0), [0, 1, 8, 9]) == [0, 0, 6, 0]
    assert place(Container(10**6, 8.0), [0, 1, 8.5, 9.5]) == [0, 0, 0, 0]


@pytest.mark.parametrize("duration_s", [None, 3_600.0])
def test_gap_of_less_than_an_hour_takes_no_bytes(duration_s: float | None) -> None:
    assert place(Container(10**3, duration_s), [0, 1, 8, 3_000]) == [0, 0, 6, 2_991]


def test_clock_that_is_wrong_from_some_time_on_goes_on_from_there() -> None:
    times_s = [0.0, 1.0, 9_000.0, 9_001.0, 9_010.0]
    assert place(Container(10**3, 10.0**6), times_s) == [0, 0, 0, 0, 8]
    assert place(Container(10**6, 10.0**6), times_s) == [0, 0, 8_998, 0, 8]  # a file of that size may hold them
    assert place(Container(10**3, 10.0**6), [0, 1, 9_000, 3, 10]) == [0, 0, 0, 0, 6]  # one packet was wrong


def test_refused_jumps_are_counted_once() -> None:
    timeline = Timeline(Container(10**3, None), [])
    for time_s in (0, 1, 9_000, 9_001, 9_002, 19_000):
        timeline.silence_before(time_s)
        timeline.at_s += 1.0
    assert (timeline.n_refused, timeline.longest_refused_s) == (2, 9_997.0)


def test_gap_of_hours_is_a_broken_clock_where_no_duration_is_stated() -> None:
    assert place(Container(10**9, None), [0, 1, 3_000, 1_000_000]) == [0, 0, 2_998, 0]
    days = [float(k * 3_000) for k in range(500)]
    assert sum(place(Container(10**9, None), days)) < 3_600 + len(days)


def test_many_splices_of_a_large_stream_add_no_days() -> None:
    silences_s = place(Container(10**9, None, may_splice=True), [9.0 * k for k in range(10_000)])
    assert sum(silences_s) <= 3_600 + 10_000


@pytest.mark.parametrize("to_s", [40_000.0, 30.0])
def test_splice_before_the_first_sound_that_decodes_is_no_gap(to_s: float) -> None:
    container = Container(10**9, None, zero_s=0.0, may_splice=True, first_s=2.0)
    timeline = Timeline(container, [Neighbour(0.0, 3.0)])
    assert timeline.silence_before(to_s) == 2.0
    assert (timeline.filled_s, timeline.n_refused, timeline.longest_refused_s) == (0.0, 1, to_s - 2.0)
    assert Timeline(container, [Neighbour(0.0, to_s)]).silence_before(to_s) == to_s
    back = Timeline(Container(10**9, None, zero_s=50.0, may_splice=True, first_s=52.0), [])
    assert back.silence_before(20.0) == 2.0


@pytest.mark.parametrize(("duration_s", "lead_s"), [(None, 0.0), (10.0**5, 40_000.0)])
def test_late_beginning_is_a_broken_clock_where_a_gap_would_be(duration_s: float | None, lead_s: float) -> None:
    assert place(Container(10**7, duration_s, zero_s=0.0), [40_000.0, 40_001.0]) == [lead_s, 0]


def test_what_lies_before_a_jump_does_not_count() -> None:
    other = Neighbour(50_000.0, 50_000.0)
    for time_s in (50_001.0, 90_000.0, 89_999.9, 90_002.0, 10.0, 11.0):
        other.see(time_s)
    for sound_s, zero_s in ((50_003.0, 50_000.0), (90_002.0, 89_999.9), (11.0, 10.0), (500.0, None)):
        assert find_spliced_zero(sound_s, [other]) == zero_s
    for number in range(1_000):
        other.see(100.0 * number)
    assert find_spliced_zero(90_002.0, [other]) == 89_999.9
    assert find_spliced_zero(5.0, []) is None


def test_sound_that_does_not_decode_at_its_beginning_is_a_gap() -> None:
    timeline = Timeline(Container(10**6, None, first_s=5.0), [])
    assert timeline.silence_before(8.0) == 3.0
    assert timeline.filled_s == 3.0
    late = Timeline(Container(10**6, None, zero_s=1.0, first_s=5.0), [])
    assert late.silence_before(8.0) == 7.0
    assert late.filled_s == 3.0
    assert place(Container(10**6, None, first_s=5.0), [5.05, 6.05]) == [0, 0]


@pytest.mark.parametrize("late_s", [0.0, 0.004])
def test_rounded_times_make_no_lead(late_s: float) -> None:
    assert place(Container(10**6, None, zero_s=1.0), [1.0 + late_s, 2.0 + late_s]) == [0, 0]


def test_zero_is_that_of_streams_with_the_same_clock() -> None:
    assert find_zero(5.0, [], None) is None
    assert find_zero(5.0, [Neighbour(2.0, 6.0)], None) == 2.0
    assert find_zero(5.0, [Neighbour(-0.1, 6.0)], None) == 0.0
    assert find_zero(500.0, [Neighbour(2.0, 3.0), Neighbour(499.0, 501.0)], None) == 499.0  # of another programme
    assert find_zero(500.0, [Neighbour(2.0, 3.0)], 600.0) == 2.0
