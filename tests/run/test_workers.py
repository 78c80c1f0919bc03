"""What workers add to the stages: errors become rows, and a file that stops its worker is given up. With Ray:
tests/integration/test_flow.py."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from pipeline import schema
from pipeline.config import DecodeConfig, EncodeConfig
from pipeline.grid import Grid
from pipeline.run.decode_stage import decode_batch
from pipeline.run.split_stage import PART_S, split_batch
from pipeline.run.workers import Reading, _decode, _Encode, _split, _write
from tests.helpers.fakes import GRID, FakeEncoder, noise, plan_batch, write_wav
from tests.helpers.processes import run_python

BATCH = "0" * 32
READING = Reading(DecodeConfig(), GRID, 200.0, 300.0, 5e-5)


@pytest.fixture
def planned(tmp_path: Path) -> pa.Table:
    row = plan_batch(BATCH, [write_wav(tmp_path / "a.wav", noise(3.0))])
    return pa.Table.from_pylist([row], schema=schema.PLANNED)


def decode(planned: pa.Table, decode: Any = decode_batch) -> list[pa.Table]:
    return list(_decode(planned, decode, READING, 100))


def test_stages_note_their_seconds(planned: pa.Table, tmp_path: Path) -> None:
    [decoded] = decode(planned)
    assert decoded["decode_s"][0].as_py() > 0
    encoded = _Encode(lambda *_: FakeEncoder(), EncodeConfig(), True, 1)(decoded)
    assert encoded["encode_s"][0].as_py() > 0
    assert encoded.num_rows == decoded.num_rows


def test_error_of_decoding_is_a_row_after_the_tables_before_it(planned: pa.Table) -> None:
    def fail(row: dict[str, Any], config: DecodeConfig, grid: Grid, *limits: Any) -> Iterator[pa.Table]:
        yield from decode_batch(row, config, grid, *limits)
        raise RuntimeError("out of luck")

    *_, last = decode(planned, fail)
    assert last["error"].to_pylist() == ["RuntimeError: out of luck"]
    assert last["batch_id"].to_pylist() == [BATCH]


def test_long_recordings_are_split_and_tables_of_others_pass(planned: pa.Table) -> None:
    [audio] = planned["audios"][0].as_py()
    row = {"batch_id": BATCH, "audios": [audio | {"estimated_s": 3 * PART_S}]}
    long = pa.Table.from_pylist([row], schema=schema.PLANNED)

    def split(row: dict[str, Any], config: DecodeConfig, grid: Grid, max_hours: float) -> list[dict[str, Any]]:
        return split_batch(row, config, grid, part_s=1.0, max_hours=max_hours)

    parts = _split(long, READING, split)
    assert parts.num_rows > 1
    assert parts.schema == schema.PLANNED
    several = pa.concat_tables([planned, long])
    assert _split(several, READING, split) is several


STUCK = """
import sys, time
from pathlib import Path

import pyarrow as pa

from pipeline import schema
from pipeline.config import DecodeConfig
from pipeline.run.workers import Reading, _decode, _split
from tests.helpers.fakes import GRID, plan_batch

def split(*_, **limits):
    time.sleep(600)

def decode(*_):
    if sys.argv[1] == "memory":
        raise MemoryError
    yield split()

planned = pa.Table.from_pylist([plan_batch("0" * 32, [Path(sys.argv[2])])], schema=schema.PLANNED)
reading = Reading(DecodeConfig(), GRID, 200.0, silence_s=300.0 if sys.argv[1] == "memory" else 0.2, s_per_byte=5e-5)
if sys.argv[1] == "split":
    _split(planned, reading, split)
else:
    list(_decode(planned, decode, reading, 100))
"""


@pytest.mark.parametrize(
    ("stage", "said"),
    [
        ("split", "its decoder read and gave nothing for"),
        ("decode", "its decoder read and gave nothing for"),
        ("memory", "it takes more memory than there is: this worker ends"),
    ],
)
def test_worker_whose_decoder_does_not_return_or_lacks_memory_ends(stage: str, said: str, tmp_path: Path) -> None:
    """The run tries the files of its batch one by one (``test_dispatch``), and takes no file's fault for its own."""
    ended = run_python("-c", STUCK, stage, write_wav(tmp_path / "a.wav", noise(3.0)))
    assert ended.returncode == 70
    assert f"batch {BATCH}: {said}" in ended.stderr


def test_encoder_that_does_not_load_is_a_row(planned: pa.Table) -> None:
    def load(*_: object) -> FakeEncoder:
        raise OSError("no weights")

    [decoded] = decode(planned)
    encoder = _Encode(load, EncodeConfig(), True, 1)
    for _ in range(2):  # Ray must not start another process for it
        assert encoder(decoded)["error"].to_pylist() == ["OSError: no weights"]


def test_error_of_writing_is_a_receipt(planned: pa.Table, tmp_path: Path) -> None:
    [decoded] = decode(planned)
    encoded = _Encode(lambda *_: FakeEncoder(), EncodeConfig(), True, 1)(decoded)
    (tmp_path / "index").write_text("in the way")
    [receipt] = _write(encoded, str(tmp_path / "index"), schema.frames_schema(3)).to_pylist()
    assert receipt["batch_id"] == BATCH
    assert "index" in receipt["error"]
