"""What questions look up of audios, and keep for the next ones."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from pipeline.schema import make_audio_id
from pipeline.search.event_reader import EventQuery
from pipeline.search.event_tables import EventTables
from pipeline.search.events import Levels, to_event
from pipeline.search.find_events import find_events
from pipeline.search.tables import open_table
from tests.helpers.events import QUERY, CountingTable, plain_events, quantised, write_scores

LEVELS = Levels(on=2.0, off=1.0, gap_frames=2, min_frames=0)


@pytest.fixture
def scores() -> dict[str, Any]:
    rng = np.random.default_rng(3)
    return {f"/{number}.wav": quantised(rng, 700) for number in range(6)}


@pytest.fixture
def tables(tmp_path: Path, scores: dict[str, Any]) -> EventTables:
    mics = pa.table({"uri": list(scores), "mic": ["H5", "MKH"] * 3})
    frames, files = write_scores(tmp_path / "index", scores, {"/copy.wav": "/1.wav"}, mics)
    return EventTables(frames, CountingTable(files), CountingTable(open_table(str(tmp_path / "index"), "pools")))


def is_selected(uri: str, where: str | None) -> bool:
    return where is None or (f"'{uri}'" in where) == (" = " in where)


@pytest.mark.parametrize("where", [None, "mic = 'H5'"])
@pytest.mark.parametrize("max_chosen", [0, 10_000])
def test_files_are_read_for_the_first_question_only(
    tables: EventTables, where: str | None, max_chosen: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.search.find_events.FEW_FRAMES", 0)
    monkeypatch.setattr("pipeline.search.find_events.MAX_CHOSEN", max_chosen)
    query = EventQuery(QUERY, LEVELS, 50, where)
    first = find_events(tables, query)
    assert first
    assert (n_read := tables.files.n_searches) >= 1
    assert find_events(tables, query) == first
    assert tables.files.n_searches == n_read


def test_what_is_kept_for_one_filter_does_not_answer_another(tables: EventTables, scores: dict[str, Any]) -> None:
    copies = {"/copy.wav": "/1.wav"}
    everything = plain_events(scores, LEVELS, copies)
    for where in (None, "uri = '/1.wav'", "uri = '/copy.wav'", None, "uri != '/1.wav'", "uri = '/1.wav'"):
        expected = [each for each in everything if is_selected(each[0], where)]
        found = find_events(tables, EventQuery(QUERY, LEVELS, 500, where))
        assert [(holder.uri, event) for holder, event in found] == expected


def test_lengths_of_vectors_are_sampled_for_the_first_exact_question_only(tables: EventTables) -> None:
    counted = CountingTable(tables.frames)
    exact = EventTables(counted, tables.files)
    first = find_events(exact, EventQuery(QUERY, LEVELS, 5))
    assert find_events(exact, EventQuery(QUERY, LEVELS, 5)) == first
    assert counted.n_samples == 1


@pytest.mark.parametrize("where", ["now() > to_timestamp(0)", "random() < 2", "CURRENT_DATE > '2020-01-01'"])
def test_nothing_is_kept_of_a_filter_that_changes_with_the_clock_or_by_chance(tables: EventTables, where: str) -> None:
    assert find_events(tables, EventQuery(QUERY, LEVELS, 50, where))
    assert not tables.kept.files.find((where, make_audio_id(f"/{number}.wav")) for number in range(6))
    assert not tables.kept.scopes.find([where])


def test_changing_a_result_changes_no_later_one(tables: EventTables) -> None:
    query = EventQuery(QUERY, LEVELS, 1)
    [(holder, event)] = find_events(tables, query)
    result = to_event(1, holder, event, 0.5)
    before = dict(result.metadata)
    result.metadata["mic"] = "another"
    [(holder, event)] = find_events(tables, query)
    assert to_event(1, holder, event, 0.5).metadata == before


def test_new_audios_are_looked_up_beside_those_that_are_known(tables: EventTables) -> None:
    audio_ids = [make_audio_id(f"/{number}.wav") for number in range(6)]
    first, _ = tables.look_up(set(audio_ids[:2]), None, with_positions=False)
    files, positions = tables.look_up(set(audio_ids), None, with_positions=True)
    assert [first[each] is files[each] for each in audio_ids[:2]] == [True, True]
    assert [files[each].n_frames for each in audio_ids] == [700] * 6
    assert [len(files[each].holders) for each in audio_ids] == [1, 2, 1, 1, 1, 1]
    assert [positions[each] for each in audio_ids] == [700 * number for number in range(6)]
    assert tables.look_up({"none"}, None, with_positions=True)[0]["none"].holders == []
