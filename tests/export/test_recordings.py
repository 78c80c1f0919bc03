"""Recordings are opened wherever they lie. ``tests/jobs/commands/test_export.py`` has those that changed."""

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import soundfile

from pipeline.errors import FileFailure
from pipeline.export.cuts import cut_files
from pipeline.export.labels import Label
from pipeline.export.recordings import Recordings, open_as_is
from pipeline.export.sources import complete_labels
from pipeline.grid import Grid
from pipeline.search.client import Index
from tests.helpers.shards import write_shard
from tests.helpers.tables import SILENT, write_index


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


class CountedIndex(Index):
    """Counts how often rows are read."""

    n_reads = 0

    def to_arrow(self, table: str = "clips", columns: list[str] | None = None, where: str | None = None) -> pa.Table:
        self.n_reads += 1
        return super().to_arrow(table, columns, where)


def test_files_are_looked_up_many_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.export.recordings.FILES_AT_ONCE", 2)
    uris = [str(tmp_path / f"{number}.wav") for number in range(3)]
    for uri in uris:
        soundfile.write(uri, np.zeros(8_000), 8_000)
    write_index(tmp_path / "index", dict.fromkeys(uris, SILENT), Grid())  # it takes each file to have one byte
    index = CountedIndex(str(tmp_path / "index"))
    labels = complete_labels(index, [Label(uri, 0.0, 0.2) for uri in uris * 3])
    unknown = replace(labels[0], file_id="0" * 32)
    index.n_reads, recordings = 0, Recordings(index, [*labels, unknown])
    for label in labels:
        with pytest.raises(FileFailure, match="has other bytes than when it was indexed"):
            recordings.open(label, 0.0, 0.2)
    with recordings.open(unknown, 0.0, 0.2) as sound:
        assert sound.sample_rate_hz == 8_000
    assert index.n_reads == 2
