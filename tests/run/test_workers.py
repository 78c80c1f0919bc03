"""What workers add to the stages: errors become rows. With Ray: tests/integration/test_flow.py."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from pipeline import schema
from pipeline.config import DecodeConfig, EncodeConfig
from pipeline.grid import Grid
from pipeline.run.decode_stage import decode_batch
from pipeline.run.workers import _decode, _Encode, _write
from tests.helpers.fakes import GRID, FakeEncoder, noise, plan_batch, write_wav

BATCH = "0" * 32


@pytest.fixture
def planned(tmp_path: Path) -> pa.Table:
    row = plan_batch(BATCH, [write_wav(tmp_path / "a.wav", noise(3.0))])
    return pa.Table.from_pylist([row], schema=schema.PLANNED)


def decode(planned: pa.Table, decode: Any = decode_batch) -> list[pa.Table]:
    return list(_decode(planned, decode, DecodeConfig(), GRID, 200.0, 100, 300.0))


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
