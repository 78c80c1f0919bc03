"""Recordings are cut only if their bytes are those that were indexed."""

import io
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from pipeline import storage
from pipeline.audio.source import hash_file
from pipeline.errors import FileFailure
from pipeline.export.cuts import cut_files
from pipeline.export.labels import Label
from pipeline.export.recordings import has_changed, open_as_is
from tests.helpers.shards import write_shard


def row_of(path: Path) -> dict[str, Any]:
    """What the ledger says of a file."""
    size_bytes, modified_ns = storage.stat_file(str(path))
    return {"size_bytes": size_bytes, "modified_ns": modified_ns, "content_hash": hash_file(path)}


@pytest.fixture
def sound(tmp_path: Path) -> Path:
    soundfile.write(tmp_path / "a.wav", np.zeros(8_000), 8_000)
    return tmp_path / "a.wav"


def test_file_that_was_only_touched_or_copied_has_not_changed(sound: Path) -> None:
    row = row_of(sound)
    assert not has_changed(str(sound), row)
    os.utime(sound, ns=(1, 1))
    assert not has_changed(str(sound), row)
    assert not has_changed(f"{sound}#t=0.1,0.2", row)


def test_file_of_other_bytes_has_changed_whatever_its_size(sound: Path) -> None:
    row, data = row_of(sound), sound.read_bytes()
    for other in (data[:-1] + b"\1", data + b"\0"):
        sound.write_bytes(other)
        os.utime(sound, ns=(1, 1))
        assert has_changed(str(sound), row)


def test_file_without_a_known_hash_counts_as_it_is(sound: Path) -> None:
    assert not has_changed(str(sound), row_of(sound) | {"modified_ns": 0, "content_hash": None})


def test_file_that_is_gone_is_a_failure(sound: Path) -> None:
    row = row_of(sound)
    sound.unlink()
    with pytest.raises(FileFailure, match="vanished"):
        has_changed(str(sound), row)


def test_members_of_shards_are_cut(sound: Path, tmp_path: Path) -> None:
    samples = np.arange(8_000, dtype=np.int16)
    data = io.BytesIO()
    soundfile.write(data, samples, 8_000, format="WAV")
    shard = write_shard(tmp_path / "s.tar", [("x.wav", sound.read_bytes()), ("y.wav", data.getvalue())])
    uri = f"{shard}#y.wav"
    stat = storage.stat_file(str(shard))
    row = {
        "size_bytes": len(data.getvalue()),
        "modified_ns": stat[1],
        "content_hash": hash_file(io.BytesIO(data.getvalue())),
    }
    assert not has_changed(uri, row)
    assert not has_changed(uri, row | {"modified_ns": 0})
    assert has_changed(uri, row | {"modified_ns": 0, "content_hash": "0" * 64})
    files = cut_files([Label(uri, 0.25, 0.5)], "wav", open_as_is)
    name, pieces = next(files)
    found, _ = soundfile.read(io.BytesIO(b"".join(pieces)), dtype="int16")
    assert name == "0001_s.tar#y.wav_0.25s.wav"
    assert found.tolist() == samples[2_000:4_000].tolist()
