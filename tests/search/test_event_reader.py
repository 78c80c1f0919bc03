"""How much of the frames the reader of events reads."""

from pathlib import Path
from typing import Any

import numpy as np

from pipeline.search.event_reader import EventQuery, EventTables
from pipeline.search.events import Levels
from pipeline.search.find_events import find_events
from tests.helpers.events import QUERY, plain_events, write_scores

LEVELS = Levels(on=2.0, off=1.0, gap_frames=0, min_frames=0)


class CountingTable:
    """A table that counts searches and rows taken."""

    def __init__(self, table: Any) -> None:
        self._table = table
        self.n_searches = self.n_rows = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._table, name)

    def search(self, *arguments: Any, **options: Any) -> Any:
        self.n_searches += 1
        return self._table.search(*arguments, **options)

    def take_row_ids(self, row_ids: list[int]) -> Any:
        self.n_rows += len(row_ids)
        return self._table.take_row_ids(row_ids)


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
