"""Recordings are opened wherever they lie. ``tests/jobs/commands/test_export.py`` has those that changed."""

import io
from pathlib import Path

import numpy as np
import soundfile

from pipeline.export.cuts import cut_files
from pipeline.export.labels import Label
from pipeline.export.recordings import open_as_is
from tests.helpers.shards import write_shard


def test_members_of_shards_are_cut(tmp_path: Path) -> None:
    samples = np.arange(8_000, dtype=np.int16)
    data = io.BytesIO()
    soundfile.write(data, samples, 8_000, format="WAV")
    shard = write_shard(tmp_path / "s.tar", [("x.wav", b"no sound"), ("y.wav", data.getvalue())])
    uri = f"{shard}#y.wav"
    files = cut_files([Label(uri, 0.25, 0.5)], "wav", open_as_is)
    name, pieces = next(files)
    found, _ = soundfile.read(io.BytesIO(b"".join(pieces)), dtype="int16")
    assert name == "0001_s.tar#y.wav_0.25s.wav"
    assert found.tolist() == samples[2_000:4_000].tolist()
