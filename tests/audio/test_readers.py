"""The first bytes of a file choose the library that reads it; both give its samples at its own rate."""

import io

import numpy as np
import pytest

from pipeline.audio.readers import AvReader, SoundfileReader, mean_channels, open_reader
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


def test_soundfile_reader_seeks_exactly() -> None:
    samples = noise(3.0, HZ)
    reader = open_reader(Bytes(io.BytesIO(encode("wav_f32", samples, HZ))))
    assert isinstance(reader, SoundfileReader)
    assert reader.n_samples == len(samples)
    assert reader.seek(HZ)
    assert np.array_equal(np.concatenate([mono for _, mono in reader.pieces()]), samples[HZ:, 0])
    assert not reader.stopped_short()


def test_raw_format_counts_only_without_a_header() -> None:
    raw = RAW_FORMATS["g722"]
    with_header = open_reader(Bytes(io.BytesIO(encode("wav_s16", noise(0.5, HZ), HZ))), raw)
    assert isinstance(with_header, SoundfileReader)
    without = open_reader(Bytes(io.BytesIO(np.random.default_rng(0).bytes(8_000))), raw)
    assert isinstance(without, AvReader)
    assert without.raw == raw
    with pytest.raises(FileFailure, match="not_audio"):
        open_reader(Bytes(io.BytesIO(b"no audio " * 100)))


@pytest.mark.parametrize("dtype", ["u1", "i2", "i4", "f4", "f8"])
def test_mean_of_channels_has_full_scale_1(dtype: str) -> None:
    info = np.iinfo(dtype) if dtype[0] in "iu" else None
    lowest, middle = (info.min, (info.min + info.max + 1) // 2) if info else (-1, 0)
    channels = np.array([[lowest, middle], [middle, middle], [middle, middle]], dtype)
    np.testing.assert_allclose(mean_channels(channels), [-1 / 3, 0], atol=1e-6)
    np.testing.assert_allclose(mean_channels(channels[:1]), [-1, 0], atol=1e-6)
