"""The measured recall and the settings of search, stored in the journal."""

import datetime as dt
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import IndexMismatch
from pipeline.grid import Grid
from pipeline.index.handle import open_index
from pipeline.index.repair import restore_index
from pipeline.index.search_settings import SearchSettings
from pipeline.index.tuning import find_reasons, is_approximate, parse_tuning
from tests.helpers.tables import draw_vectors, write_index
from tests.helpers.tuning import TUNING, add_vector_index, publish_tuning

GRID = Grid(250, 10)
NOW = dt.datetime(2026, 1, 2, tzinfo=dt.UTC)


@pytest.fixture
def index(tmp_path: Path) -> str:
    rng = np.random.default_rng(0)
    write_index(tmp_path / "index", {f"/{n}.wav": draw_vectors(rng, 300, GRID) for n in range(3)}, GRID)
    return str(tmp_path / "index")


def test_newest_tuning_is_read_as_it_was_published(index: str) -> None:
    assert open_index(index).live.tuning is None
    publish_tuning(index, replace(TUNING, wanted=0.9))
    publish_tuning(index, TUNING)
    found = open_index(index).live.tuning
    assert found is not None
    assert found.measured_at is not None
    assert abs(dt.datetime.now(dt.UTC) - found.measured_at) < dt.timedelta(minutes=1)
    assert replace(found, measured_at=None) == TUNING
    assert list(found.measured) == ["locate", "query"]


def test_tuning_publishes_the_tables_as_they_are_and_outlives_a_restore(index: str) -> None:
    before = open_index(index).live
    publish_tuning(index, TUNING)
    assert open_index(index).live.versions == before.versions
    restore_index(index, before.seq - 1)
    assert open_index(index).live.tuning is not None


def test_settings_of_another_version_are_left_out() -> None:
    detail = TUNING.to_detail()
    detail["settings"] = {"clip_refine": 32, "retired": 7}
    assert parse_tuning(detail, NOW, "journal").settings == SearchSettings(clip_refine=32)


@pytest.mark.parametrize("change", [{"settings": 3}, {"wanted": "much"}, {"locate": {"recall": 1}}, {"n_frames": None}])
def test_row_that_no_run_wrote_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(IndexMismatch, match="something else wrote here"):
        parse_tuning(json.loads(json.dumps(TUNING.to_detail())) | change, NOW, "journal")


def test_recall_is_due_at_first_after_growth_and_where_more_is_wanted(index: str) -> None:
    assert list(find_reasons(open_index(index).live, 0.98)) == ["never measured"]
    publish_tuning(index, replace(TUNING, n_clips=6, n_frames=900))
    live = open_index(index).live
    assert list(find_reasons(live, 0.98)) == []
    assert list(find_reasons(live, 0.9)) == []
    assert list(find_reasons(live, 0.995)) == ["tuned for a recall of 0.98, not 0.995"]
    add_vector_index(index)
    assert list(find_reasons(open_index(index).live, 0.98)) == []
    publish_tuning(index, replace(TUNING, n_clips=6, n_frames=900, query=None))
    assert list(find_reasons(open_index(index).live, 0.98)) == ["`query` was exact then"]
    publish_tuning(index, replace(TUNING, n_clips=6, n_frames=500))
    assert list(find_reasons(open_index(index).live, 0.98)) == ["`frames` has grown from 500 to 900 rows"]


def test_index_without_vector_indexes_is_exact(index: str) -> None:
    assert not is_approximate(open_index(index).live)
    add_vector_index(index)
    assert is_approximate(open_index(index).live)
