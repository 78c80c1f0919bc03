"""The measured recall and the settings of search, stored in the journal."""

import datetime as dt
import json
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from pipeline.errors import IndexMismatch
from pipeline.grid import Grid
from pipeline.index.handle import Generation, open_index
from pipeline.index.repair import restore_index
from pipeline.index.search_settings import SearchSettings
from pipeline.index.tuning import find_reasons, find_settings, is_approximate, parse_tuning, read_trained
from pipeline.index.vector_index import read_index
from pipeline.index.writer import Writer
from tests.helpers.damage import fail_as_engine
from tests.helpers.tables import draw_vectors, write_index
from tests.helpers.tuning import TUNING, add_vector_index, measure_here, publish_tuning
from tests.helpers.vector_tables import ClipTable

GRID = Grid(250, 10)
NOW = dt.datetime(2026, 1, 2, tzinfo=dt.UTC)


def find(index: str, wanted: float = 0.98) -> list[str]:
    return list(find_reasons(open_index(index).live, wanted))


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
    assert list(found.measured) == ["locate", "query", "similar"]


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


@pytest.mark.parametrize(("stored", "expected"), [(12, 12), (0.0625, 7), (None, None)])
def test_row_of_an_older_version_is_read(stored: float | None, expected: int | None) -> None:
    """It held a number of partitions, or a share of them, under one name."""
    detail = json.loads(json.dumps(TUNING.to_detail()))
    detail["settings"] = {"pools_per_event": 5, "clip_probes": stored, "clip_refine": 4}
    del detail["measured_on"], detail["locate"]["best_low"], detail["query"]["best_low"]
    found = parse_tuning(detail, NOW, "journal")
    assert (found.locate, found.measured_on) == (TUNING.locate, {})
    assert found.settings.for_partitions(100) == SearchSettings(clip_probes=expected)
    assert list(found.measured) == ["locate", "query"]  # that of `similar` was relative to other answers


@pytest.mark.parametrize("change", [{"settings": 3}, {"wanted": "much"}, {"locate": {"recall": 1}}, {"n_frames": None}])
def test_row_that_no_run_wrote_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(IndexMismatch, match="something else wrote here"):
        parse_tuning(json.loads(json.dumps(TUNING.to_detail())) | change, NOW, "journal")


def test_recall_is_due_at_first_after_growth_and_where_more_is_wanted(index: str) -> None:
    assert find(index) == ["never measured"]
    publish_tuning(index, measure_here(index))
    assert find(index) == find(index, 0.9) == []
    assert find(index, 0.995) == ["tuned for a recall of 0.98, not 0.995"]
    add_vector_index(index)
    publish_tuning(index, measure_here(index))
    assert find(index) == []
    publish_tuning(index, replace(measure_here(index), query=None))
    assert find(index) == ["`query` was exact then"]
    publish_tuning(index, replace(measure_here(index), similar=None))
    assert find(index) == ["an older version measured `similar` in another way"]
    publish_tuning(index, replace(measure_here(index), n_frames=500))
    assert find(index) == ["`frames` has grown from 500 to 900 rows"]


def test_recall_is_due_where_new_rows_have_taken_the_place_of_half(tmp_path: Path) -> None:
    path = str(tmp_path / "index")
    table = ClipTable(path)
    table.run({f"/{n}.wav": 100 for n in range(4)})
    add_vector_index(path, n_partitions=4)
    publish_tuning(path, measure_here(path))
    table.commit(Writer(path, "2" * 32), {f"/{n}.wav": 100 for n in (2, 3)}, kind="metadata")  # no new sounds
    for n in range(2):
        table.run({f"/new-{n}.wav": 100}, (f"/{n}.wav",))
        assert find(path) == []
    table.run({"/2.wav": 1})
    assert find(path) == ["201 rows of `clips` were written since, and it had 400"]
    publish_tuning(path, measure_here(path))
    assert find(path) == []


ANOTHER = ["the vector index of `clips` is another one than was measured"]


