"""Sounds in rare places are where their containers say: programmes of a stream, RealMedia, DTS, TrueHD, joined FLAC."""

import io
import lzma
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pipeline.audio import sound
from pipeline.audio.decode import open_audio
from pipeline.errors import FileFailure
from tests.helpers.bursts import find_bursts, make_bursts, make_film
from tests.helpers.sounds import by_av, cut, encode, forget_total, noise, scribble

HZ = 48_000


def hear(data: bytes) -> tuple[list[float], float, str | None, str | None]:
    """When the bursts begin, the duration, why the file counts as truncated, and the note on it."""
    with open_audio(io.BytesIO(data)) as audio:
        heard = np.concatenate(list(audio.blocks()))
        return find_bursts(heard), len(heard) / HZ, audio.truncated, audio.note


# --- codecs and containers --------------------------------------------------------------------------------------------


def sample(extension: str) -> bytes:
    """A file of ``make_bursts`` that FFmpeg 5.1 made by an experimental encoder, which PyAV's build lacks."""
    return lzma.decompress((Path(__file__).parents[1] / f"data/bursts.{extension}.xz").read_bytes())


@pytest.mark.parametrize(("extension", "late_s"), [("dts", 0.011), ("thd", 0.0), ("mlp", 0.0)])
@pytest.mark.parametrize("container", [None, "mpegts", "matroska"])
def test_dts_and_truehd_are_where_they_should_be(extension: str, late_s: float, container: str | None) -> None:
    data = sample(extension)
    if container is not None and extension != "mlp":  # no container takes it
        data = make_film(container, "", None, data=data)
    bursts_s, duration_s, truncated, note = hear(data)
    assert bursts_s == pytest.approx([2.0 + late_s, 9.0 + late_s], abs=0.001)
    assert (duration_s, truncated, note) == (12.0, None, None)


def test_dts_of_a_film_in_a_transport_stream_keeps_its_place() -> None:
    bursts_s, duration_s, *_ = hear(make_film("mpegts", "", "mpeg2video", data=sample("dts"), late_s=3.0))
    assert bursts_s == pytest.approx([5.0, 12.0], abs=0.02)
    assert duration_s == pytest.approx(15.0, abs=0.001)


@pytest.mark.parametrize(("container", "codec"), [("mp4", "libopus"), ("ipod", "alac"), ("mov", "alac")])
def test_opus_and_alac_in_mp4_are_exact(container: str, codec: str) -> None:
    data = by_av(container, codec)(make_bursts(HZ, 2), HZ)
    bursts_s, duration_s, truncated, _ = hear(data)
    assert bursts_s == pytest.approx([2.0, 9.0], abs=1e-4)
    assert (duration_s, truncated) == (12.0, None)
    late, duration_s, truncated, _ = hear(make_film("mp4", "", data=data, late_s=3.0))
    assert late == pytest.approx([5.0, 12.0], abs=0.001)  # edit lists count milliseconds
    assert duration_s == pytest.approx(15.0, abs=0.001)
    assert truncated is None


def move_in_rm(data: bytes, number: int, move_s: Callable[[float], float]) -> bytes:
    """RealMedia with other times of one stream: FFmpeg writes times of its own."""
    moved, at = bytearray(data), data.index(b"DATA") + 18
    while data[at : at + 2] == b"\0\0" and at + 12 <= len(data):
        size_bytes, stream, time_ms = struct.unpack_from(">HHI", data, at + 2)
        if stream == number:
            struct.pack_into(">I", moved, at + 6, time_ms + round(1_000 * move_s(time_ms / 1_000)))
        at += size_bytes
    return bytes(moved)


def test_sound_of_realmedia_lies_where_its_packets_say() -> None:
    film = make_film("rm", "ac3", "rv10")
    assert hear(film)[0] == pytest.approx([2.0, 9.0], abs=0.03)
    bursts_s, duration_s, truncated, _ = hear(move_in_rm(film, 1, lambda time_s: 3.0))
    assert bursts_s == pytest.approx([5.0, 12.0], abs=0.03)
    assert duration_s == pytest.approx(15.0, abs=0.05)
    assert truncated is None
    bursts_s, _, truncated, _ = hear(move_in_rm(film, 1, lambda time_s: 4.0 if time_s >= 5 else 0.0))
    assert bursts_s == pytest.approx([2.0, 13.0], abs=0.03)
    assert truncated == "4.000 s are missing in the middle, and taken as silence"


