"""Rows of frames say when they begin, and where their audio does."""

import numpy as np

from pipeline import schema
from pipeline.index.frame_rows import frame_rows


def test_rows_follow_each_other_and_only_frame_0_begins_an_audio() -> None:
    vectors = np.arange(12, dtype=np.float16).reshape(4, 3)
    for first in (0, 240):
        rows = frame_rows("a" * 32, "b" * 32, first, vectors, schema.frames_schema(3)).to_pylist()
        assert [row["frame"] for row in rows] == list(range(first, first + 4))
        assert [row["start_s"] for row in rows] == [frame * 1920 / 48_000 for frame in range(first, first + 4)]
        assert [row["begins"] for row in rows] == [
            "a" * 32 if frame == 0 else None for frame in range(first, first + 4)
        ]
        assert [row["vector"] for row in rows] == vectors.tolist()


def test_tables_of_older_formats_have_no_column_for_it() -> None:
    older = schema.without(schema.frames_schema(3), schema.BEGINS)
    assert frame_rows("a" * 32, "b" * 32, 0, np.zeros((1, 3), np.float16), older).schema == older
