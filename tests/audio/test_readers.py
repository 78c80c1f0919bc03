"""The first bytes of a file choose the library that reads it; both give its samples at its own rate."""

import io

import numpy as np
import pytest

from pipeline.audio.av_reader import AvReader
from pipeline.audio.readers import open_reader
from pipeline.audio.soundfile_reader import SoundfileReader
from pipeline.audio.source import Bytes
from pipeline.corpus.raw_formats import RAW_FORMATS
from pipeline.errors import FileFailure
from tests.helpers.sounds import encode, noise

HZ = 44_100


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("wav_s16", SoundfileReader),
        ("flac", SoundfileReader),
        ("aiff", SoundfileReader),
        ("mp3", AvReader),
        ("ogg_vorbis", AvReader),
        ("m4a", AvReader),
        ("mp3_in_wav", AvReader),  # libsndfile loses parts of it
    ],
)
def test_first_bytes_choose_the_reader(name: str, kind: type) -> None:
    samples = noise(3.0, HZ, 2)
    reader = open_reader(Bytes(io.BytesIO(encode(name, samples, HZ))))
    assert isinstance(reader, kind)
    assert (reader.info.sample_rate_hz, reader.info.channels) == (HZ, 2)
    pieces = list(reader.pieces())
    assert {rate_hz for rate_hz, _ in pieces} == {HZ}
    assert sum(len(mono) for _, mono in pieces) == pytest.approx(len(samples), abs=3 * 1_152)
    assert reader.trouble is None
    reader.close()


def test_raw_format_counts_only_without_a_header() -> None:
    raw = RAW_FORMATS["g722"]
    with_header = open_reader(Bytes(io.BytesIO(encode("wav_s16", noise(0.5, HZ), HZ))), raw)
    assert isinstance(with_header, SoundfileReader)
    without = open_reader(Bytes(io.BytesIO(np.random.default_rng(0).bytes(8_000))), raw)
    assert isinstance(without, AvReader)
    assert without.raw == raw
    with pytest.raises(FileFailure, match="not_audio"):
        open_reader(Bytes(io.BytesIO(b"no audio " * 100)))
