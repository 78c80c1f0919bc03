"""Impossible durations, vectors that are not finite and unknown batches are found, and an ordinary run repairs them."""

import lance
import numpy as np
import pyarrow as pa
import pytest

from pipeline.config import Config
from pipeline.index import journal
from pipeline.index.repair import mark_damaged
from pipeline.index.verify import verify_index
from pipeline.run.driver import index_corpus
from tests.helpers.contents import live
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
