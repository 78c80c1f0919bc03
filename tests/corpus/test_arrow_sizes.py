"""An Arrow file that would fill memory as it is decompressed is refused before."""

import struct
from contextlib import suppress
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from pipeline.corpus import table_limits
from pipeline.corpus.arrow_sizes import measure_batches
from pipeline.corpus.audio_tables import list_rows
from pipeline.errors import CorpusError

CODECS = ["zstd", "lz4"]


def write(path: Path, codec: str | None, *sounds: bytes) -> Path:
    n_rows = len(sounds)
    audio = pa.array([{"bytes": sound, "path": f"{number}.wav"} for number, sound in enumerate(sounds)])
    table = pa.table({"audio": audio, "label": pa.array(["a", "b"] * (n_rows // 2)).dictionary_encode()})
    make = pa.ipc.new_file if path.name.startswith("file") else pa.ipc.new_stream
    with make(path, table.schema, options=pa.ipc.IpcWriteOptions(compression=codec)) as writer:
        writer.write_table(table, max_chunksize=n_rows // 2)
    return path


@pytest.fixture(params=["file.arrow", "stream.arrow"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return tmp_path / str(request.param)


@pytest.mark.parametrize("codec", CODECS)
def test_stated_sizes_are_counted(path: Path, codec: str) -> None:
    write(path, codec, *[bytes(100_000)] * 8)
    with pa.memory_map(str(path)) as source:
        source.seek(8 if path.name.startswith("file") else 0)
        sizes = measure_batches(source)
    assert sizes.decompressed_bytes == pytest.approx(800_000, rel=0.01)
    assert sizes.n_rows == [4, 4]
    write(path, None, *[bytes(100_000)] * 8)
    with pa.memory_map(str(path)) as source:
        source.seek(8 if path.name.startswith("file") else 0)
        assert measure_batches(source) == ([4, 4], 0)


@pytest.mark.parametrize("codec", CODECS)
def test_compressed_bombs_are_refused(path: Path, codec: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table_limits, "LITTLE_BYTES", 500_000)
    write(path, codec, *[bytes(100_000)] * 8)
    with pytest.raises(CorpusError, match=r"bytes, compressed in a file of [\d,]+: write it uncompressed"):
        list(list_rows(str(path)))


@pytest.mark.parametrize("codec", [*CODECS, None])
def test_honest_tables_are_listed(path: Path, codec: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table_limits, "LITTLE_BYTES", 1)
    draw = np.random.default_rng(1)
    write(path, codec, *(draw.bytes(20_000) + bytes(20_000) for _ in range(8)))
    assert [(row.name, row.size_bytes) for row in list_rows(str(path))] == [(f"{k}.wav", 40_000) for k in range(8)]


@pytest.mark.parametrize("codec", CODECS)
def test_damage_is_an_error(path: Path, codec: str) -> None:
    """It is none that would end the run, and takes no memory."""
    whole = write(path, codec, *[bytes(2_000)] * 8).read_bytes()
    draw = np.random.default_rng(1)
    for _ in range(200):
        data = bytearray(whole)
        for at in draw.integers(8, len(data), 3):
            data[at] = draw.integers(256)
        path.write_bytes(data)
        with suppress(OSError, ValueError, LookupError, struct.error), pa.memory_map(str(path)) as source:
            source.seek(8 if path.name.startswith("file") else 0)
            measure_batches(source)
