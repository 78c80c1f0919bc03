"""Defects of clips and frames are found, and an ordinary run repairs them."""

import pytest

from pipeline.config import Config
from tests.helpers.damage import Defect, append, check_found_and_repaired, first
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
    "a frame is lost": (lambda p: table(p, "frames").delete("frame = 7"), "frames", "0 to 6, 8 to"),
    "a frame is doubled": (lambda p: append(p, "frames", "frame = 7"), "frames", "are due, once"),
    "frames without a file": (
        lambda p: append(p, "frames", "frame < 5", audio_id="e" * 32),
        "frames",
        "without a file",
    ),
    "all frames of an audio are lost": (
        lambda p: table(p, "frames").delete(f"audio_id = '{first(p, 'frames', 'audio_id')}'"),
        "frames",
        "frames none where",
    ),
    "frames have other times": (lambda p: table(p, "frames").update({"start_s": "9.0"}, "true"), "frames", "time"),
}


@pytest.mark.parametrize("defect", DEFECTS)
def test_defect_is_found_and_repaired(config: Config, defect: str) -> None:
    check_found_and_repaired(config, *DEFECTS[defect])
