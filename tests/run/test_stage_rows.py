"""The seconds that a stage took travel with its rows."""

from pathlib import Path

from pipeline import schema
from pipeline.run.stage_rows import note_seconds
from tests.helpers.fakes import (
    FakeEncoder,
    FrameSink,
    encode_all,
    noise,
    plan_batch,
    write_wav,
)
from tests.helpers.stages import BATCH


def test_seconds_of_work_are_counted_once_however_rows_are_cut(tmp_path: Path) -> None:
    path = write_wav(tmp_path / "a.wav", noise(2.0))
    table = encode_all(plan_batch(BATCH, [path]), FakeEncoder())
    assert table.num_rows > 3
    noted = note_seconds(note_seconds(table, "decode", 3.0), "encode", 5.0)
    assert noted.drop_columns(["decode_s", "encode_s"]) == table.drop_columns(["decode_s", "encode_s"])
    assert noted.schema == schema.ENCODED
    for length in (1, 2, table.num_rows):
        parts = [noted.slice(first, length) for first in range(0, table.num_rows, length)]
        receipts = [receipt for part in parts for receipt in FrameSink().write(part)]
        assert [sum(receipt[name] for receipt in receipts) for name in ("decode_s", "encode_s", "write_s")] == [3, 5, 0]
    empty = schema.RECEIPTS.empty_table()
    assert note_seconds(empty, "write", 1.0) == empty