def test_realmedia_of_telephone_speech_is_read() -> None:
    bursts_s, duration_s, truncated, _ = hear(by_av("rm", "real_144")(make_bursts(8_000), 8_000))
    assert bursts_s == pytest.approx([2.0, 9.0], abs=0.03)
    assert duration_s == pytest.approx(12.0, abs=0.03)
    assert truncated is None


# --- two programmes ---------------------------------------------------------------------------------------------------


def checksum(section: bytes) -> bytes:
    """Source: ISO/IEC 13818-1, annex A."""
    total = 0xFFFF_FFFF
    for byte in section:
        total ^= byte << 24
        for _ in range(8):
            total = (total << 1 ^ (0x04C1_1DB7 if total >> 31 else 0)) & 0xFFFF_FFFF
    return total.to_bytes(4)


def list_programmes(numbers: dict[int, int], counter: int) -> bytes:
    """The packet that names the programmes of a stream, and the packets that describe them."""
    body = b"".join(struct.pack(">HH", number, 0xE000 | pid) for number, pid in numbers.items())
    section = struct.pack(">BHHBBB", 0, 0xB000 | (len(body) + 9), 1, 0xC1, 0, 0) + body
    packet = bytes([0x47, 0x40, 0, 0x10 | counter & 15, 0]) + section + checksum(section)
    return packet.ljust(188, b"\xff")


PROGRAMMES = {1: 0x1000, 2: 0x1100}
SECOND = {"mpegts_service_id": "2", "mpegts_pmt_start_pid": str(0x1100), "mpegts_start_pid": str(0x200)}


def join_programmes(one: bytes, two: bytes) -> bytes:
    """A stream of two programmes; the second one was written with the options ``SECOND``."""

    def packets(data: bytes) -> list[tuple[int, bytes]]:
        cut = [data[at : at + 188] for at in range(0, len(data), 188)]
        return [((packet[1] & 31) << 8 | packet[2], packet) for packet in cut]

    first = [list_programmes(PROGRAMMES, data[3]) if pid == 0 else data for pid, data in packets(one)]
    second = [data for pid, data in packets(two) if pid not in (0, 17)]
    places = [(k / len(some), data) for some in (first, second) for k, data in enumerate(some)]
    return b"".join(data for _, data in sorted(places, key=lambda place: place[0]))


SILENCE = by_av("matroska", "aac", 64_000)(np.zeros((12 * HZ, 2), np.float32), HZ)


@pytest.mark.parametrize("clock_s", [0.0, 3_600.0])
@pytest.mark.parametrize("late_s", [0.0, 3.0])
@pytest.mark.parametrize("is_first", [True, False])
def test_programme_with_sound_is_read_by_its_own_clock(clock_s: float, late_s: float, is_first: bool) -> None:
    def make(data: bytes | None, begin_s: float, options: dict[str, str], at_s: float) -> bytes:
        moves = {"move_s": lambda time_s: at_s, "move_video_s": lambda time_s: at_s}
        return make_film("mpegts", "aac", "mpeg2video", data=data, late_s=begin_s, options=options, **moves)  # type: ignore[arg-type]

    heard, silent = (None, late_s), (SILENCE, 0.0)
    first, second = (heard, silent) if is_first else (silent, heard)
    one = make(first[0], first[1], {}, 0.0)
    two = make(second[0], second[1], SECOND, clock_s)
    bursts_s, _, truncated, note = hear(join_programmes(one, two))
    assert bursts_s == pytest.approx([2.0 + late_s, 9.0 + late_s], abs=0.03)
    assert truncated is None
    assert note is not None
    assert note.startswith("it has 2 sound tracks; number ")


# --- joined FLAC ------------------------------------------------------------------------------------------------------

STEREO, MONO = encode("flac", make_bursts(HZ, 2), HZ), encode("flac", make_bursts(44_100), 44_100)


def hear_both(data: bytes) -> tuple[list[float], float, str | None]:
    """When the bursts of both halves begin, the duration, and why the file counts as truncated."""
    with open_audio(io.BytesIO(data)) as audio:
        heard = np.concatenate(list(audio.blocks()))
        return find_bursts(heard[: 12 * HZ]) + find_bursts(heard[12 * HZ :]), len(heard) / HZ, audio.truncated


