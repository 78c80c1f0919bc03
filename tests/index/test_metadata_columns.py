"""Metadata columns: each file gets the values of its row, and changed ones are found."""

import pyarrow as pa
import pytest

from pipeline.corpus.metadata import CorpusMetadata
from pipeline.index import metadata_columns
from pipeline.index.metadata_columns import MetadataColumns


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
