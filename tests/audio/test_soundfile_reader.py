"""libsndfile seeks to any sample of the formats that it reads exactly."""

import io

import numpy as np

from pipeline.audio.soundfile_reader import SoundfileReader
from pipeline.audio.source import Bytes
from tests.helpers.sounds import encode, noise

HZ = 44_100


def test_soundfile_reader_seeks_exactly() -> None:
    samples = noise(3.0, HZ)
    reader = SoundfileReader(Bytes(io.BytesIO(encode("wav_f32", samples, HZ))))
    assert reader.n_samples == len(samples)
    assert reader.seek(HZ)
    assert np.array_equal(np.concatenate([mono for _, mono in reader.pieces()]), samples[HZ:, 0])
    assert not reader.stopped_short()
