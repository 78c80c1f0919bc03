"""Which frames the reader of events reads."""

from pathlib import Path

import numpy as np

from pipeline.index.search_settings import SearchSettings
from pipeline.schema import make_audio_id
from pipeline.search.candidates import Candidate, PoolSearch, Scope
from pipeline.search.event_reader import EventQuery, EventReader
from pipeline.search.event_tables import EventTables
from pipeline.search.events import EventFrames, Levels
from pipeline.search.find_events import find_events
from pipeline.search.tables import open_table
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


def test_rest_of_a_span_is_kept_when_its_loudest_frame_became_known(tmp_path: Path) -> None:
    """The first event is widened into a span whose scores are known already, but whose events are not. Beside the first
    event, that span holds another one, to which no other candidate leads."""
    first, many = np.zeros(3_000, np.float16), np.zeros(3_000, np.float16)
    first[2_000:2_161] = many[100:2_000] = 1.5
    first[[2_120, 2_155]] = 7.0, 5.0
    first[2_175:2_179] = 4.0
    many[200:2_000:100] = 6.0  # one event with candidates enough to fill a batch of spans
    frames, files = write_scores(tmp_path / "index", {"/first.wav": first, "/many.wav": many})
    tables = EventTables(frames, files, open_table(str(tmp_path / "index"), "pools"))
    source = PoolSearch(tables.pools, tables.n_pools, QUERY, Scope(), k=16, settings=SearchSettings())
    reader = EventReader(tables, EventQuery(QUERY, LEVELS, 16), source)
    begins = [("/first.wav", 2_106), ("/first.wav", 2_150), *(("/many.wav", at) for at in range(190, 1_990, 100))]
    reader.read([Candidate(make_audio_id(uri), at, at + 25, 9.0) for uri, at in begins])
    assert [event for _, event in reader.events] == [
        EventFrames(2_120, 2_161, 2_120, 7.0),
        EventFrames(200, 2_000, 200, 6.0),
        EventFrames(2_175, 2_179, 2_175, 4.0),
    ]
