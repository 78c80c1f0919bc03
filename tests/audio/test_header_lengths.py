"""Despite wrong sizes in headers, all samples are read, and missing ones are reported."""

import io
import os
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.bench.hostile_sounds import with_cover
from pipeline.audio.decode import open_audio
from pipeline.audio.header_lengths import View
from pipeline.audio.source import Bytes
from pipeline.config import DecodeConfig
from pipeline.errors import FileFailure
from pipeline.grid import Waveform
from pipeline.run.split_stage import split_batch
from tests.helpers.fakes import GRID
from tests.helpers.sounds import FORMATS, by_av, by_soundfile, claim_bytes, cut, encode, noise, patch, tone

HZ = 48_000
HOURS = 12
LIST = b"LIST" + struct.pack("<I", 400) + b"INFO" + bytes(396)
HUGE = {"unknown": 0xFFFF_FFFF, "signed": 0x7FFF_FFFF, "crashed": 0}


def decode(data: bytes) -> tuple[Waveform, str | None]:
    with open_audio(io.BytesIO(data)) as audio:
        heard = np.concatenate(list(audio.blocks()))
        return heard, audio.truncated


def second(path: Path, at_s: int) -> Waveform:
    with open_audio(path) as audio:
        heard = np.concatenate(list(audio.blocks(at_s * HZ, (at_s + 1) * HZ)))
        assert audio.truncated is None
        return heard


def write_sparse(path: Path, header: bytes, size_bytes: int, sounds: dict[int, bytes], behind: bytes = b"") -> None:
    """A sparse file of zeros, with ``sounds`` at some places."""
    with path.open("wb") as file:
        file.write(header)
        for at, sound in sounds.items():
            file.seek(len(header) + at)
            file.write(sound)
        file.seek(len(header) + size_bytes)
        file.write(behind)
        file.truncate()


def make_header(subtype: str, channels: int, size_bytes: int) -> bytes:
    data = by_soundfile("WAV", subtype)(np.zeros((1, channels), np.float32), HZ)
    at = data.index(b"data") + 4
    return patch(data, at, "<I", size_bytes)[: at + 4]


