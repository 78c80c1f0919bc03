"""Receipts say what was written, and count it once."""

from pathlib import Path

import pyarrow as pa
import pytest

from pipeline import schema
from pipeline.grid import count_frames
from pipeline.run.write_stage import note_seconds
from tests.helpers.fakes import NOT_FINITE, FakeEncoder, FrameSink, encode_all, noise, plan_batch, write_wav
from tests.helpers.stages import BATCH, expected_clips, expected_file, index, marked, named
from tests.helpers.stages import two_batches as two_batches


def test_an_index_without_frames_gets_clips_only(tmp_path: Path) -> None:
    samples = noise(1.3)
    path = write_wav(tmp_path / "a.wav", samples)
    bad = write_wav(tmp_path / "b.wav", marked(samples, NOT_FINITE))
    batch, frames = index([path], [bad], with_frames=False)
    assert batch.files.to_pylist()[0] == expected_file(path, samples, n_frames=0, frames_checksum=None)
    assert named(batch.clips.to_pylist(), "clip_id", "vector") == named(
        expected_clips(path, samples), "clip_id", "vector"
    )
    assert (frames, batch.frame_fragments, batch.orphaned) == ([], [], frozenset())
    assert (batch.describe()["n_frames"], batch.n_rows) == (0, batch.clips.num_rows)


def test_a_gap_in_a_block_splits_its_receipts(two_batches: list[pa.Table]) -> None:
    table = two_batches[1]
    receipts = FrameSink().write(pa.concat_tables([table.slice(0, 2), table.slice(4, 3)]))
    assert [(r["first_seq"], r["stop_seq"], r["last"]) for r in receipts] == [(0, 2, False), (4, 7, False)]


def test_receipts_count_the_audio_once(two_batches: list[pa.Table]) -> None:
    table = two_batches[1]
    whole = FrameSink().write(table)
    parts = [receipt for k in range(table.num_rows) for receipt in FrameSink().write(table.slice(k, 1))]
    assert len(whole) == 1
    assert len(parts) == table.num_rows
    n_frames = sum(count_frames(round((0.1 + 0.31 * k) * 48_000)) for k in (5, 1, 3, 4)) + 25
    assert whole[0]["audio_s"] == pytest.approx(n_frames * 0.04)
    assert sum(receipt["audio_s"] for receipt in parts) == pytest.approx(n_frames * 0.04)


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
