"""Blocks of windows have about the same length in time, and a file that takes too much memory fails alone."""

import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from pipeline import schema
from pipeline.audio.decoder_versions import Look
from pipeline.config import DecodeConfig
from pipeline.grid import Grid, frames_to_seconds
from pipeline.run.decode_stage import decode_batch, windows_per_block
from tests.helpers.fakes import GRID, noise, plan_batch, write_wav

BATCH = schema.make_batch_id("test", 1)


@pytest.mark.parametrize("block_windows", [1, 2, 3, 7, 100])
def test_blocks_of_a_batch_are_bounded_and_the_same_every_time(tmp_path: Path, block_windows: int) -> None:
    paths = [write_wav(tmp_path / f"{k}.wav", noise(0.1 + 0.9 * k, k)) for k in range(4)]
    paths.insert(2, tmp_path / "text.wav")
    paths[2].write_bytes(b"text")
    planned = plan_batch(BATCH, *([path] for path in paths))
    blocks = list(decode_batch(planned, DecodeConfig(), GRID, block_windows))
    assert blocks == list(decode_batch(planned, DecodeConfig(), GRID, block_windows))
    assert all(block.schema == schema.DECODED for block in blocks)
    n_frames = [sum(len(pcm) // 7_680 for pcm in block["pcm"].drop_null().to_pylist()) for block in blocks]
    most, longest = block_windows * GRID.length_frames, GRID.longest_frames
    assert all(most - longest < n <= max(most, longest) for n in n_frames[:-1])
    assert 1 <= n_frames[-1] <= max(most, longest)
    whole = pa.concat_tables(blocks)
    assert whole["seq"].to_pylist() == list(range(whole.num_rows))
    assert whole["last"].to_pylist() == [False] * (whole.num_rows - 1) + [True]
    (once,) = decode_batch(planned, DecodeConfig(), GRID, 1_000)
    assert whole.combine_chunks() == once.combine_chunks()


def test_a_block_holds_many_windows_of_short_files(tmp_path: Path) -> None:
    length_s = frames_to_seconds(GRID.length_frames)
    paths = [write_wav(tmp_path / f"{k:02d}.wav", noise(length_s / 10, k)) for k in range(60)]
    blocks = decode_batch(plan_batch(BATCH, *([path] for path in paths)), DecodeConfig(), GRID, block_windows=3)
    assert [block.num_rows - block["pcm"].null_count for block in blocks] == [30, 30]


def test_a_block_holds_about_as_much_audio_whatever_the_window() -> None:
    for length_s in (0.4, 2.0, 10.0, 60.0, 400.0):
        grid = Grid(round(length_s * 25), 10)
        assert windows_per_block(grid) * length_s <= max(320.0, length_s)
    assert windows_per_block(Grid()) == 32
    assert windows_per_block(Grid(10_000, 10)) == 1


@pytest.mark.parametrize("look", [None, Look.LENGTH])
def test_file_whose_windows_take_too_much_memory_fails_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, look: Look | None
) -> None:
    """Not only decoders ask for memory. Files of whole frames are not padded."""

    def fail(*_: object, **__: object) -> None:
        raise MemoryError

    odd, copy, whole = (tmp_path / f"{name}.wav" for name in ("odd", "copy", "whole"))
    write_wav(odd, noise(1.01))
    shutil.copy(odd, copy)
    write_wav(whole, noise(1.0))
    planned = plan_batch(BATCH, [odd, copy], [whole])
    planned["audios"][0] |= {"look": look, "stored_s": look and 1.01, "stored_note": None}
    monkeypatch.setattr(np, "pad", fail)
    rows = pa.concat_tables(decode_batch(planned, DecodeConfig(), GRID)).to_pylist()
    files = {Path(file["uri"]).stem: file for row in rows for file in row["files"] or ()}
    assert {name: (file["status"], file["stage"], file["reason"]) for name, file in files.items()} == {
        **dict.fromkeys(("odd", "copy"), ("failed", "decode", "crashed")),
        "whole": ("indexed", None, None),
    }
    assert files["odd"]["message"] == "it takes more memory than there is"
