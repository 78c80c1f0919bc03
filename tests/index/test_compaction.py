"""Small fragments become one; large ones stay, and so do the rows."""

from pathlib import Path

import lance
import pyarrow as pa
import pytest

from pipeline.index import compaction
from pipeline.index.compaction import compact, small_fragments


def test_small_fragments_become_one_and_rows_keep_their_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compaction, "ROWS_PER_FRAGMENT", 50)
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