# --- wav of more than 4 GiB -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("behind", [b"", LIST])
@pytest.mark.parametrize("claim", ["wrapped", *HUGE])
@pytest.mark.parametrize(("subtype", "channels"), [("PCM_16", 2), ("PCM_24", 2), ("FLOAT", 1)])
def test_wav_of_more_than_4_gib_is_read_whole(
    tmp_path: Path, subtype: str, channels: int, claim: str, behind: bytes
) -> None:
    sample_bytes = channels * {"PCM_16": 2, "PCM_24": 3, "FLOAT": 4}[subtype]
    size_bytes = HOURS * 3_600 * HZ * sample_bytes
    assert size_bytes > 1 << 32
    # Also around where 32 bits end, and in the last second.
    places_s = [0, 3_600, (1 << 31) // (HZ * sample_bytes), (1 << 32) // (HZ * sample_bytes), HOURS * 3_600 - 1]
    sound = noise(1.0, HZ, channels)
    header = make_header(subtype, channels, HUGE.get(claim, size_bytes % (1 << 32)))
    encoded = by_soundfile("WAV", subtype)(sound, HZ)[len(header) :][: HZ * sample_bytes]
    path = tmp_path / "long.wav"
    write_sparse(path, header, size_bytes, {at * HZ * sample_bytes: encoded for at in places_s}, behind)
    expected, _ = decode(by_soundfile("WAV", subtype)(sound, HZ))
    for at_s in places_s:
        assert np.array_equal(second(path, at_s), expected)
    assert not second(path, 1).any()
    with open_audio(path) as audio:
        assert audio.n_samples is not None
        # Without a size, the bytes behind the samples are taken for samples.
        assert 0 <= audio.n_samples - HOURS * 3_600 * HZ <= (0 if claim == "wrapped" else len(behind) / sample_bytes)
        assert audio.info.expected_duration_s == (HOURS * 3_600 if claim == "wrapped" else None)
        assert audio.ends_as_promised()


@pytest.mark.parametrize("claim", ["wrapped", *HUGE])
def test_wav_of_more_than_4_gib_is_split_into_parts(tmp_path: Path, claim: str) -> None:
    path, size_bytes = tmp_path / "long.wav", HOURS * 3_600 * HZ * 4
    header = make_header("PCM_16", 2, HUGE.get(claim, size_bytes % (1 << 32)))
    write_sparse(path, header, size_bytes, {})
    audio = {"uris": [str(path)], "modified_ns": [0], "size_bytes": size_bytes, "content_hash": "0" * 64}
    audio["estimated_s"] = HOURS * 3_600.0
    parts = split_batch({"batch_id": "b", "audios": [audio]}, DecodeConfig(), GRID)
    assert len(parts) >= HOURS * 6


@pytest.mark.parametrize("container", ["RF64", "W64", "BW64"])
def test_sizes_of_64_bits_are_believed(tmp_path: Path, container: str) -> None:
    """The header promises more than 4 GiB, and the file has more than 2."""
    data = by_soundfile(container.replace("BW64", "RF64"), "PCM_16")(noise(1.0, HZ, 2), HZ)
    data = container.encode() + data[4:] if container == "BW64" else data
    size_bytes, rest = HOURS * 3_600 * HZ * 4, data[-HZ * 4 :]
    header = data[: -HZ * 4]
    if container == "W64":
        header = patch(patch(header, 16, "<Q", len(header) + size_bytes), len(header) - 8, "<Q", size_bytes + 24)
    else:
        header = patch(patch(header, 20, "<Q", len(header) + size_bytes - 8), 28, "<Q", size_bytes)
    path = tmp_path / "long.wav"
    for there in (1.0, 0.3):
        last_s = int(there * HOURS * 3_600) - 1
        write_sparse(path, header, (last_s + 1) * HZ * 4, {last_s * HZ * 4: rest})
        with open_audio(path) as audio:
            assert audio.n_samples == (last_s + 1) * HZ
            assert audio.info.expected_duration_s == pytest.approx(HOURS * 3_600, abs=0.1)
            assert audio.ends_as_promised()
        assert np.array_equal(second(path, last_s), decode(data)[0])


@pytest.mark.parametrize(("claimed", "there"), [(3 << 30, 1 << 30), (3 << 30, 5 << 29), (5 << 30, 9 << 29)])
def test_a_long_wav_that_is_cut_off_promises_more(tmp_path: Path, claimed: int, there: int) -> None:
    """At 1 GiB and 2.5 GiB of 3, and at 4.5 GiB of 5, which the header calls 1."""
    path = tmp_path / "long.wav"
    write_sparse(path, make_header("PCM_16", 2, claimed % (1 << 32)), there, {})
    with open_audio(path) as audio:
        assert audio.n_samples == there // 4
        assert audio.info.expected_duration_s == pytest.approx(claimed / (4 * HZ))


def test_a_long_aiff_says_that_it_goes_on(tmp_path: Path) -> None:
    """No header would let libsndfile find the rest."""
    header = by_soundfile("AIFF", "PCM_16")(np.zeros((0, 2), np.float32), HZ)
    size_bytes = HOURS * 3_600 * HZ * 4
    at = header.index(b"SSND") + 4
    header = patch(patch(header, 4, ">I", size_bytes % (1 << 32)), at, ">I", (size_bytes + 8) % (1 << 32))
    header = patch(header, header.index(b"COMM") + 10, ">I", HOURS * 3_600 * HZ)
    write_sparse(tmp_path / "long.aiff", header, size_bytes, {})
    with open_audio(tmp_path / "long.aiff") as audio:
        assert audio.n_samples is not None
        assert audio.n_samples < HOURS * 3_600 * HZ
        assert audio.info.expected_duration_s == pytest.approx(HOURS * 3_600, abs=0.1)


# --- chunks behind the samples ----------------------------------------------------------------------------------------

WAV = encode("wav_s16", noise(2.0, HZ, 2), HZ)
BEHIND = {
    "nothing": b"",
    "a chunk": LIST,
    "some chunks": LIST + b"id3 " + struct.pack("<I", 3) + b"abc\0" + b"bext" + struct.pack("<I", 8) + b"\1" * 8,
    "an unknown chunk": b"x-1 " + struct.pack("<I", 100_000) + b"\1" * 100_000,
    "a chunk that is cut off": b"iXML" + struct.pack("<I", 200_000) + b"\1" * 100_000,
    "a tag": b"ID3\x04\0\0\0\0\x7f\x7f" + b"\1" * 100_000,
    "padding": bytes(100_000),
    "chunks and padding": LIST + bytes(100_000),
    "a few bytes": b"\1" * 7,
}


@pytest.mark.parametrize("behind", BEHIND)
def test_chunks_cut_off_behind_the_samples_are_no_truncation(behind: str) -> None:
    heard, truncated = decode(WAV + BEHIND[behind])
    assert truncated is None
    assert np.array_equal(heard, decode(WAV)[0])


@pytest.mark.parametrize("name", ["wav_s16", "aiff"])
@pytest.mark.parametrize("pad", [b"", b"\0"])
def test_chunk_of_odd_size_may_lack_its_padding(name: str, pad: bytes) -> None:
    data = encode(name, noise(2.0, HZ), HZ)
    order = ">I" if name == "aiff" else "<I"
    odd = (b"ANNO" if name == "aiff" else b"iXML") + struct.pack(order, 5_001) + b"x" * 5_001 + pad
    heard, truncated = decode(data + odd + b"LIST" + struct.pack(order, 4_000) + bytes(4_000))
    assert truncated is None
    assert np.array_equal(heard, decode(data)[0])


def test_aiff_of_unknown_size_is_read_to_its_end() -> None:
    data = encode("aiff", noise(2.0, HZ), HZ)
    at = data.index(b"SSND") + 4
    heard, truncated = decode(patch(data, at, ">I", 0))
    assert truncated is None
    assert len(heard) == len(decode(data)[0])


@pytest.mark.parametrize("subtype", ["IMA_ADPCM", "MS_ADPCM", "GSM610"])
def test_compressed_samples_are_read_by_their_own_header(subtype: str) -> None:
    """In parts, too. The note that the file goes on behind them is that of other files."""
    data = by_soundfile("WAV", subtype)(noise(2.0, HZ), HZ)
    with open_audio(io.BytesIO(data + b"\1" * 9_000)) as audio:
        whole = np.concatenate(list(audio.blocks()))
        assert audio.n_samples is not None
        assert audio.truncated is not None
    assert np.array_equal(whole, decode(data)[0])


def test_samples_of_odd_size_may_lack_their_padding() -> None:
    odd = encode("wav_u8", noise(2.0, HZ)[:-1], HZ).removesuffix(b"\0")
    odd = claim_bytes(odd[: 44 + 2 * HZ - 1], 2 * HZ - 1)
    for pad in (b"", b"\0"):
        heard, truncated = decode(odd + pad + LIST * 20)
        assert (len(heard), truncated) == (2 * HZ - 1, None)


@pytest.mark.parametrize("magic", [b"RIFF", b"RF64"])
@pytest.mark.parametrize(
    "behind",
    [
        noise(1.0, HZ).tobytes(),
        WAV,
        bytes(2 << 20),
        b"data" + struct.pack("<I", 8),
        b"like the name of a chunk " * 9_000,
    ],
)
def test_bytes_behind_the_samples_that_belong_to_no_chunk_count_as_missing(magic: bytes, behind: bytes) -> None:
    """A stale header of a crashed recorder, a file glued to another, a second chunk of samples."""
    data = WAV if magic == b"RIFF" else encode("rf64", noise(2.0, HZ, 2), HZ)
    behind = behind.ljust(20_000, b"\1")
    heard, truncated = decode(data + behind)
    assert np.array_equal(heard, decode(WAV)[0])
    expected_s = 2 + len(behind) / (4 * HZ)
    said = "the file goes on, but its header ends the sound there"
    assert truncated == f"2.000 s decoded of {expected_s:.3f} s: {said}"


@pytest.mark.parametrize("size", [0, 0x7FFF_F000, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFDB, 0xFFFF_FFFF])
@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("name", ["wav_u8", "wav_s16", "wav_s24", "wav_f64"])
def test_unknown_size_promises_nothing(name: str, channels: int, size: int) -> None:
    data = encode(name, noise(2.0, HZ, channels), HZ)
    at = data.index(b"data") + 4
    with open_audio(io.BytesIO(patch(data, at, "<I", size))) as audio:
        assert audio.n_samples is not None
        assert audio.info.expected_duration_s is None
        heard = np.concatenate(list(audio.blocks()))
        assert audio.truncated is None
    whole = decode(data)[0]
    assert np.array_equal(heard[: len(whole)], whole)
    assert len(heard) - len(whole) <= 20  # of a chunk PEAK that libsndfile puts behind, at most


@pytest.mark.parametrize("size", [0, (1 << 63) - 1, (1 << 64) - 1])
@pytest.mark.parametrize("magic", [b"RF64", b"BW64"])
def test_unknown_size_of_64_bits_promises_nothing(magic: bytes, size: int) -> None:
    data = magic + encode("rf64", noise(2.0, HZ, 2), HZ)[4:]
    heard, truncated = decode(patch(patch(data, 20, "<Q", size), 28, "<Q", size))
    assert np.array_equal(heard, decode(WAV)[0])
    assert truncated is None


def test_silence_after_a_crash_is_not_taken_for_padding() -> None:
    heard, truncated = decode(claim_bytes(encode("wav_s16", np.zeros((HZ, 2), np.float32), HZ), 0))
    assert (len(heard), truncated) == (HZ, None)


def test_an_empty_wav_is_empty_whatever_follows() -> None:
    with pytest.raises(FileFailure, match="too_short: a header without samples"):
        decode(claim_bytes(WAV[:44], 0) + LIST * 100)


@given(
    st.binary(max_size=50),
    st.binary(max_size=20),
    st.integers(0, 20),
    st.integers(0, 40),
    st.lists(st.tuples(st.integers(-5, 90), st.integers(0, 2), st.integers(-1, 70)), max_size=8),
)
def test_view_reads_its_header_and_then_its_part_of_the_file(
    data: bytes, head: bytes, begin: int, size: int, steps: list[tuple[int, int, int]]
) -> None:
    part = data[begin : begin + size]
    view = View(Bytes(io.BytesIO(data), may_be_empty=True), begin, len(part), head)
    file = io.BytesIO(head + part)
    for offset, whence, count in steps:
        if file.tell() * (whence == os.SEEK_CUR) + len(head + part) * (whence == os.SEEK_END) + offset >= 0:
            assert view.seek(offset, whence) == file.seek(offset, whence)
        else:
            assert view.seek(offset, whence) == -1
        assert view.read(count) == file.read(count)
        assert view.tell() == file.tell()


# --- truncated files --------------------------------------------------------------------------------------------------

FRAGMENTS = {"movflags": "frag_keyframe+empty_moov+default_base_moof", "frag_duration": "500000"}


@pytest.mark.parametrize("flags", ["frag_keyframe", "frag_keyframe+empty_moov+default_base_moof", "dash"])
def test_a_fragmented_mp4_is_read_up_to_where_it_is_cut_off(flags: str) -> None:
    options = {**FRAGMENTS, "movflags": flags}
    data = by_av("mp4", "aac", 128_000, container_options=options)(tone(8.0, HZ, 440.0), HZ)
    whole, truncated = decode(data)
    assert truncated is None
    index = data.rindex(b"mfra") - 4
    assert decode(data[:index])[1] is None  # many writers omit the index
    last_fragment = data.rindex(b"moof", 0, index) - 4
    # Fewer bytes than the header of a box prove nothing.
    stops = [*range(len(data) // 3, index, 7_919), *range(last_fragment + 8, last_fragment + 200, 13)]
    for stop in stops:
        heard, truncated = decode(data[:stop])
        assert truncated is not None
        assert 0.9 * stop / len(data) - 0.6 / 8 < len(heard) / len(whole) < 1.1 * stop / len(data)
        n_same = len(heard) - HZ // 10
        assert np.array_equal(heard[:n_same], whole[:n_same])


@pytest.mark.parametrize("behind", [bytes(3), b"\r\n", bytes(100), b"TAG" + b" a title".ljust(125)])
def test_data_appended_to_a_fragmented_mp4_is_no_truncation(behind: bytes) -> None:
    data = by_av("mp4", "aac", 128_000, container_options=FRAGMENTS)(tone(2.0, HZ, 440.0), HZ)
    heard, truncated = decode(data + behind)
    assert truncated is None
    assert np.array_equal(heard, decode(data)[0])


def test_boxes_of_64_bits_are_walked() -> None:
    data = by_av("mp4", "aac", 128_000, container_options=FRAGMENTS)(tone(8.0, HZ, 440.0), HZ)
    at = data.index(b"moov") - 4
    wide = data[:at] + struct.pack(">I4sQ", 1, b"free", 24) + bytes(8) + data[at:]
    assert np.array_equal(decode(wide)[0], decode(data)[0])
    assert decode(cut(wide, 0.7))[1] is not None


def test_mp4_with_an_index_counts_as_whole() -> None:
    data = encode("m4a_faststart", noise(2.0, HZ), HZ)
    at = data.index(b"mdat") - 4
    heard, truncated = decode(patch(data, at, ">I", len(data) - at + 1_000))
    assert truncated is None
    assert np.array_equal(heard, decode(data)[0])


def test_cut_off_caf_is_truncated() -> None:
    data = encode("caf", noise(8.0, HZ), HZ)
    heard, truncated = decode(cut(data, 0.6))
    assert len(heard) == pytest.approx(4.8 * HZ, rel=0.01)
    assert truncated == "cut off before the end of its samples"
    heard, truncated = decode(patch(data, data.index(b"data") + 4, ">q", -1))  # to the end of the file
    assert (len(heard), truncated) == (8 * HZ, None)


# --- headers that libsndfile cannot read ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["wav_s16", "wav_big_endian", "wav_f32", "aiff", "rf64"])
def test_chunk_of_odd_size_before_the_samples_may_lack_its_padding(name: str) -> None:
    data = encode(name, noise(2.0, HZ, 2), HZ)
    order = ">I" if name in ("aiff", "wav_big_endian") else "<I"
    at = data.index(b"COMM" if name == "aiff" else b"fmt ")
    odd = b"LIST" + struct.pack(order, 5) + b"odd!!"
    for chunk in (odd, odd + b"\0"):
        with open_audio(io.BytesIO(data[:at] + chunk + chunk + data[at:])) as audio:
            assert audio.info.codec == FORMATS[name].codec
            if chunk == odd or name != "rf64":  # libsndfile does not know padding there
                assert audio.n_samples == 2 * HZ
            heard = np.concatenate(list(audio.blocks()))
            assert audio.truncated is None
        assert np.array_equal(heard, decode(data)[0])


@pytest.mark.parametrize("name", ["wav_s16", "aiff", "flac", "wav_u8"])
def test_tag_before_the_header_is_skipped(name: str) -> None:
    data = encode(name, noise(2.0, HZ, 2), HZ)
    with open_audio(io.BytesIO(with_cover(data, 1_000))) as audio:
        assert audio.info.codec == FORMATS[name].codec
        assert audio.n_samples == 2 * HZ
        assert np.array_equal(np.concatenate(list(audio.blocks(HZ))), decode(data)[0][HZ:])
        assert audio.truncated is None


@pytest.mark.parametrize("subtype", ["IMA_ADPCM", "MS_ADPCM", "GSM610"])
def test_compressed_wav_ends_where_its_fact_chunk_says(subtype: str) -> None:
    hz = 8_000
    data = by_soundfile("WAV", subtype)(noise(12.0, hz), hz)
    at = data.index(b"fact") + 8
    n_whole = len(decode(patch(data, at, "<I", 0))[0]) * hz // HZ  # of blocks that are filled up
    for counted, n_samples in ((n_whole - 90, n_whole - 90), (n_whole, n_whole), (n_whole + 9, n_whole), (10, n_whole)):
        with open_audio(io.BytesIO(patch(data, at, "<I", counted))) as audio:
            assert audio.n_samples == round(n_samples * HZ / hz)
            assert audio.info.expected_duration_s == pytest.approx(n_samples / hz)
            heard = np.concatenate(list(audio.blocks()))
            assert audio.truncated is None
        assert len(heard) == n_samples * HZ // hz
    with open_audio(io.BytesIO(cut(data))) as audio:
        assert len(np.concatenate(list(audio.blocks()))) < 6.1 * HZ
        assert audio.truncated is not None
