"""A generation takes the place of the one before it in one step, and that one is deleted later."""

import datetime as dt
from pathlib import Path

import pytest

from pipeline.errors import CommitConflict, IndexMismatch
from pipeline.index import journal
from pipeline.index.generations import delete_folder, drop_former_generations, switch
from pipeline.index.handle import find_index
from tests.helpers.batches import BEFORE, check_state, create, run

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
    assert names == ["files.lance", "clips.lance", "frames.lance", "generation-2"]
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
