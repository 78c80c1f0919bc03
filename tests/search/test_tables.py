"""Tables read with filters: wrong filters, and damaged tables, which are no fault of the filter."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import UsageError
from pipeline.grid import Grid
from pipeline.search.clips import find_clips
from pipeline.search.tables import open_table, read_rows
from tests.helpers.tables import write_index

QUERY = np.ones(8, np.float32)


@pytest.fixture
def index(tmp_path: Path) -> Path:
    write_index(
        tmp_path / "index", {"/a.wav": (np.ones((10, 8), np.float16), np.ones((1, 8), np.float16))}, Grid(10, 2)
    )
    return tmp_path / "index"


def test_filter_that_fails_on_a_value_is_told_from_a_damaged_table(index: Path, tmp_path: Path) -> None:
    clips = open_table(str(index), "clips")
    with pytest.raises(UsageError, match=r"CAST\(uri AS INT\).*Cannot cast"):
        find_clips(clips, QUERY, k=1, where="CAST(uri AS INT) = 3")
    shutil.copytree(index, tmp_path / "LanceError(IO)")
    with pytest.raises(UsageError, match=r"nonsense"):
        find_clips(
            open_table(str(tmp_path / "LanceError(IO)"), "clips"), QUERY, k=1, where="nonsense = 'LanceError(IO)'"
        )
    for file in (tmp_path / "LanceError(IO)" / "clips.lance" / "data").iterdir():
        file.write_bytes(b"x" * file.stat().st_size)
    damaged = open_table(str(tmp_path / "LanceError(IO)"), "clips")
    asked: list[Callable[[], object]] = [
        lambda: find_clips(damaged, QUERY, k=1, where="start_s >= 0"),
        lambda: read_rows(damaged, where="start_s >= 0"),
    ]
    for ask in asked:
        with pytest.raises((ValueError, RuntimeError)) as caught:
            ask()
        assert not isinstance(caught.value, UsageError)
