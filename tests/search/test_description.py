"""What an index says of itself."""

from pathlib import Path

import pytest

from pipeline.index import journal
from pipeline.index.handle import open_index
from pipeline.search.description import count_rows, describe_rebuild, describe_recall, list_history
from pipeline.search.tables import open_table
from tests.helpers.ears import index as index


def test_counts_are_those_of_the_tables(index: Path) -> None:
    counts = count_rows({name: open_table(str(index), name) for name in ("files", "clips", "frames")})
    assert counts == {
        "files": 2,
        "indexed": 2,
        "failed": 0,
        "deleted": 0,
        "clips": 1 + 3,
        "frames": 10 + 700,
        "hours": pytest.approx(710 * 0.04 / 3600),
        "codecs": {"flac": 2},
    }


def test_history_ends_with_the_state_that_was_opened(index: Path) -> None:
    rows = list_history(str(index), seq=1)
    assert [row["batch"] for row in rows] == [0, 1]
    assert rows[0]["kind"] == "create"
    assert len(list_history(str(index), seq=1_000)) == journal.read_journal(index).num_rows


def test_small_index_has_no_recall_and_no_rebuild(index: Path) -> None:
    """Nothing goes through a vector index, so every answer is exact."""
    opened = open_index(str(index))
    assert describe_recall(opened.live) is None
    assert describe_rebuild(opened) is None
