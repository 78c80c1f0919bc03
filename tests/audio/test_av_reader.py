"""FFmpeg reads pieces at the file's own rate, and says what is wrong with a damaged file."""

import io

import pytest

from pipeline.audio.av_reader import AvReader
from pipeline.audio.source import Bytes
from pipeline.errors import FileFailure
from tests.helpers.sounds import cut, encode, noise

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
