"""Rows of ``files`` and ``clips`` from the ledger row of a file."""

from itertools import pairwise

from pipeline import schema
from pipeline.grid import Grid
from pipeline.index.clip_rows import clip_rows
from pipeline.planning.file_rows import empty_row, files_table


def test_clips_cover_the_file_and_none_ends_after_it() -> None:
    file = empty_row("/a.wav", "a" * 32) | {"duration_s": 1.99, "sample_rate_hz": 48_000, "channels": 1, "codec": "x"}
    clips = clip_rows(file, Grid(10, 2))
    assert [clip["start_s"] for clip in clips] == sorted(clip["start_s"] for clip in clips)
    assert (clips[0]["start_s"], clips[-1]["end_s"]) == (0.0, 1.99)
    assert all(one["end_s"] > other["start_s"] for one, other in pairwise(clips))
    assert len({clip["clip_id"] for clip in clips}) == len(clips) > 1
    assert {clip["uri"] for clip in clips} == {"/a.wav"}


def test_files_table_has_all_columns_but_the_batch() -> None:
    table = files_table([empty_row("/a.wav", None)])
    assert table.schema.names == [name for name in schema.FILES.names if name != "batch_id"]
