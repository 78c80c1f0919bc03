"""Events found by the engine, against a scan over all frames."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import lance
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from pipeline.errors import UsageError
from pipeline.index import journal
from pipeline.search.event_reader import EventQuery
from pipeline.search.event_tables import EventTables
from pipeline.search.events import EventFrames, Levels
from pipeline.search.find_events import find_events
from pipeline.search.scores import dot_products
from pipeline.search.tables import open_table
from tests.helpers.events import QUERY, plain_events, quantised, write_scores, write_vectors
from tests.helpers.tables import Vectors

LEVELS = Levels(on=2.0, off=1.0, gap_frames=0, min_frames=0)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any, dict[str, Any], dict[str, str]]:
    rng = np.random.default_rng(5)
    scores = {f"/{number}.wav": quantised(rng, int(rng.integers(1, 900))) for number in range(40)}
    scores["/long.wav"] = quantised(rng, 20_000)
    scores["/always.wav"] = np.full(4_000, 2.5, np.float16)  # one event that takes every candidate of the first round
    copies = {"/copy.wav": "/3.wav"}
    return *write_scores(tmp_path_factory.mktemp("locate") / "index", scores, copies), scores, copies


@pytest.mark.parametrize("seed", range(25))
def test_events_equal_those_of_a_scan(corpus: tuple[Any, Any, dict[str, Any], dict[str, str]], seed: int) -> None:
    frames, files, scores, copies = corpus
    rng = np.random.default_rng(seed)
    on, width = rng.choice([1.5, 2.0, 2.5, 3.0, 4.0, 9.0]), rng.choice([0.0, 0.5, 3.0])
    gap, minimum, k = int(rng.integers(0, 30)), int(rng.integers(0, 20)), int(rng.integers(1, 40))
    levels = Levels(float(on), float(on - width), gap, minimum)
    expected = plain_events(scores, levels, copies)[:k]
    found = list(find_events(EventTables(frames, files), EventQuery(QUERY, levels, k)))
    assert [event.score for _, event in found] == [event.score for _, event in expected]
    # Equal scores may come in another order where the k-th is one of several.
    worst = expected[-1][1].score if expected else 0.0
    strictly = [(uri, event) for uri, event in expected if event.score > worst]
    assert sorted(map(str, strictly)) == sorted(
        str((holder.uri, event)) for holder, event in found if event.score > worst
    )


def test_short_event_in_a_long_quiet_clip_is_found(tmp_path: Path) -> None:
    values = np.zeros(250, np.float16)
    values[100:105] = 3.0  # 0.2 s
    frames, files = write_scores(tmp_path / "index", {"/a.wav": values, "/b.wav": np.zeros(2_000, np.float16)})
    [(holder, event)] = find_events(EventTables(frames, files), EventQuery(QUERY, LEVELS, 10))
    assert (holder.uri, holder.duration_s, event) == ("/a.wav", 10.0, EventFrames(100, 105, 100, 3.0))


def test_event_over_many_windows_is_found_whole(tmp_path: Path) -> None:
    values = np.zeros(5_000, np.float16)
    values[40:4_700] = 1.5  # far beyond any first range, held together by the hysteresis
    values[2_000] = 3.0
    values[40] = 2.0
    frames, files = write_scores(tmp_path / "index", {"/a.wav": values})
    [(_, event)] = find_events(EventTables(frames, files), EventQuery(QUERY, LEVELS, 10))
    assert (event.first, event.stop, event.peak) == (40, 4_700, 2_000)


def test_silence_has_no_events(tmp_path: Path) -> None:
    frames, files = write_scores(tmp_path / "index", {"/a.wav": np.zeros(300, np.float16)})
    assert list(find_events(EventTables(frames, files), EventQuery(QUERY, LEVELS, 10))) == []
    assert list(find_events(EventTables(frames, files), EventQuery(QUERY, LEVELS, 10, "uri = '/none.wav'"))) == []


@pytest.mark.parametrize("max_chosen", [0, 10_000])
def test_filtered_events_equal_those_of_a_scan_of_the_selected_files(
    tmp_path: Path, max_chosen: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The best events lie in files that are not selected, and some content in selected and other files."""
    monkeypatch.setattr("pipeline.search.find_events.MAX_CHOSEN", max_chosen)
    rng = np.random.default_rng(6)
    scores = {f"/{number}.wav": quantised(rng, 500) + number % 3 for number in range(30)}
    scores["/always.wav"] = np.full(4_000, 9.0, np.float16)  # it takes all candidates of the first round
    copies = {"/copy.wav": "/3.wav", "/copy of a copy.wav": "/3.wav"}
    mics = {"/copy.wav": "H5", **{f"/{number}.wav": "H5" for number in range(4, 30, 5)}, "/3.wav": "MKH"}
    metadata = pa.table({"uri": list(mics), "mic": list(mics.values()), "take no": range(len(mics))})
    frames, files = write_scores(tmp_path / "index", scores, copies, metadata)
    everything = scores | {copy: scores[original] for copy, original in copies.items()}
    wanted: dict[str, Callable[[str], bool]] = {
        "mic = 'H5'": lambda uri: mics.get(uri) == "H5",
        "`take no` < 3 OR uri = '/9.wav'": lambda uri: uri in [*list(mics)[:3], "/9.wav"],
        "mic IS NULL AND uri != '/always.wav'": lambda uri: uri not in mics and uri != "/always.wav",
        "mic = 'none'": lambda uri: False,
    }
    for where, is_wanted in wanted.items():
        some = {uri: values for uri, values in everything.items() if is_wanted(uri)}
        for levels, k in ((Levels(2.0, 1.0, 3, 0), 20), (Levels(3.0, 2.0, 0, 2), 10_000)):
            found = find_events(EventTables(frames, files), EventQuery(QUERY, levels, k, where))
            assert [(holder.uri, event) for holder, event in found] == plain_events(some, levels)[:k], where
            assert all(holder.metadata["mic"] == mics.get(holder.uri) for holder, _ in found)


