"""FFmpeg reads pieces at the file's own rate, and says what is wrong with a damaged file."""

import io
from pathlib import Path

import av
import numpy as np
import pytest

from jobs.bench.hostile_sounds import make_png
from pipeline.audio.av_reader import AvReader
from pipeline.audio.decode import open_audio
from pipeline.audio.source import Bytes
from pipeline.errors import FileFailure
from tests.helpers.bursts import find_bursts, make_bursts, make_film
from tests.helpers.sounds import by_av, cut, encode, noise, scribble

HZ = 44_100


@pytest.mark.parametrize(("name", "codec"), [("mp3", "mp3"), ("m4a", "aac"), ("ogg_vorbis", "vorbis")])
def test_header_and_pieces_agree(name: str, codec: str) -> None:
    reader = AvReader(Bytes(io.BytesIO(encode(name, noise(5.0, HZ, 2), HZ))))
    assert (reader.info.codec, reader.info.sample_rate_hz, reader.info.channels) == (codec, HZ, 2)
    assert reader.info.expected_duration_s == pytest.approx(5.0, abs=0.05)
    pieces = list(reader.pieces())
    assert sum(len(mono) for _, mono in pieces) == pytest.approx(5 * HZ, abs=1_152)
    assert max(len(mono) for _, mono in pieces) < 2.1 * HZ
    assert reader.trouble is None
    reader.close()


def test_cut_off_ogg_page_is_trouble() -> None:
    reader = AvReader(Bytes(io.BytesIO(cut(encode("ogg_vorbis", noise(5.0, HZ), HZ), 0.6))))
    assert reader.trouble == "the last Ogg page is cut off"
    reader.close()


def test_bytes_that_no_decoder_recognises_are_not_audio() -> None:
    with pytest.raises(FileFailure, match="not_audio"):
        AvReader(Bytes(io.BytesIO(b"no audio " * 100)))


@pytest.mark.parametrize(
    ("container", "codec", "rate_hz", "name"),
    [
        ("wav", "g722", 16_000, "adpcm_g722"),
        ("wav", "flac", HZ, "flac"),
        ("avi", "flac", HZ, "flac"),
        ("mpegts", "ac3", 48_000, "ac3"),
    ],
)
def test_codec_tag_may_be_any_bytes(container: str, codec: str, rate_hz: int, name: str) -> None:
    reader = AvReader(Bytes(io.BytesIO(by_av(container, codec)(make_bursts(rate_hz), rate_hz))))
    assert reader.info.codec == name
    pieces = list(reader.pieces())
    assert sum(len(mono) for _, mono in pieces) == pytest.approx(12 * rate_hz, abs=1)
    assert reader.trouble is None
    reader.close()


# --- the promised duration --------------------------------------------------------------------------------------------


def shift_ogg(data: bytes, by_samples: int) -> bytes:
    """An Ogg file that begins later, as the recording of a broadcast does."""
    pages, at = [], 0
    while at < len(data):
        n_segments = data[at + 26]
        stop = at + 27 + n_segments + sum(data[at + 27 : at + 27 + n_segments])
        granule = int.from_bytes(data[at + 6 : at + 14], "little")
        granule += by_samples if granule else 0
        page = (
            data[at : at + 6]
            + granule.to_bytes(8, "little")
            + data[at + 14 : at + 22]
            + bytes(4)
            + data[at + 26 : stop]
        )
        pages.append(page[:22] + checksum(page).to_bytes(4, "little") + page[26:])
        at = stop
    return b"".join(pages)


def checksum(page: bytes) -> int:
    """That of an Ogg page (RFC 3533, section 6)."""
    total = 0
    for byte in page:
        total ^= byte << 24
        for _ in range(8):
            total = (total << 1 ^ (0x04C1_1DB7 if total & 0x8000_0000 else 0)) & 0xFFFF_FFFF
    return total


@pytest.mark.parametrize("name", ["ogg_opus", "ogg_vorbis"])
def test_ogg_that_begins_at_one_hour_promises_no_hour(name: str) -> None:
    data = encode(name, make_bursts(48_000), 48_000)
    with open_audio(io.BytesIO(shift_ogg(data, 3_600 * 48_000))) as audio:
        assert audio.info.expected_duration_s == pytest.approx(12.0, abs=0.005)
        heard = np.concatenate(list(audio.blocks()))
        assert audio.truncated is None
    assert len(heard) == 12 * 48_000
    assert find_bursts(heard) == pytest.approx([2.0, 9.0], abs=0.001)


@pytest.mark.parametrize("container", ["avi", "caf"])
def test_last_block_of_lossless_sound_may_be_short(container: str) -> None:
    codec = "flac" if container == "avi" else "alac"
    with open_audio(io.BytesIO(by_av(container, codec)(make_bursts(48_000, 2), 48_000))) as audio:
        assert sum(map(len, audio.blocks())) == 12 * 48_000
        assert audio.truncated is None


def box(name: bytes, *content: bytes) -> bytes:
    body = b"".join(content)
    return (8 + len(body)).to_bytes(4) + name + body


