"""Events found by way of pools, against those of a scan over all frames."""

from pathlib import Path
from typing import Any

import lance
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.index import journal
from pipeline.index.search_settings import SearchSettings
from pipeline.search import candidates
from pipeline.search.event_reader import EventQuery, EventTables
from pipeline.search.events import EventFrames, Holder, Levels
from pipeline.search.find_events import find_events
from pipeline.search.scores import dot_products
from pipeline.search.tables import open_table
from tests.helpers.events import QUERY, plain_events, quantised, write_scores, write_vectors
from tests.helpers.tables import Vectors

LEVELS = Levels(on=2.0, off=1.0, gap_frames=2, min_frames=0)

Found = list[tuple[Holder, EventFrames]]


def open_all(path: Path, settings: SearchSettings) -> EventTables:
    """The newest tables of an index, to be searched by way of its pools."""
    frames, files, pools = (open_table(str(path), name) for name in ("frames", "files", "pools"))
    return EventTables(frames, files, pools, settings)


def name(found: Found) -> list[tuple[str, EventFrames]]:
    return [(holder.uri, event) for holder, event in found]


def draw_sounds(rng: np.random.Generator, n_files: int) -> dict[str, Vectors]:
    """Frames (F, 8) of files with backgrounds of their own, and events over them."""
    files = {}
    for number in range(n_files):
        frames = np.tile(rng.normal(0, 0.7, 8), (int(rng.integers(30, 1_500)), 1))
        for first in rng.integers(0, len(frames), len(frames) // 100 + 1):
            frames[first : first + int(rng.integers(5, 60))] += rng.normal(0, 1.0, 8)
        files[f"/{number}.wav"] = (frames + rng.normal(0, 0.15, frames.shape)).astype(np.float16)
    return files


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 2**32 - 1),
    per_event=st.integers(1, 6),
    k=st.sampled_from([1, 5, 40]),
    on=st.sampled_from([1.0, 2.0, 3.0]),
    gap=st.sampled_from([0, 5]),
)
def test_events_through_pools_are_those_of_a_scan_with_equal_scores(
    tmp_path_factory: pytest.TempPathFactory, seed: int, per_event: int, k: int, on: float, gap: int
) -> None:
    rng = np.random.default_rng(seed)
    vectors = draw_sounds(rng, 6)
    path = tmp_path_factory.mktemp("pools") / "index"
    write_vectors(path, vectors)
    query = rng.normal(0, 1, 8).astype(np.float32)
    levels = Levels(on, on - 0.3, gap, 0)
    everything = plain_events({uri: dot_products(rows, query) for uri, rows in vectors.items()}, levels)
    found = name(find_events(open_all(path, SearchSettings(per_event)), EventQuery(query, levels, k)))
    assert set(found) <= set(everything)
    assert len(set(found)) == len(found) <= k
    assert [event.score for _, event in found] == sorted((event.score for _, event in found), reverse=True)
    if everything:  # the best pool of all leads to some event, unless noise alone made one
        whole = name(find_events(open_all(path, SearchSettings(1_000)), EventQuery(query, levels, k)))
        assert whole == everything[:k]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any], dict[str, str]]:
    rng = np.random.default_rng(5)
    scores = {f"/{number}.wav": quantised(rng, int(rng.integers(1, 900))) for number in range(30)}
    scores["/long.wav"] = quantised(rng, 9_000)
    copies = {"/copy.wav": "/3.wav"}
    path = tmp_path_factory.mktemp("candidates") / "index"
    write_scores(path, scores, copies)
    return path, scores, copies


ALL = SearchSettings(pools_per_event=10_000)
"""Every pool is read, so nothing can be missed."""


@pytest.mark.parametrize("k", [1, 20, 2_000])
def test_reading_every_pool_gives_the_events_of_a_scan(
    corpus: tuple[Path, dict[str, Any], dict[str, str]], k: int
) -> None:
    path, scores, copies = corpus
    found = name(find_events(open_all(path, ALL), EventQuery(QUERY, LEVELS, k)))
    assert found == plain_events(scores, LEVELS, copies)[:k]


@pytest.mark.parametrize("max_chosen", [0, 10_000])
@pytest.mark.parametrize("where", ["uri IN ('/3.wav', '/long.wav')", "uri = '/copy.wav'", "uri = '/none.wav'"])
def test_filtered_events_through_pools_are_those_of_the_selected_files(
    corpus: tuple[Path, dict[str, Any], dict[str, str]], where: str, max_chosen: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, scores, copies = corpus
    monkeypatch.setattr("pipeline.search.find_events.FEW_FRAMES", 0)
    selected = [event for event in plain_events(scores, LEVELS, copies) if f"'{event[0]}'" in where]
    found = find_events(open_all(path, ALL), EventQuery(QUERY, LEVELS, 500, where), max_chosen)
    assert name(found) == selected


def test_few_frames_are_read_exactly(corpus: tuple[Path, dict[str, Any], dict[str, str]]) -> None:
    """One pool an event would not find them all, but the choice leaves a few hundred frames."""
    path, scores, _ = corpus
    only = {uri: scores[uri] for uri in ("/5.wav", "/6.wav", "/7.wav")}
    where = f"uri IN {tuple(only)}"
    found = find_events(open_all(path, SearchSettings(1)), EventQuery(QUERY, LEVELS, 500, where))
    assert name(found) == plain_events(only, LEVELS)


def test_more_pools_are_asked_for_where_they_run_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The best pools all lie in one long event, so the other ones come only with further pages."""
    monkeypatch.setattr(candidates, "MIN_POOLS", 3)
    values = np.zeros(3_000, np.float16)
    values[::100] = np.linspace(2.1, 2.9, 30)
    for at in range(10):
        values[np.arange(0, 3_000, 100) + at] = values[::100]
    scores = {"/rain.wav": np.full(5_000, 3.0, np.float16), "/a.wav": values}
    write_scores(tmp_path / "index", scores)
    found = name(find_events(open_all(tmp_path / "index", SearchSettings(1)), EventQuery(QUERY, LEVELS, 12)))
    assert found == plain_events(scores, LEVELS)[:12]


@pytest.mark.parametrize("in_order", [True, False])
def test_pools_of_audio_in_many_pieces_lead_to_its_frames(tmp_path: Path, in_order: bool) -> None:
    rng = np.random.default_rng(8)
    scores = {f"/{number}.wav": quantised(rng, 2_000) for number in range(3)}
    write_scores(tmp_path / "index", scores)
    uri = journal.table_uri(tmp_path / "index", "frames")
    table = lance.dataset(uri).to_table()
    if not in_order:
        table = table.take(rng.permutation(len(table)))
    lance.write_dataset(table, uri, mode="overwrite", max_rows_per_file=37, max_rows_per_group=37)
    tables = open_all(tmp_path / "index", ALL)
    assert name(find_events(tables, EventQuery(QUERY, LEVELS, 50))) == plain_events(scores, LEVELS)[:50]


def test_a_vector_index_leads_to_the_events(corpus: tuple[Path, dict[str, Any], dict[str, str]]) -> None:
    path, scores, copies = corpus
    pools = lance.dataset(journal.table_uri(path, "pools"))
    pools.create_index("vector", "IVF_RQ", name="vector_idx", metric="dot", num_partitions=4, num_bits=1)
    tables = open_all(path, ALL)
    assert tables.pools.list_indices()
    expected = plain_events(scores, LEVELS, copies)
    found = name(find_events(tables, EventQuery(QUERY, LEVELS, 20)))
    assert set(found) <= set(expected)
    assert len(set(found) & set(expected[:20])) >= 18