def test_error_of_a_wrong_filter_lists_the_columns(tmp_path: Path) -> None:
    metadata = pa.table({"uri": ["/a.wav"], "mic": ["H5"]})
    frames, files = write_scores(tmp_path / "index", {"/a.wav": np.ones(30)}, metadata=metadata)
    for where in ("mik = 'H5'", "mic ="):
        with pytest.raises(UsageError, match=rf"^--where {where!r}: .*\(columns: file_id, .*, mic\)$"):
            find_events(EventTables(frames, files), EventQuery(QUERY, LEVELS, 1, where))
    with pytest.raises(UsageError, match="No field named duraton_s, did you mean duration_s"):
        find_events(EventTables(frames, files), EventQuery(QUERY, LEVELS, 1, "duraton_s > 5"))


def write_random(path: Path, seed: int) -> tuple[Any, Any, dict[str, Vectors]]:
    """Frames whose directions drift slowly, like those of sounds: any query has many events in every file."""
    rng = np.random.default_rng(seed)
    vectors: dict[str, Vectors] = {}
    for number, n_frames in enumerate([1, 2, 300, 301, 2_000, 9_000]):
        drift = np.cumsum(rng.normal(0, 0.2, (n_frames, 8)), axis=0)
        vectors[f"/{number}.wav"] = (3 * np.sin(drift) + rng.normal(0, 0.5, (n_frames, 8))).astype(np.float16)
    return *write_vectors(path, vectors), vectors


@pytest.mark.parametrize("seed", range(4))
def test_events_in_random_embeddings_equal_those_of_a_scan(tmp_path: Path, seed: int) -> None:
    frames, files, vectors = write_random(tmp_path / "index", seed)
    rng = np.random.default_rng(100 + seed)
    for on in (4.0, 8.0, 12.0, 16.0):
        query = rng.standard_normal(8).astype(np.float32)
        levels = Levels(on, on - float(rng.uniform(0, 4)), int(rng.integers(0, 12)), int(rng.integers(0, 9)))
        scores = {uri: dot_products(rows, query) for uri, rows in vectors.items()}
        for k in (1, 7, 60, 5_000):
            expected = plain_events(scores, levels)[:k]
            found = find_events(EventTables(frames, files), EventQuery(query, levels, k))
            assert [(holder.uri, event.first, event.stop, event.peak) for holder, event in found] == [
                (uri, event.first, event.stop, event.peak) for uri, event in expected
            ]
            assert [event.score for _, event in found] == pytest.approx(
                [event.score for _, event in expected], abs=1e-4
            )