def with_gapless_tag(m4a: bytes, delay: int, n_samples: int) -> bytes:
    """An m4a with the tag by which iTunes states the delay of its encoder."""
    text = f" 00000000 {delay:08X} 00000200 {n_samples:016X}" + 8 * " 00000000"
    names = box(b"mean", bytes(4), b"com.apple.iTunes"), box(b"name", bytes(4), b"iTunSMPB")
    item = box(b"----", *names, box(b"data", (1).to_bytes(4), bytes(4), text.encode()))
    tags = box(b"meta", bytes(4), box(b"hdlr", bytes(8), b"mdirappl", bytes(9)), box(b"ilst", item))
    at = m4a.index(b"moov") - 4  # the last box
    return m4a[:at] + box(b"moov", m4a[at + 8 :].replace(b"udta", b"free"), box(b"udta", tags))


def test_delay_that_itunes_states_is_left_out() -> None:
    encoder = by_av("ipod", "aac", 128_000, container_options={"use_editlist": "0"})
    data = encoder(make_bursts(48_000), 48_000)
    for sound, at_s in ((data, 2.0213), (with_gapless_tag(data, 1_024, 12 * 48_000), 2.0)):
        with open_audio(io.BytesIO(sound)) as audio:
            heard = np.concatenate(list(audio.blocks()))
        assert find_bursts(heard) == pytest.approx([at_s, at_s + 7], abs=0.001)


def test_sound_with_a_cover_attached_states_its_duration(tmp_path: Path) -> None:
    path = tmp_path / "a.mka"
    with (
        av.open(str(path), "w", format="matroska") as writer,
        av.open(io.BytesIO(encode("matroska_flac", noise(4.0, HZ), HZ))) as reader,
    ):
        writer.add_attachment("cover.png", "image/png", make_png())
        stream = writer.add_stream_from_template(reader.streams.audio[0])
        for packet in reader.demux(audio=0):
            if packet.dts is not None:
                packet.stream = stream
                writer.mux(packet)
    with open_audio(io.BytesIO(cut(path.read_bytes(), 0.6))) as audio:
        assert audio.info.expected_duration_s == pytest.approx(4.0, abs=0.01)
        list(audio.blocks())
        assert audio.truncated is not None


# --- chained Ogg ------------------------------------------------------------------------------------------------------

QUIET_NOISE = make_bursts(48_000, 2) + noise(12.0, 48_000, 2) * np.float32(0.1)
VORBIS, OTHER = (encode("ogg_vorbis", QUIET_NOISE, 48_000) for _ in range(2))  # with serial numbers of their own
OPUS = encode("ogg_opus", make_bursts(48_000), 48_000)


def with_gap(ogg: bytes) -> bytes:
    return make_film("ogg", "", None, data=ogg, move_s=lambda time_s: 4.0 if time_s >= 5 else 0.0)


@pytest.mark.parametrize(
    ("links", "last_s", "missing_s"),
    [
        ([scribble(VORBIS, 0.3, 0.5), OPUS], 21.0, 2.5),
        ([OTHER, scribble(VORBIS, 0.3, 0.5)], 21.0, 2.5),
        ([with_gap(VORBIS), OPUS], 25.0, 4.0),
        ([OPUS, with_gap(VORBIS)], 25.0, 4.0),
        ([VORBIS, with_gap(VORBIS)], 25.0, 4.0),
        ([with_gap(VORBIS), VORBIS], 25.0, 4.0),
        ([with_gap(OPUS), VORBIS], 25.0, 4.0),
        ([with_gap(OPUS), OPUS, VORBIS], 37.0, 4.0),
    ],
)
def test_damage_and_gaps_of_any_link_are_told_and_keep_their_time(
    links: list[bytes], last_s: float, missing_s: float
) -> None:
    with open_audio(io.BytesIO(b"".join(links))) as audio:
        heard = np.concatenate(list(audio.blocks()))
        assert audio.truncated is not None
    told_s, said = audio.truncated.split(" s ", 1)
    assert said == "are missing in the middle, and taken as silence"
    # What is lost with damaged bytes depends on where the encoder ends its pages.
    assert float(told_s) == pytest.approx(missing_s, abs=0.5 if missing_s == 2.5 else 0.05)
    assert len(heard) / 48_000 == pytest.approx(last_s + 3.0, abs=0.05)
    assert min(abs(at_s - 1.0) for at_s in find_bursts(heard[round((last_s - 1.0) * 48_000) :])) < 0.01


@pytest.mark.parametrize("links", [[VORBIS, OPUS], [VORBIS, VORBIS], [OPUS, VORBIS, OPUS]])
def test_healthy_chain_is_not_called_truncated(links: list[bytes]) -> None:
    with open_audio(io.BytesIO(b"".join(links))) as audio:
        assert sum(map(len, audio.blocks())) / 48_000 == pytest.approx(12.0 * len(links), abs=0.01)
        assert (audio.truncated, audio.note) == (None, None)


def test_links_of_a_chain_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.audio.av_reader._MOST_LINKS", 3)
    pair = encode("ogg_opus", noise(0.5, 48_000), 48_000) + encode("ogg_vorbis", noise(0.5, 48_000), 48_000)
    with open_audio(io.BytesIO(10 * pair)) as audio:
        assert sum(map(len, audio.blocks())) / 48_000 < 3.0
        assert audio.truncated == "only 3 links of the chain are read"
