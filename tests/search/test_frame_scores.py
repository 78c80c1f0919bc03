"""Scores of frames, wherever their rows lie in the table."""

from pathlib import Path

import lance
import numpy as np
import pytest

from pipeline.index import journal
from pipeline.search.event_reader import EventQuery, EventTables
from pipeline.search.events import Levels
from pipeline.search.find_events import find_events
from pipeline.search.tables import open_table
from tests.helpers.events import QUERY, plain_events, quantised, write_scores


@pytest.mark.parametrize("in_order", [True, False])
def test_audio_in_many_pieces_has_the_same_events(tmp_path: Path, in_order: bool) -> None:
    """The expected place of a row is always checked."""
    rng = np.random.default_rng(8)
    scores = {f"/{number}.wav": quantised(rng, 3_000) for number in range(3)}
    _, files = write_scores(tmp_path / "index", scores)
    uri = journal.table_uri(tmp_path / "index", "frames")
    table = lance.dataset(uri).to_table()
    if not in_order:
        table = table.take(rng.permutation(len(table)))
    lance.write_dataset(table, uri, mode="overwrite", max_rows_per_file=37, max_rows_per_group=37)
    frames = open_table(str(tmp_path / "index"), "frames")
    levels = Levels(2.0, 0.5, 10, 3)
    expected = plain_events(scores, levels)[:50]
    found = find_events(EventTables(frames, files), EventQuery(QUERY, levels, 50))
    assert [(holder.uri, event) for holder, event in found] == expected
    assert any(event.first // 37 != event.stop // 37 for _, event in expected)
