"""How much of the frames the reader of events reads."""

from pathlib import Path

import numpy as np

from pipeline.search.event_reader import EventQuery, EventTables
from pipeline.search.events import Levels
from pipeline.search.find_events import find_events
from tests.helpers.events import QUERY, CountingTable, plain_events, write_scores

LEVELS = Levels(on=2.0, off=1.0, gap_frames=0, min_frames=0)


def test_only_events_that_can_be_among_the_best_are_read(tmp_path: Path) -> None:
    rng = np.random.default_rng(9)
    values = np.zeros(200_000, np.float16)
    values[::80] = rng.uniform(2, 9, 2_500)
    frames, files = write_scores(tmp_path / "index", {"/a.wav": values})
    counting = CountingTable(frames)
    found = find_events(EventTables(counting, files), EventQuery(QUERY, LEVELS, 10))
    assert [(holder.uri, event) for holder, event in found] == plain_events({"/a.wav": values}, LEVELS)[:10]
    assert counting.n_searches == 1
    assert counting.n_rows < 5_000


def test_further_searches_leave_out_audios_that_were_read_whole(tmp_path: Path) -> None:
    values = np.zeros(300, np.float16)
    values[7] = 2.5
    scores = {"/rain.wav": np.full(30_000, 3.0, np.float16), "/a.wav": values}
    frames, files = write_scores(tmp_path / "index", scores)
    counting = CountingTable(frames)
    found = find_events(EventTables(counting, files), EventQuery(QUERY, LEVELS, 3))
    assert [(holder.uri, event) for holder, event in found] == plain_events(scores, LEVELS)
    assert counting.n_searches == 2
