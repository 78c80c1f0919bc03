"""An index opened: what a handle says stays as it was until it is refreshed."""

import datetime as dt
import json
from pathlib import Path

import lance
import pytest

from pipeline.errors import CommitConflict, IndexMismatch, IndexMissing
from pipeline.index import journal
from pipeline.index.handle import delete_folder, drop_former_generations, find_index, open_index, switch
from pipeline.index.writer import Writer
from tests.helpers.batches import BEFORE, check_state, create, run


def test_newer_format_is_refused(tmp_path: Path) -> None:
    create(tmp_path)
    detail = json.dumps({"format": journal.FORMAT + 1, "settings": {}})
    lance.dataset(journal.table_uri(tmp_path, "batches")).update({"detail": f"'{detail}'"}, where="seq = 0")
    with pytest.raises(
        IndexMismatch, match=rf"index format {journal.FORMAT + 1}, this version reads up to {journal.FORMAT}; upgrade"
    ):
        open_index(tmp_path)


def test_missing_index_looks_empty(tmp_path: Path) -> None:
    index = find_index(tmp_path / "none")
    assert (index.live.exists, index.live.config, index.live.mounts, index.live.versions) == (False, None, [], {})
    assert index.live.read_files().num_rows == 0
    assert not index.live.refresh().exists
    with pytest.raises(IndexMissing, match="no index here"):
        open_index(tmp_path / "none")


def test_handle_stays_as_it_was_until_it_is_refreshed(tmp_path: Path) -> None:
    create(tmp_path)
    index = open_index(tmp_path)
    run(tmp_path, BEFORE)
    assert index.live.open("files").count_rows() == index.live.read_files().num_rows == 0
    fresh = index.refresh()
    assert fresh != index
    assert fresh == find_index(tmp_path)
    assert fresh.live.open("files").count_rows() == len(BEFORE)


def test_configuration_and_mounts_are_those_of_the_newest_run(tmp_path: Path) -> None:
    create(tmp_path)
    seqs = [Writer(tmp_path, run_id).configure({"run": run_id}, [f"/{run_id}"]).seq for run_id in ("a", "b")]
    live = find_index(tmp_path).live
    assert (live.config, live.mounts, live.seq) == ({"run": "b"}, ["/b"], seqs[1])
    assert live.mounts_until(seqs[0]) == ["/a"]
    assert live.mounts_until(seqs[1]) == ["/a", "/b"]


def test_next_generation_is_read_at_each_call(tmp_path: Path) -> None:
    create(tmp_path)
    index = find_index(tmp_path)
    assert not index.find_next().exists
    create(tmp_path / "generation-2")
    assert index.find_next().path == str(tmp_path / "generation-2")
    assert index.find_next().exists


HOUR, NOW = dt.timedelta(hours=1), dt.timedelta(0)


def make_next(path: Path) -> None:
    """A next generation with rows, which readers do not see yet."""
    place = Path(find_index(path).find_next().path)
    create(place)
    run(place, BEFORE)


def test_switch_makes_the_next_generation_live(tmp_path: Path) -> None:
    create(tmp_path)
    for number in (2, 3):
        before = find_index(tmp_path)
        make_next(tmp_path)
        assert find_index(tmp_path).live == before.live
        switch(before, "run")
        after = find_index(tmp_path)
        assert after.live.path == str(tmp_path / f"generation-{number}")
        check_state(Path(after.live.path), BEFORE)
    kinds = journal.read_journal(tmp_path / "generation-2")["kind"].to_pylist()
    assert kinds[-1] == "retire"


def test_switch_fails_where_another_run_has_published_since(tmp_path: Path) -> None:
    create(tmp_path)
    before = find_index(tmp_path)
    make_next(tmp_path)
    run(tmp_path, BEFORE)
    with pytest.raises(CommitConflict):
        switch(before, "late")
    assert find_index(tmp_path).live.path == str(tmp_path)


def test_former_generations_are_deleted_once_they_are_old_enough(tmp_path: Path) -> None:
    create(tmp_path)
    assert drop_former_generations(find_index(tmp_path), NOW) == []
    for _ in range(2):
        index = find_index(tmp_path)
        make_next(tmp_path)
        switch(index, "run")
    assert drop_former_generations(find_index(tmp_path), HOUR) == []
    names = [Path(folder).name for folder in drop_former_generations(find_index(tmp_path), NOW)]
    assert names == ["files.lance", "clips.lance", "frames.lance", "pools.lance", "generation-2"]
    check_state(tmp_path / "generation-3", BEFORE)
    assert find_index(tmp_path).live.path == str(tmp_path / "generation-3")


def test_live_generation_that_is_missing_is_an_error(tmp_path: Path) -> None:
    create(tmp_path)
    index = find_index(tmp_path)
    make_next(tmp_path)
    switch(index, "run")
    assert delete_folder(str(tmp_path / "generation-2"))
    assert not delete_folder(str(tmp_path / "generation-2"))
    with pytest.raises(IndexMismatch, match="generation-2: is missing"):
        find_index(tmp_path)
