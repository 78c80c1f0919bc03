"""Questions that nobody waits for end at their next step."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.search.clips import find_clips
from pipeline.search.event_reader import EventQuery
from pipeline.search.event_tables import EventTables
from pipeline.search.events import Levels
from pipeline.search.find_events import find_events
from pipeline.search.query_vectors import WINDOWS_AT_ONCE
from pipeline.search.stopping import Stopped, carried, check_stopped, stopping, until_stopped
from pipeline.search.tables import open_table
from tests.helpers.ears import Ear, open_with
from tests.helpers.ears import index as index
from tests.helpers.events import QUERY, CountingTable, quantised, write_scores
from tests.helpers.fakes import noise

LEVELS = Levels(on=2.0, off=1.0, gap_frames=0, min_frames=0)


def test_nothing_stops_unless_it_is_told() -> None:
    check_stopped()
    with pytest.raises(Stopped), stopping(lambda: True):
        check_stopped()
    check_stopped()


def test_items_end_once_nobody_waits() -> None:
    seen = list[int]()
    assert list(until_stopped(range(3))) == [0, 1, 2]
    with pytest.raises(Stopped), stopping(lambda: len(seen) == 2):
        list(map(seen.append, until_stopped(range(5))))
    assert seen == [0, 1]


def test_other_threads_are_told_only_by_what_is_carried_to_them() -> None:
    def look(_: int) -> bool:
        try:
            check_stopped()
        except Stopped:
            return True
        return False

    with ThreadPoolExecutor(2) as threads, stopping(lambda: True):
        assert list(threads.map(carried(look), range(3))) == [True] * 3
        assert list(threads.map(look, range(3))) == [False] * 3


def test_scan_for_events_ends_behind_the_page_that_runs(tmp_path: Path) -> None:
    """One event takes all candidates of the first page, so that there are several."""
    rng = np.random.default_rng(5)
    scores: dict[str, Any] = {"/always.wav": np.full(4_000, 2.5, np.float16), "/a.wav": quantised(rng, 900)}
    table, files = write_scores(tmp_path / "index", scores)
    query, whole, frames = EventQuery(QUERY, LEVELS, 10), CountingTable(table), CountingTable(table)
    find_events(EventTables(whole, files), query)
    with pytest.raises(Stopped), stopping(lambda: frames.n_searches > 0):
        find_events(EventTables(frames, files), query)
    assert (frames.n_searches, frames.n_rows) == (1, 0)
    assert whole.n_searches > 1


def test_clips_are_not_searched_for_nobody(index: Path) -> None:
    clips, query = CountingTable(open_table(str(index), "clips")), np.ones(8, np.float32)
    with pytest.raises(Stopped), stopping(lambda: True):
        find_clips(clips, query, k=1)
    assert clips.n_searches == 0
    find_clips(clips, query, k=1)
    assert clips.n_searches == 1


def test_long_sound_is_not_encoded_to_its_end(index: Path) -> None:
    ear, block = Ear(), noise(1.0)
    with pytest.raises(Stopped), stopping(lambda: len(ear.groups) > 0):
        open_with(index, ear).similar_to(block for _ in range(600))
    assert ear.groups == [WINDOWS_AT_ONCE]
