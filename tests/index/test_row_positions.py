"""Positions of rows against the rows that Lance returns."""

from pathlib import Path

import lance
import numpy as np
import pyarrow as pa

from pipeline.index.row_positions import RowPositions


def test_positions_count_through_fragments(tmp_path: Path) -> None:
    rows = pa.table({"number": np.arange(100)})
    table = lance.write_dataset(rows, tmp_path / "t", max_rows_per_file=7, max_rows_per_group=7)
    positions = RowPositions.of_table(table)
    found = table.to_table(with_row_id=True)
    assert positions.of(found["_rowid"].to_numpy()).tolist() == found["number"].to_pylist()
    assert positions.to_row_ids(found["number"].to_numpy()).tolist() == found["_rowid"].to_pylist()


def test_positions_of_deleted_rows_stay_and_fragments_may_be_out_of_order(tmp_path: Path) -> None:
    lance.write_dataset(
        pa.table({"number": np.arange(40)}), tmp_path / "t", max_rows_per_file=10, max_rows_per_group=10
    )
    table = lance.dataset(tmp_path / "t")
    table.delete("number >= 10 AND number < 30 OR number = 33")  # two fragments go, and a row of the last one
    positions = RowPositions.of_table(table)
    found = table.to_table(with_row_id=True)
    expected = [n if n < 10 else n - 20 for n in found["number"].to_pylist()]
    assert positions.of(found["_rowid"].to_numpy()).tolist() == expected
    mixed = RowPositions([7, 2, 5], [3, 4, 2])
    row_ids = [(7 << 32) + 2, (2 << 32) + 0, (5 << 32) + 1]
    assert mixed.of(row_ids).tolist() == [2, 3, 8]
    assert mixed.to_row_ids(np.array([2, 3, 8, -1, 9])).tolist() == [*row_ids, -1, -1]


def test_table_without_rows_has_no_positions() -> None:
    assert RowPositions([], []).to_row_ids(np.array([0, 5])).tolist() == [-1, -1]
