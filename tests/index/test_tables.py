"""Creating the tables of an index: whole or not at all, and never over another index."""

import shutil
from pathlib import Path

import lance
import numpy as np
import pyarrow as pa
import pytest

from pipeline import schema
from pipeline.errors import CommitConflict, IndexMismatch, IndexMissing
from pipeline.index import journal
from pipeline.index.handle import open_index
from pipeline.index.tables import compact, create_tables, small_fragments, to_matrix
from tests.helpers.batches import BEFORE, SETTINGS, Killed, Killer, check_state, create, run
from tests.helpers.fakes import CLIP_DIMENSION, FRAME_DIMENSION


def test_new_index_is_empty_and_has_its_schemas(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "index"
    assert not journal.exists(path)
    create(path)
    assert journal.exists(path)
    window = {"length_s": 0.4, "overlap_s": 0.08, "tail": "back"}  # a rule that is not named is that of old indexes
    assert open_index(path).live.settings == {**SETTINGS, "window": window}
    expected = {
        "files": schema.FILES,
        "clips": schema.clips_schema(CLIP_DIMENSION),
        "frames": schema.frames_schema(FRAME_DIMENSION),
        "pools": schema.pools_schema(FRAME_DIMENSION),
        "batches": schema.BATCHES,
    }
    for name, arrow_schema in expected.items():
        dataset = lance.dataset(journal.table_uri(path, name))
        assert dataset.schema == arrow_schema
        assert dataset.data_storage_version == "2.2"
    (row,) = journal.read_journal(path).to_pylist()
    assert (row["seq"], row["kind"], row["n_files"]) == (0, "create", 0)
    check_state(path, {})


def test_index_without_frames_has_no_pools(tmp_path: Path) -> None:
    create_tables(tmp_path, SETTINGS | {"frames": "none"}, clip_dimension=3, frame_dimension=3)
    assert journal.read_published(tmp_path).versions.keys() == {"files", "clips", "frames"}
    assert not (tmp_path / "pools.lance").exists()
    assert journal.read_journal(tmp_path)["pools_version"].to_pylist() == [None]


def test_creation_that_dies_leaves_no_index_and_can_be_repeated(tmp_path: Path) -> None:
    whole = Killer()
    create(tmp_path / "whole", whole)
    names = ("files", "clips", "frames", "pools", "batches")
    assert whole.steps == [*(f"create {name}" for name in names), "publish"]
    for step in range(len(whole.steps)):
        path = tmp_path / str(step)
        with pytest.raises(Killed):
            create(path, Killer(step))
        assert not journal.exists(path)
        with pytest.raises(IndexMissing, match="no index here"):
            open_index(path)
        create(path)
        run(path, BEFORE)
        check_state(path, BEFORE)


def test_half_made_folders_are_no_index(tmp_path: Path) -> None:
    for name in ("files", "batches"):
        (tmp_path / f"{name}.lance" / "data").mkdir(parents=True)
    assert not journal.exists(tmp_path)
    create(tmp_path)
    check_state(tmp_path, {})


def test_an_index_is_never_created_over_another(tmp_path: Path) -> None:
    create(tmp_path)
    run(tmp_path, BEFORE)
    with pytest.raises(CommitConflict):
        create(tmp_path)
    check_state(tmp_path, BEFORE)


def test_tables_that_lost_their_journal_are_not_wiped(tmp_path: Path) -> None:
    index = tmp_path / "index"
    create(index)
    run(index, {"a.wav": ("one", 20)})
    shutil.rmtree(index / "batches.lance")
    for action in (lambda: create(index), lambda: open_index(index)):
        with pytest.raises(IndexMismatch, match=r"`files` has rows, but the journal is missing"):
            action()
    assert lance.dataset(journal.table_uri(index, "frames")).count_rows() == 20


def test_small_fragments_become_one_and_rows_keep_their_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.index.tables.ROWS_PER_FRAGMENT", 50)
    path = str(tmp_path / "x.lance")
    for first, n_rows in ((0, 60), (60, 3), (63, 2), (65, 4)):
        rows = pa.table({"n": range(first, first + n_rows)})
        lance.write_dataset(rows, path, mode="append" if first else "create", data_storage_version="2.2")
    table = lance.dataset(path)
    table.delete("n = 64")
    assert small_fragments(table) == [3, 1, 4]
    before = table.version
    assert compact(table).version == before + 2
    assert [fragment.count_rows() for fragment in table.get_fragments()] == [60, 8]
    assert table.to_table()["n"].to_pylist() == [n for n in range(69) if n != 64]
    assert compact(table).version == before + 2  # nothing is left to do


@pytest.mark.parametrize("n_rows", [0, 1, 5])
def test_column_becomes_a_matrix_of_its_rows(n_rows: int) -> None:
    rows = np.arange(n_rows * 3, dtype=np.float16).reshape(n_rows, 3)
    column = pa.FixedSizeListArray.from_arrays(pa.array(rows.reshape(-1)), 3)
    for each in (column, pa.chunked_array([column[:1], column[1:]], column.type)):
        assert to_matrix(each).shape == (n_rows, 3)
        assert (to_matrix(each) == rows).all()
    assert (to_matrix(column[2:]) == rows[2:]).all()  # a part of an array
