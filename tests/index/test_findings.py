"""Impossible durations, vectors that are not finite and unknown batches are found, and an ordinary run repairs them."""

import itertools

import lance
import numpy as np
import pyarrow as pa
import pytest

from pipeline.config import Config
from pipeline.index import journal
from pipeline.index.findings import Spans
from pipeline.index.maintenance import refresh_indexes
from pipeline.index.repair import mark_damaged
from pipeline.index.verify import verify_index
from pipeline.index.writer import Writer
from pipeline.run.driver import index_corpus
from tests.helpers.contents import check_pools, live
from tests.helpers.damage import Defect, append_instead, check_found_and_repaired, first, publish
from tests.helpers.indexes import table
from tests.helpers.runs import WideEncoder, in_place

DEFECTS: dict[str, Defect] = {
    "a duration is missing": (
        lambda p: table(p, "files").update({"duration_s": "NULL"}, "uri LIKE '%/c.wav'"),
        "files",
        "duration_s is None",
    ),
    "a duration is no number": (
        lambda p: append_instead(p, "files", "uri LIKE '%/c.wav'", duration_s=float("nan")),
        "files",
        "duration_s is nan",
    ),
    "a duration is beyond belief": (
        lambda p: table(p, "files").update({"duration_s": "1e300"}, "uri LIKE '%/c.wav'"),
        "files",
        "duration_s is 1e+300",
    ),
    "clips are of no batch": (
        lambda p: table(p, "clips").update({"batch_id": "'none'"}, "uri LIKE '%/b.wav'"),
        "clips",
        "not in the journal",
    ),
    "frames are of no batch": (
        lambda p: table(p, "frames").update({"batch_id": "'none'"}, "frame = 3"),
        "frames",
        "not in the journal",
    ),
}


@pytest.mark.parametrize("defect", DEFECTS)
def test_defect_is_found_and_repaired(config: Config, defect: str) -> None:
    check_found_and_repaired(config, *DEFECTS[defect])


@pytest.mark.parametrize("name", ["clips", "frames"])
def test_vector_that_is_not_finite_is_found_and_repaired(config: Config, name: str) -> None:
    before = live(config.into)
    where = f"clip_id = '{first(config.into, 'clips', 'clip_id')}'" if name == "clips" else "frame = 2"
    rows = table(config.into, name).to_table(filter=where)
    size = rows.schema.field("vector").type.list_size
    values = pa.FixedSizeListArray.from_arrays(pa.array(np.full(size * len(rows), np.nan, np.float16)), size)
    spoilt = rows.set_column(rows.schema.get_field_index("vector"), rows.schema.field("vector"), values)
    table(config.into, name).delete(where)
    lance.write_dataset(spoilt, journal.table_uri(config.into, name), mode="append")
    publish(config.into)
    findings = verify_index(config.into)
    assert any(finding.table == name for finding in findings)
    mark_damaged(config.into, findings)
    index_corpus(config, stages=in_place(WideEncoder()))
    assert verify_index(config.into) == []
    assert live(config.into) == before


def test_spans_are_joined_whatever_their_order() -> None:
    for order in itertools.permutations([(0, 3), (3, 4), (4, 9)]):
        spans = Spans(2)
        for first_frame, stop in order:
            spans.add(1, first_frame, stop)
        assert (spans.of(0), spans.of(1)) == ([], [(0, 9)])
    spans.add(1, 4, 9)
    assert spans.of(1) == [(0, 9), (4, 9)]
    spans.add(0, 2, 3)
    assert spans.of(0) == [(2, 3)]


def test_order_of_fragments_is_no_defect(config: Config) -> None:
    """Merging fragments, Lance puts new ones behind those that it leaves as they are."""
    for name in ("frames", "pools"):
        rows = table(config.into, name).to_table()
        table(config.into, name).delete("true")
        middle = len(rows) // 2
        for part in (rows.slice(middle), rows.slice(0, middle)):
            lance.write_dataset(part, journal.table_uri(config.into, name), mode="append")
    publish(config.into)
    refresh_indexes(Writer(config.into, "0" * 32))
    assert verify_index(config.into) == []
    check_pools(config.into)
