"""Metadata columns are joined onto rows, and only files with other values are written again."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from jobs.bench import many
from pipeline import schema
from pipeline.corpus.metadata import CorpusMetadata
from pipeline.index import metadata_columns
from pipeline.index.maintenance import refresh_indexes
from pipeline.index.metadata_columns import MetadataColumns
from pipeline.index.scalar_indexes import ROWS_TO_INDEX
from pipeline.index.tables import open_published
from pipeline.index.writer import Batch, Writer
from pipeline.search.tables import open_table, read_rows
from tests.helpers.batches import create


def test_metadata_columns_of_large_tables_are_indexed(tmp_path: Path) -> None:
    n_rows = ROWS_TO_INDEX
    create(tmp_path)
    writer = Writer(tmp_path, "run")
    writer.add_columns(pa.schema([("few", pa.string()), ("Many of them", pa.int64()), ("yes", pa.bool_())]))
    numbers = np.arange(n_rows)
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(np.zeros(n_rows * 4, np.float16)), 4)
    clips = schema.clips_schema(4).empty_table().drop_columns(["batch_id"])
    ids = pa.array([f"{number:032d}" for number in numbers])
    values = {"few": [f"v{number % 7}" for number in numbers], "Many of them": numbers, "yes": numbers % 2 == 0}
    zeros = {name: np.zeros(n_rows) for name in ("start_s", "end_s", "duration_s")}
    ones = {name: pa.array(np.ones(n_rows), pa.int32()) for name in ("sample_rate_hz", "channels")}
    names = {"clip_id": ids, "file_id": ids, "audio_id": ids, "uri": ids, "codec": pa.array(["wav"] * n_rows)}
    full = pa.table({**names, **zeros, **ones, "vector": vectors, **values})
    assert set(clips.column_names) < set(full.column_names)
    files = schema.FILES.empty_table().drop_columns(["batch_id"])
    writer.commit([Batch("0" * 32, files, full)])
    refresh_indexes(writer)
    table = open_published(tmp_path, "clips")
    kinds = {index.name: index.index_type.upper() for index in table.describe_indices()}
    assert {name: kind for name, kind in kinds.items() if "id_idx" not in name} == {
        "few_idx": "BITMAP",
        "Many of them_idx": "BTREE",
        "yes_idx": "BITMAP",
    }
    for where, expected in (("`Many of them` = 77", 1), ("few = 'v3'", n_rows // 7 + 1), ("yes", n_rows // 2)):
        found = read_rows(open_table(str(tmp_path), "clips"), ["clip_id"], where).num_rows
        assert abs(found - expected) <= 1, where
        assert "ScalarIndexQuery" in table.scanner(columns=["clip_id"], filter=where).explain_plan(True), where
    writer.add_columns(pa.schema([("Many of them", pa.float64())]))
    refresh_indexes(writer)
    assert "Many of them_idx" in {index.name for index in open_published(tmp_path, "clips").describe_indices()}


def test_few_of_many_files_find_their_values() -> None:
    """If a uri occurs twice, its first row counts."""
    uris = [f"/{'äa😀'[number % 3]}/{number}" for number in range(1_000)]
    table = pa.table({"uri": [*uris, uris[7]], "n": pa.array([*range(1_000), -1], pa.int64())})
    metadata = MetadataColumns(
        CorpusMetadata(table), pa.table({"uri": pa.array([], pa.string()), "status": pa.array([], pa.string())})
    )
    for wanted in ([7, 999, 0], [5], range(500)):
        files = pa.table({"uri": [*(uris[n] for n in wanted), "/none"], "status": ["indexed"] * (len(wanted) + 1)})
        assert metadata.join(files)["n"].to_pylist() == [*wanted, None]


def test_files_with_changed_values_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows are compared a few at a time. Deleted files keep their values, and missing columns change nothing."""
    monkeypatch.setattr(metadata_columns, "ROWS_AT_ONCE", 3)
    uris = [f"/{number}" for number in range(10)]
    stored = pa.table(
        {
            "uri": pa.chunked_array([uris[:4], uris[4:]]),
            "status": ["indexed"] * 9 + ["deleted"],
            "n": [*range(8), None, 5],
            "old": ["x"] * 10,
        }
    )
    given = pa.table({"uri": uris[::-1], "n": [7, 1, 7, 6, 5, -4, 3, 2, None, 0], "new": ["y", *[None] * 9]})
    said = MetadataColumns(CorpusMetadata(given), stored)
    assert said.outdated() == {"/8", "/4", "/1"}
    files = pa.table({"uri": ["/9", "/8", "/10"], "status": ["deleted", "indexed", "failed"]})
    assert said.join(files).to_pylist() == [
        {"uri": "/9", "status": "deleted", "n": 5, "old": "x", "new": None},
        {"uri": "/8", "status": "indexed", "n": 1, "old": "x", "new": None},
        {"uri": "/10", "status": "failed", "n": None, "old": None, "new": None},
    ]
    again = pa.table({"uri": uris[9:], "status": ["indexed"]})
    assert said.join(again).to_pylist() == [{**again.to_pylist()[0], "n": 7, "old": "x", "new": "y"}]


@pytest.mark.parametrize("what", many.What)
def test_unchanged_metadata_changes_nothing(tmp_path: Path, what: many.What) -> None:
    """``list_and_plan`` checks it, for each way of naming files and each kind of metadata."""
    source = str(many.WRITERS[what](tmp_path, 250))
    for _ in ("first index", "nothing new"):
        assert many.list_and_plan(source, str(tmp_path / "ledger.arrow"))["planned_s"] > 0
    known = schema.metadata_columns(pa.ipc.open_file(tmp_path / "ledger.arrow").schema).names
    assert bool(known) == (what in many.WITH_METADATA)
