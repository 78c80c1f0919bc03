"""Scores of frames, wherever their rows lie in the table."""

from pathlib import Path

import lance
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from pipeline.index import journal
from pipeline.index.row_positions import RowPositions
from pipeline.index.tables import to_matrix
from pipeline.search.event_reader import EventQuery
from pipeline.search.event_tables import EventTables
from pipeline.search.events import Levels
from pipeline.search.find_events import find_events
from pipeline.search.frame_scores import FrameScorer, FrameSpan
from pipeline.search.tables import open_table
from tests.helpers.events import (
    PIECE_ROWS,
    QUERY,
    CountingTable,
    break_up_frames,
    plain_events,
    quantised,
    write_scores,
)


@pytest.mark.parametrize("in_order", [True, False])
def test_audio_in_many_pieces_has_the_same_events(tmp_path: Path, in_order: bool) -> None:
    """The expected place of a row is always checked."""
    rng = np.random.default_rng(8)
    scores = {f"/{number}.wav": quantised(rng, 3_000) for number in range(3)}
    _, files = write_scores(tmp_path / "index", scores)
    break_up_frames(tmp_path / "index", None if in_order else rng)
    frames = open_table(str(tmp_path / "index"), "frames")
    levels = Levels(2.0, 0.5, 10, 3)
    expected = plain_events(scores, levels)[:50]
    found = find_events(EventTables(frames, files), EventQuery(QUERY, levels, 50))
    assert [(holder.uri, event) for holder, event in found] == expected
    assert any(event.first // PIECE_ROWS != event.stop // PIECE_ROWS for _, event in expected)


def test_parts_of_an_audio_that_were_moved_are_looked_up_once(tmp_path: Path) -> None:
    """As after merging fragments: the second half of each audio lies behind all the others."""
    rng = np.random.default_rng(8)
    scores = {f"/{number}.wav": quantised(rng, 4_000) for number in range(2)}
    write_scores(tmp_path / "index", scores)
    uri = journal.table_uri(tmp_path / "index", "frames")
    table = lance.dataset(uri).to_table()
    is_late = pc.greater_equal(table["frame"], 2_000)
    table = pa.concat_tables([table.filter(pc.invert(is_late)), table.filter(is_late)])
    lance.write_dataset(table, uri, mode="overwrite", max_rows_per_file=1_500, max_rows_per_group=500)
    frames = CountingTable(open_table(str(tmp_path / "index"), "frames"))
    scorer = FrameScorer(frames, RowPositions.of_table(frames.to_lance()), QUERY)
    ids = table["audio_id"].unique().to_pylist()
    positions = dict(zip(ids, (0, 2_000), strict=True))
    spans = [
        FrameSpan(audio_id, first, first + 30, positions[audio_id]) for audio_id in ids for first in range(0, 3_970, 90)
    ]
    found = scorer.score(spans)
    for span, values in found.items():
        rows = table.filter(pc.equal(table["audio_id"], span.audio_id)).sort_by("frame").slice(span.first, 30)
        assert values.tolist() == to_matrix(rows["vector"])[:, 0].astype(np.float32).tolist()
    assert frames.n_searches == 2