def test_recall_is_due_for_an_index_that_was_built_anew(index: str) -> None:
    add_vector_index(index)
    publish_tuning(index, replace(measure_here(index), measured_on={}))  # of an older version
    assert find(index) == ANOTHER
    publish_tuning(index, measure_here(index))
    assert find(index) == []
    measured = open_index(index).live
    add_vector_index(index, n_partitions=2)
    assert find(index) == ANOTHER
    publish_tuning(index, measure_here(index))
    assert find(index) == []
    restore_index(index, measured.seq)
    assert find(index) == ANOTHER
    assert read_trained(open_index(index).live, "clips") == read_trained(measured, "clips")


def test_index_that_is_extended_or_merged_stays_the_same(tmp_path: Path) -> None:
    path, rng = tmp_path / "index", np.random.default_rng(0)
    table = ClipTable(path)
    table.run({f"/{n}.wav": 100 for n in range(20)})
    add_vector_index(str(path), n_partitions=4)
    trained = read_trained(open_index(path).live, "clips")
    assert trained is not None
    assert trained.n_partitions == 4
    for n in range(4):
        table.run({f"/more-{n}.wav": int(rng.integers(300, 400))})
    index = read_index(open_index(path).live.open("clips"))
    assert index is not None
    assert index.n_unindexed == 0
    assert read_trained(open_index(path).live, "clips") == trained


def test_share_of_the_partitions_is_kept_when_their_number_changes(index: str) -> None:
    add_vector_index(index, n_partitions=2)
    publish_tuning(index, replace(measure_here(index), settings=SearchSettings(clip_probe_share=0.25)))
    found = find_settings(open_index(index).live, "clips")
    assert found == SearchSettings(clip_probes=1)
    assert SearchSettings(clip_probe_share=0.25).for_partitions(None) == SearchSettings()
    assert [SearchSettings(clip_probe_share=0.25).for_partitions(n).clip_probes for n in (1, 4, 5, 600)] == [
        1,
        1,
        2,
        150,
    ]
    assert SearchSettings().for_partitions(600) == SearchSettings()
    assert find_settings(open_index(index).live, "pools") is None


@pytest.mark.parametrize("since", ["trained anew", "restored", "of an older version"])
def test_partitions_are_left_out_only_of_the_index_that_was_measured(index: str, since: str) -> None:
    add_vector_index(index, n_partitions=2)
    before = open_index(index).live.seq
    add_vector_index(index, n_partitions=3)
    measured = replace(measure_here(index), settings=SearchSettings(clip_probe_share=1 / 3, clip_refine=8))
    publish_tuning(index, replace(measured, measured_on={}) if since == "of an older version" else measured)
    if since == "trained anew":
        add_vector_index(index, n_partitions=4)
    if since == "restored":
        restore_index(index, before)
    assert find_settings(open_index(index).live, "clips") == SearchSettings(clip_refine=8)


def test_vector_index_that_has_lost_a_file_is_not_known_and_read_as_a_whole(index: str) -> None:
    add_vector_index(index)
    publish_tuning(index, replace(measure_here(index), settings=SearchSettings(clip_probe_share=1 / 8)))
    for path in Path(index, "clips.lance", "_indices").rglob("*.idx"):
        path.unlink()
    assert read_trained(open_index(index).live, "clips") is None
    assert find_settings(open_index(index).live, "clips") == SearchSettings()


class UnreachableTables:
    """Tables in a store that does not answer."""

    versions: ClassVar[dict[str, int]] = {"clips": 1}

    def __init__(self, live: Generation) -> None:
        table = live.open("clips")
        self.tuning, self.describe_indices = live.tuning, table.describe_indices
        self.get_ivf_model = fail_as_engine(OSError("LanceError(IO): Generic S3 error: Error performing GET x in 9s"))

    def open(self, name: str) -> Any:
        return self


def test_store_that_does_not_answer_is_no_lost_file(index: str) -> None:
    """Otherwise a question would silently read other partitions than were measured."""
    add_vector_index(index)
    publish_tuning(index, replace(measure_here(index), settings=SearchSettings(clip_probe_share=1 / 8)))
    tables: Any = UnreachableTables(open_index(index).live)
    with pytest.raises(OSError, match="S3"):
        read_trained(tables, "clips")
    with pytest.raises(OSError, match="S3"):
        find_settings(tables, "clips")


def test_index_without_vector_indexes_is_exact(index: str) -> None:
    assert not is_approximate(open_index(index).live)
    add_vector_index(index)
    assert is_approximate(open_index(index).live)
