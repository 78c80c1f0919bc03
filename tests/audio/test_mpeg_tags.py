"""Tags before and behind the frames of an mp3 are no sound, and the header in its first frame states its duration."""

import io
import struct

import numpy as np
import pytest

from jobs.bench.hostile_sounds import with_cover
from pipeline.audio.decode import open_audio
from pipeline.audio.mpeg_tags import find_frames_end, find_tag_end, read_mp3_duration, skip_tags
from pipeline.audio.source import Bytes
from tests.helpers.bursts import find_bursts, make_bursts
from tests.helpers.decoding import decode_all
from tests.helpers.sounds import encode, tone

HZ = 48_000
WITHOUT_LENGTH = ["mp3_no_xing", "mp3_vbr_no_xing"]


def open_bytes(data: bytes) -> Bytes:
    return Bytes(io.BytesIO(data))


def make_id3(size: int = 200_000) -> bytes:
    """A tag with a picture that contains what looks like frames."""
    return with_cover(b"", 0)[:10][:6] + _synchsafe(size) + np.random.default_rng(3).bytes(size)


def _synchsafe(size: int) -> bytes:
    return bytes(size >> shift & 0x7F for shift in (21, 14, 7, 0))


def make_footed_id3(size: int = 5_000) -> bytes:
    tag = b"\x04\0\x10" + _synchsafe(size)
    return b"ID3" + tag + bytes(size) + b"3DI" + tag


def make_ape(size: int = 20_000, with_header: bool = True) -> bytes:
    value = b"cover.jpg\0" + np.random.default_rng(1).bytes(size)
    item = struct.pack("<II", len(value), 2) + b"Cover Art (Front)\0" + value
    version, flags = (2_000, 0x8000_0000) if with_header else (1_000, 0)
    footer = b"APETAGEX" + struct.pack("<IIII", version, len(item) + 32, 1, flags) + bytes(8)
    header = b"APETAGEX" + struct.pack("<IIII", version, len(item) + 32, 1, flags | 0x2000_0000) + bytes(8)
    return (header if with_header else b"") + item + footer


OLD = b"TAG" + b"x" * 125
LYRICS = b"LYRICSBEGIN" + b"IND0000200" + b"000021LYRICS200"
TAGS = {
    "ID3v1": OLD,
    "ID3v2": make_id3(),
    "ID3v2 with a footer": make_footed_id3(),
    "APEv2": make_ape(),
    "APEv1": make_ape(with_header=False),
    "Lyrics3": LYRICS + OLD,
    "all": make_id3() + make_ape() + LYRICS + OLD,
}


@pytest.mark.parametrize("name", ["mp3", "mp3_no_xing", "aac_adts"])
@pytest.mark.parametrize("tag", TAGS)
def test_tag_behind_the_last_frame_is_no_sound(name: str, tag: str) -> None:
    data = encode(name, make_bursts(HZ), HZ)
    with open_audio(io.BytesIO(data + TAGS[tag])) as audio:
        heard = np.concatenate(list(audio.blocks()))
        assert audio.truncated is None
    assert np.array_equal(heard, decode_all(io.BytesIO(data))[0])
    if name == "mp3":
        assert len(heard) == 12 * HZ
        assert find_bursts(heard) == pytest.approx([2.0, 9.0], abs=0.001)


def test_tag_between_two_sounds_is_no_sound() -> None:
    data = encode("mp3_no_xing", make_bursts(HZ), HZ)
    with open_audio(io.BytesIO(data + make_id3() + data)) as audio:
        heard = np.concatenate(list(audio.blocks()))
        assert audio.truncated is None
    assert np.array_equal(heard, decode_all(io.BytesIO(data + data))[0])


@pytest.mark.parametrize("tag", TAGS)
def test_frames_end_where_the_tags_begin(tag: str) -> None:
    frames = b"\xff\xfb" + bytes(3_000)
    found = find_frames_end(open_bytes(frames + TAGS[tag]))
    behind = len(TAGS["ID3v2"]) if tag in ("ID3v2", "all") else 0  # it can be read from its beginning only
    assert found == len(frames) + behind
    assert find_frames_end(open_bytes(frames)) == len(frames)
    wav = b"RIFF" + bytes(3_000) + TAGS[tag]
    assert find_frames_end(open_bytes(wav)) == len(wav)


@pytest.mark.parametrize("size", [0xFFFF_FFFF, 10_000, 0])
def test_tag_with_an_absurd_size_is_none(size: int) -> None:
    footer = b"APETAGEX" + struct.pack("<IIII", 2_000, size, 1, 0) + bytes(8)
    assert find_frames_end(open_bytes(b"\xff\xfb" + bytes(3_000) + footer)) == 3_034


@pytest.mark.parametrize("wrong", [-40_000, -1, 1, 40_000])
@pytest.mark.parametrize("tag", ["ID3v2 with a footer", "APEv2", "APEv1", "Lyrics3"])
def test_tag_whose_size_is_wrong_cuts_off_no_sound(tag: str, wrong: int) -> None:
    """Less than the size of the file, and more or less than that of the tag."""
    data = TAGS[tag].removesuffix(OLD)
    if tag == "Lyrics3":
        data = data[:-15] + f"{len(data) - 15 + wrong:06d}".encode()[-6:] + data[-9:]
    elif tag.startswith("APE"):
        size = int.from_bytes(data[-20:-16], "little") + wrong
        data = data[:-20] + (size & 0xFFFF_FFFF).to_bytes(4, "little") + data[-16:]
    else:
        data = data[:-4] + _synchsafe(max(0, len(data) - 20 + wrong))
    frames = b"\xff\xfb" + bytes(100_000)
    assert find_frames_end(open_bytes(frames + data)) == len(frames) + len(data)


def test_tags_at_the_beginning_are_skipped() -> None:
    tags = make_id3(100) + make_footed_id3(50)
    assert skip_tags(open_bytes(tags + b"RIFF")) == len(tags)
    assert skip_tags(open_bytes(b"RIFF")) == 0
    assert find_tag_end(open_bytes(b"ID3\x04\0\0\xff\0\0\0" + bytes(50)), 0) == 0


@pytest.mark.parametrize("name", ["mp3", *WITHOUT_LENGTH])
def test_duration_of_an_mp3_is_that_of_its_xing_header(name: str) -> None:
    found = read_mp3_duration(open_bytes(encode(name, tone(1.0, HZ), HZ)))
    assert found is None if name in WITHOUT_LENGTH else found == pytest.approx(1.0, abs=1e-3)
