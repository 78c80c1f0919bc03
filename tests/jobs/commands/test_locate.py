"""``earshot locate``."""

from pathlib import Path

import pytest

import pipeline
from jobs.commands.locate import explain_no_event
from pipeline.grid import Grid
from tests.helpers.tables import SILENT, write_index


@pytest.mark.parametrize(
    ("min_duration_s", "where", "said"),
    [
        (0.0, "codec = 'none'", "no indexed file where codec = 'none'"),
        (0.0, "codec = 'flac'", "no event reaches a probability of 0.3 where codec = 'flac'; try a lower --threshold"),
        (0.0, None, "no event reaches a probability of 0.3; try a lower --threshold, or `earshot query`"),
        (2.5, None, "no event of 2.5 s or more reaches a probability of 0.3; try a lower --threshold or --min-"),
    ],
)
def test_no_event_is_explained(min_duration_s: float, where: str | None, said: str, tmp_path: Path) -> None:
    write_index(tmp_path / "index", {"/a.wav": SILENT}, Grid())
    assert explain_no_event(pipeline.open(str(tmp_path / "index")), 0.3, min_duration_s, where).startswith(said)