@pytest.mark.parametrize(
    "links",
    [
        [STEREO, STEREO],
        [STEREO, MONO],
        [MONO, STEREO],
        [forget_total(STEREO), MONO],
        [forget_total(STEREO), forget_total(MONO)],
        [b"ID3\x04\0\0\0\0\0\x0a" + bytes(10) + STEREO, MONO],
    ],
)
def test_flac_files_that_were_joined_are_read_one_by_one(links: list[bytes]) -> None:
    bursts_s, duration_s, truncated = hear_both(b"".join(links))
    assert bursts_s == pytest.approx([2.0, 9.0, 2.0, 9.0], abs=0.001)
    assert (duration_s, truncated) == (24.0, None)


@pytest.mark.parametrize(
    ("links", "truncated"),
    [
        ([scribble(STEREO, 0.5, 0.55), MONO], "s are missing in the middle"),
        ([MONO, scribble(STEREO, 0.5, 0.55)], "s are missing in the middle"),
        ([STEREO, cut(MONO)], "s are missing of what is joined to it"),
        ([STEREO, STEREO[:42] + bytes(5_000)], "12.000 s are missing of what is joined to it"),
    ],
)
def test_damage_of_any_joined_flac_is_told(links: list[bytes], truncated: str) -> None:
    with open_audio(io.BytesIO(b"".join(links))) as audio:
        heard = np.concatenate(list(audio.blocks()))
        found = audio.truncated
    assert pytest.approx(2.0, abs=0.001) in find_bursts(heard[: 12 * HZ])
    assert found is not None
    assert truncated in found


def test_range_of_joined_flac_is_read() -> None:
    for first_s, stop_s in ((13, 17), (8, 17)):
        with open_audio(io.BytesIO(STEREO + MONO)) as audio:
            heard = np.concatenate(list(audio.blocks(first_s * HZ, stop_s * HZ)))
        assert len(heard) == (stop_s - first_s) * HZ
        assert 14.0 - first_s in [pytest.approx(begin_s, abs=0.001) for begin_s in find_bursts(heard)]
    with open_audio(io.BytesIO(STEREO + MONO)) as audio, pytest.raises(FileFailure, match="out_of_range"):
        list(audio.blocks(30 * HZ, 31 * HZ))


def test_hundreds_of_joined_flac_files_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    link, n_links = encode("flac", noise(0.01, HZ), HZ), 700
    with open_audio(io.BytesIO(link * n_links)) as audio:
        assert sum(map(len, audio.blocks())) == n_links * 480
        assert audio.truncated is None
    monkeypatch.setattr(sound, "MOST_JOINED", 3)
    with open_audio(io.BytesIO(link * 5)) as audio:
        assert sum(map(len, audio.blocks())) == 4 * 480
        assert audio.truncated == "only 3 of the FLAC files that are joined to it are read"
    with open_audio(io.BytesIO(link * 4)) as audio:
        assert sum(map(len, audio.blocks())) == 4 * 480
        assert audio.truncated is None


# --- damage without times ---------------------------------------------------------------------------------------------

NOISE = noise(12.0, HZ, 2)
UNTIMED = {name: encode(name, NOISE, HZ) for name in ("aac_adts", "mp3_no_xing", "ac3")}
UNTIMED |= {"eac3": by_av("eac3", "eac3")(NOISE, HZ), "dts": sample("dts"), "thd": sample("thd")}


@pytest.mark.parametrize("name", UNTIMED)
@pytest.mark.parametrize("junk", ["zeros", "noise"])
def test_damage_is_told_where_packets_have_no_times(name: str, junk: str) -> None:
    data = UNTIMED[name]
    begin, stop = round(0.4 * len(data)), round(0.45 * len(data))
    filler = bytes(stop - begin) if junk == "zeros" else np.random.default_rng(1).bytes(stop - begin)
    assert hear(data)[2] is None
    truncated = hear(data[:begin] + filler + data[stop:])[2]
    assert truncated is not None
    assert truncated.endswith("bytes of the sound do not decode") or "packets cannot be decoded" in truncated
