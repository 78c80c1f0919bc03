"""Defects of clips are found, and an ordinary run mends them."""

import pytest

from pipeline.config import Config
from tests.helpers.damage import Defect, append, check_found_and_mended, first
from tests.helpers.indexes import table

DEFECTS: dict[str, Defect] = {
    "a ledger row is lost": (lambda p: table(p, "files").delete("uri LIKE '%/a.wav'"), "clips", "without a file"),
    "a clip is lost": (
        lambda p: table(p, "clips").delete(f"clip_id = '{first(p, 'clips', 'clip_id')}'"),
        "clips",
        "demands",
    ),
    "a clip is doubled": (
        lambda p: append(p, "clips", f"clip_id = '{first(p, 'clips', 'clip_id')}'"),
        "clips",
        "demands",
    ),
    "a clip has another time": (
        lambda p: table(p, "clips").update(
            {"start_s": "start_s + 0.04"}, f"clip_id = '{first(p, 'clips', 'clip_id')}'"
        ),
        "clips",
        "demands",
    ),
    "clips are of no batch": (
        lambda p: table(p, "clips").update({"batch_id": "'none'"}, "uri LIKE '%/b.wav'"),
        "clips",
        "not in the journal",
    ),
}


@pytest.mark.parametrize("defect", DEFECTS)
def test_defect_is_found_and_mended(config: Config, defect: str) -> None:
    check_found_and_mended(config, *DEFECTS[defect])