def across(query: npt.NDArray[np.float32], away: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """The part of vectors (n, 8) that is at right angles to the query: it adds nothing to their exact scores."""
    exact = query.astype(np.float64)
    return away - np.outer(away @ exact, exact) / (exact @ exact)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 2**32 - 1),
    length=st.sampled_from([0.5, 30.0, 2_000.0]),
    ulps=st.sampled_from([0, 1, 100, 3_000]),
    k=st.sampled_from([1, 5, 300]),
    gap=st.sampled_from([0, 3]),
)
def test_rounding_the_query_loses_no_event_near_the_threshold(
    tmp_path_factory: pytest.TempPathFactory, seed: int, length: float, ulps: int, k: int, gap: int
) -> None:
    """Long frames, nearly at right angles to the query, whose scores differ by float32's rounding: the query that the
    engine has rounded puts others above the threshold, in another order."""
    rng = np.random.default_rng(seed)
    query = rng.normal(1, 0.5, 8).astype(np.float32)
    away = across(query, rng.standard_normal((60, 8)))
    away *= length / np.linalg.norm(away, axis=1, keepdims=True)
    along = 2.0 + rng.integers(-ulps, ulps + 1, 60) * 2.0**-22
    rows = np.zeros((3_600, 8))
    rows[::60] = away + np.outer(along, query / (query.astype(np.float64) @ query))  # none is read for another's sake
    vectors = {"/a.wav": rows[:2_400].astype(np.float16), "/b.wav": rows[2_400:].astype(np.float16)}
    scores = {uri: dot_products(frames, query) for uri, frames in vectors.items()}
    on = float(np.median(np.concatenate([each[::60] for each in scores.values()])))
    levels = Levels(on, on - length * 1e-4, gap, 0)
    rounded = query.astype(np.float16).astype(np.float32)
    by_engine = {uri: dot_products(frames, rounded) for uri, frames in vectors.items()}
    assume(plain_events(by_engine, levels) != plain_events(scores, levels))
    frames, files = write_vectors(tmp_path_factory.mktemp("near") / "index", vectors)
    found = [
        (holder.uri, event) for holder, event in find_events(EventTables(frames, files), EventQuery(query, levels, k))
    ]
    expected = plain_events(scores, levels)
    worst = expected[:k][-1][1].score  # of several that have it, any may be left out
    assert [event.score for _, event in found] == [event.score for _, event in expected[:k]]
    assert [event for event in found if event[1].score > worst] == [each for each in expected if each[1].score > worst]


def test_vector_far_longer_than_the_sample_costs_no_event(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    query = rng.normal(1, 0.5, 8).astype(np.float32)
    lost = (query.astype(np.float64) - query.astype(np.float16)).astype(np.float64)
    rows = rng.normal(0, 1e-3, (10_000, 8))
    [away] = across(query, lost[None])
    away *= 3_000 / np.linalg.norm(away)
    rows[70], rows[150] = away, -away  # where the sample has a gap; the engine overrates the second one
    rows[[70, 150]] += 2.0 * query / (query @ query)
    vectors = rows.astype(np.float16)
    scores = dot_products(vectors, query)
    levels = Levels(float(min(scores[[70, 150]])), 0.5, 0, 0)
    engine = dot_products(vectors, query.astype(np.float16).astype(np.float32))
    assert engine[70] < levels.on - 0.1
    assert engine[150] > levels.on
    frames, files = write_vectors(tmp_path / "index", {"/a.wav": vectors})
    found = [
        (holder.uri, event) for holder, event in find_events(EventTables(frames, files), EventQuery(query, levels, 10))
    ]
    assert found == plain_events({"/a.wav": scores}, levels)
    assert sorted(event.peak for _, event in found) == [70, 150]


def test_more_equal_frames_than_one_search_returns_hide_no_event(tmp_path: Path) -> None:
    values = np.zeros(60 * 2_600, np.float16)
    values[::60] = 3.0  # 2,600 candidates, all too short
    values[60 * 2_000 + 30 :][:2] = 2.5
    frames, files = write_scores(tmp_path / "index", {"/a.wav": values})
    found = find_events(EventTables(frames, files), EventQuery(QUERY, Levels(2.0, 1.0, 0, min_frames=2), 1))
    assert [event for _, event in found] == [EventFrames(120_030, 120_032, 120_030, 2.5)]


def test_frames_without_an_indexed_file_are_not_found(tmp_path: Path) -> None:
    values = np.zeros(300, np.float16)
    values[5] = 2.5
    scores = {"/gone.wav": np.full(3_000, 3.0, np.float16), "/a.wav": values}
    frames, _ = write_scores(tmp_path / "index", scores)
    lance.dataset(journal.table_uri(tmp_path / "index", "files")).delete("uri = '/gone.wav'")
    files = open_table(str(tmp_path / "index"), "files")
    assert [holder.uri for holder, _ in find_events(EventTables(frames, files), EventQuery(QUERY, LEVELS, 3))] == [
        "/a.wav"
    ]
