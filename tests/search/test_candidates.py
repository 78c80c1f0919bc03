"""Events found through pools, against those of a scan over all frames."""

import itertools
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import lance
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jobs.bench import truth
from jobs.bench.synthetic import FILE_FRAMES
from pipeline.index import journal
from pipeline.index.search_settings import SearchSettings
from pipeline.index.vector_index import Step, count_partitions
from pipeline.search import candidates
from pipeline.search.event_reader import EventQuery
from pipeline.search.event_tables import EventTables
from pipeline.search.events import EventFrames, Holder, Levels
from pipeline.search.find_events import find_all_events, find_events
from pipeline.search.scores import dot_products
from pipeline.search.tables import open_table
from tests.helpers.building import make_here
from tests.helpers.events import (
    QUERY,
    CountingTable,
    break_up_frames,
    plain_events,
    quantised,
    write_scores,
    write_vectors,
)
from tests.helpers.made import MadeIndex, find_levels
from tests.helpers.made import sounds as sounds
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
    per_event=st.sampled_from([5, 20]),
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
    if everything:
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
    monkeypatch.setattr("pipeline.search.find_events.MAX_CHOSEN", max_chosen)
    selected = [event for event in plain_events(scores, LEVELS, copies) if f"'{event[0]}'" in where]
    found = find_events(open_all(path, ALL), EventQuery(QUERY, LEVELS, 500, where))
    assert name(found) == selected


def test_few_frames_are_read_exactly(corpus: tuple[Path, dict[str, Any], dict[str, str]]) -> None:
    """The choice leaves a few hundred frames, so no pool is searched."""
    path, scores, _ = corpus
    only = {uri: scores[uri] for uri in ("/5.wav", "/6.wav", "/7.wav")}
    where = f"uri IN {tuple(only)}"
    tables = open_all(path, SearchSettings())
    pools = CountingTable(tables.pools)
    found = find_events(replace(tables, pools=pools), EventQuery(QUERY, LEVELS, 500, where))
    assert name(found) == plain_events(only, LEVELS)
    assert pools.n_searches == 0


def test_more_pools_are_asked_for_where_they_run_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The best pools all lie in one long event, so the other ones come only with further pages."""
    for constant, value in (("MIN_POOLS", 3), ("LEAST_PER_EVENT", 1), ("LEAST_EVENTS", 1)):
        monkeypatch.setattr(candidates, constant, value)
    values = np.zeros(3_000, np.float16)
    values[::100] = np.linspace(2.1, 2.9, 30)
    for at in range(10):
        values[np.arange(0, 3_000, 100) + at] = values[::100]
    scores = {"/rain.wav": np.full(5_000, 3.0, np.float16), "/a.wav": values}
    write_scores(tmp_path / "index", scores)
    tables = open_all(tmp_path / "index", SearchSettings(1))
    pools = CountingTable(tables.pools)
    found = name(find_events(replace(tables, pools=pools), EventQuery(QUERY, LEVELS, 12)))
    assert found == plain_events(scores, LEVELS)[:12]
    assert pools.n_searches > 1


@pytest.mark.parametrize("in_order", [True, False])
def test_pools_of_audio_in_many_pieces_lead_to_its_frames(tmp_path: Path, in_order: bool) -> None:
    rng = np.random.default_rng(8)
    scores = {f"/{number}.wav": quantised(rng, 2_000) for number in range(3)}
    write_scores(tmp_path / "index", scores)
    break_up_frames(tmp_path / "index", None if in_order else rng)
    tables = open_all(tmp_path / "index", ALL)
    assert name(find_events(tables, EventQuery(QUERY, LEVELS, 50))) == plain_events(scores, LEVELS)[:50]


def test_reading_every_pool_through_a_vector_index_gives_the_events_of_a_scan(
    corpus: tuple[Path, dict[str, Any], dict[str, str]],
) -> None:
    path, scores, copies = corpus
    pools = lance.dataset(journal.table_uri(path, "pools"))
    pools.create_index("vector", "IVF_RQ", name="vector_idx", metric="dot", num_partitions=4, num_bits=1)
    tables = open_all(path, ALL)
    assert tables.pools.list_indices()
    expected = plain_events(scores, LEVELS, copies)[:20]
    assert name(find_events(tables, EventQuery(QUERY, LEVELS, 20))) == expected


# --- a vector index as a run builds it --------------------------------------------------------------------------------


def score(sounds: MadeIndex, query: Any) -> dict[str, Any]:
    return {uri: dot_products(frames, query) for uri, frames in sounds.frames.items()}


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    number=st.integers(0, 99),
    rain=st.sampled_from([0.0, 0.3, 3.0]),
    per_event=st.sampled_from([1, 10]),
    k=st.sampled_from([1, 30, 300]),
    share=st.sampled_from([0.001, 0.02]),
    gap=st.sampled_from([0, 5]),
)
def test_events_through_a_vector_index_are_those_of_a_scan_with_equal_scores(
    sounds: MadeIndex, number: int, rain: float, per_event: int, k: int, share: float, gap: int
) -> None:
    """It takes several pages of pools to get beyond the rain."""
    query = (sounds.vectors.texts(100)[number] + rain * sounds.vectors.rain).astype(np.float32)
    scores = score(sounds, query)
    levels = replace(find_levels(scores, share), gap_frames=gap)
    everything = plain_events(scores, levels)
    found = name(find_events(open_all(sounds.path, SearchSettings(per_event)), EventQuery(query, levels, k)))
    assert set(found) <= set(everything)
    assert len(set(found)) == len(found) <= k
    assert [event.score for _, event in found] == sorted((event.score for _, event in found), reverse=True)
    assert len(found) >= 0.9 * min(k, len(everything))


def measure_recall(sounds: MadeIndex, queries: Any, k: int, per_event: int, where: str = "lot >= 0") -> Any:
    """The mean recall of the ``k`` best events."""
    tables = open_all(sounds.path, SearchSettings(per_event))
    levels = truth.measure_levels(str(sounds.path), queries)
    limit = int(where.removeprefix("lot < ")) if "<" in where else sounds.n_files
    [exact] = truth.best_events(str(sounds.path), queries, levels, [limit], k)
    recalls = []
    for query, level, best in zip(queries, levels, exact, strict=True):
        asked = EventQuery(query, level, k, where if "<" in where else None)
        found = find_events(tables, asked)
        events = [truth.Found(event.score, holder.uri, event.first, event.stop) for holder, event in found]
        recalls.append(truth.recall(best, events, k))
    return np.mean([each for each in recalls if each is not None])


def test_a_vector_index_finds_nearly_all_events(sounds: MadeIndex, tmp_path: Path) -> None:
    """Each build turns the vectors at random before it makes codes of them, and draws a sample for its partitions. Of
    128 numbers, the codes of a build find 0.96 to 0.99 of the 20 best events, so three builds count together."""
    built = replace(sounds, path=Path(shutil.copytree(sounds.path, tmp_path / "index")))
    pools_uri = journal.table_uri(built.path, "pools")
    recalls: dict[int, list[float]] = {1: [], 20: [], 200: []}
    for _ in range(3):
        pools = lance.dataset(pools_uri)
        make_here(pools, Step("pools", count_partitions(pools.count_rows()), 0, pools.count_rows()))
        for k, n_questions in ((1, 30), (20, 30), (200, 5)):
            recalls[k].append(measure_recall(built, sounds.vectors.texts(n_questions), k, per_event=10))
    assert min(map(np.mean, recalls.values())) >= 0.95


def test_rain_that_fills_the_first_pages_hides_no_event(sounds: MadeIndex) -> None:
    """Each of its files is one event, and has sixty pools."""
    queries = sounds.vectors.texts(4) + 3 * sounds.vectors.rain
    assert measure_recall(sounds, queries.astype(np.float32), 100, per_event=1) >= 0.95


class NothingFinished:
    def finished_audios(self) -> list[str]:
        return []


def test_pages_hold_each_pool_once(sounds: MadeIndex) -> None:
    """A page has pools that the pages before it missed, although they are better than the last one there."""
    tables = open_all(sounds.path, SearchSettings())
    for query in sounds.vectors.texts(3):
        source = candidates.PoolSearch(
            tables.pools, tables.n_pools, query, candidates.Scope(), k=1, settings=tables.settings
        )
        pages = list(source.pages(NothingFinished()))
        assert [len(page.candidates) for page in pages] == [200, 600, tables.n_pools - 800]
        found = [(each.audio_id, each.first) for page in pages for each in page.candidates]
        assert len(set(found)) == len(found) == tables.n_pools
        assert any(later.candidates[0].score > page.worst for page, later in itertools.pairwise(pages))


class RecordingPools:
    """A table of pools that notes how many rows each search is limited to, and how many rows are taken."""

    def __init__(self, pools: Any) -> None:
        self._pools = pools
        self.limits, self.taken = list[int](), list[int]()

    def search(self, *arguments: Any, **options: Any) -> Any:
        search = self._pools.search(*arguments, **options)
        self.limits.append(0)

        def limit(n: int, limit: Any = search.limit) -> Any:
            self.limits[-1] = n
            return limit(n)

        search.limit = limit
        return search

    def take_row_ids(self, row_ids: list[int]) -> Any:
        self.taken.append(len(row_ids))
        return self._pools.take_row_ids(row_ids)


def read_pages(sounds: MadeIndex, scope: candidates.Scope, k: int, n_pages: int) -> tuple[RecordingPools, list[int]]:
    """The pools, and the sizes of the first pages of a search."""
    pools, query = RecordingPools(open_table(str(sounds.path), "pools")), sounds.vectors.texts(1)[0]
    n_pools = open_table(str(sounds.path), "pools").count_rows()
    source = candidates.PoolSearch(pools, n_pools, query, scope, k=k, settings=SearchSettings(1))
    pages = itertools.islice(source.pages(NothingFinished()), n_pages)
    return pools, [len(page.candidates) for page in pages]


@pytest.mark.parametrize(("k", "least"), [(1, 100), (20, 100), (200, 1_000)])
def test_four_whole_vectors_are_compared_for_each_pool_of_a_page(sounds: MadeIndex, k: int, least: int) -> None:
    """Also for a large ``k``: recall is measured with 20 events or more."""
    pools, sizes = read_pages(sounds, candidates.Scope(), k, 1)
    assert sizes == [2 * least]
    assert pools.limits == pools.taken == [8 * least]


def test_no_whole_vector_is_read_twice_and_few_are_held_together(
    sounds: MadeIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(candidates, "POOLS_AT_ONCE", 1_000)
    pools, sizes = read_pages(sounds, candidates.Scope(), 1, 9)
    assert pools.limits == [800, 3_200, 10_200]
    assert sum(pools.taken) == sum(sizes) == 10_200
    assert max(pools.taken) == 1_000


def test_whole_vectors_of_other_files_are_not_compared(sounds: MadeIndex) -> None:
    """A twentieth of the audios is selected, but not named in the search."""
    audio_ids = open_table(str(sounds.path), "files").search().where("lot < 8").select(["audio_id"]).to_arrow()
    scope = candidates.Scope(frozenset(audio_ids["audio_id"].to_pylist()), share=8 / sounds.n_files)
    pools, sizes = read_pages(sounds, scope, 1, 9)
    assert pools.limits == [10_200]
    assert pools.taken == sizes == [8 * FILE_FRAMES // 25]


def test_pools_are_read_for_twenty_events_at_least() -> None:
    """Recall is measured with 20 events or more, so it would not hold for fewer pools."""
    for per_event, k, least in [(1, 1, 100), (5, 20, 100), (1, 30, 150), (40, 1, 800), (40, 30, 1_200)]:
        settings = SearchSettings(per_event)
        assert candidates.PoolSearch(None, 0, QUERY, candidates.Scope(), k=k, settings=settings).least == least


@pytest.mark.parametrize("max_chosen", [0, 10_000])
@pytest.mark.parametrize("limit", [85, 17, 2, 1])
def test_filters_keep_the_recall(
    sounds: MadeIndex, limit: int, max_chosen: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half of the files, a tenth, a hundredth and one; the search names them, or leaves the others out later. As many
    pools are read for each event as an audit would choose here."""
    monkeypatch.setattr("pipeline.search.find_events.FEW_FRAMES", 0)
    monkeypatch.setattr("pipeline.search.find_events.MAX_CHOSEN", max_chosen)
    queries = sounds.vectors.texts(10)
    assert measure_recall(sounds, queries, 20, 20, f"lot < {limit}") >= 0.98


@pytest.mark.parametrize(("max_pools", "low"), [(5_000, 0.95), (2_000, 0.8)])
def test_filters_keep_most_of_the_recall_where_a_search_returns_few_of_their_pools(
    sounds: MadeIndex, max_pools: int, low: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tenth of the files, not named: the search returns their 500 or 200 best pools by the codes, and all are
    compared."""
    monkeypatch.setattr("pipeline.search.find_events.FEW_FRAMES", 0)
    monkeypatch.setattr("pipeline.search.find_events.MAX_CHOSEN", 0)
    monkeypatch.setattr(candidates, "MAX_POOLS", max_pools)
    recall = measure_recall(sounds, sounds.vectors.texts(20), 20, 10, "lot < 17")
    assert recall >= low


def test_search_ends_with_what_it_found_at_the_largest_number_of_pools(
    sounds: MadeIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = score(sounds, query := sounds.vectors.rain)
    levels = find_levels(scores, 0.2)
    everything = plain_events(scores, levels)
    monkeypatch.setattr(candidates, "MAX_POOLS", 400)  # fewer than the rain has
    tables = open_all(sounds.path, SearchSettings(1))
    [(events, is_cut)] = find_all_events(tables, [EventQuery(query, levels, 40)])
    assert set(name(events)) <= set(everything)
    assert 1 <= len(events) < min(40, len(everything))
    assert is_cut
    assert ask_for_one(tables, query, levels) == (1, True)  # 800 pools should have been compared


@pytest.mark.parametrize("max_pools", [799, 800])
def test_search_says_that_too_few_pools_were_compared_on_the_page_where_it_ends(
    sounds: MadeIndex, max_pools: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four for each of 200. The best event is found either way."""
    levels = find_levels(score(sounds, query := sounds.vectors.rain), 0.2)
    monkeypatch.setattr(candidates, "MAX_POOLS", max_pools)
    tables = open_all(sounds.path, SearchSettings(1))
    assert ask_for_one(tables, query, levels) == (1, max_pools < 800)


@pytest.mark.parametrize("max_pools", [9_000, 20_000])
def test_search_says_that_too_few_pools_of_selected_files_were_compared(
    sounds: MadeIndex, max_pools: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A twentieth of the files, not named, so that the search has to return twenty times as many pools."""
    monkeypatch.setattr("pipeline.search.find_events.FEW_FRAMES", 0)
    monkeypatch.setattr("pipeline.search.find_events.MAX_CHOSEN", 0)
    monkeypatch.setattr(candidates, "MAX_POOLS", max_pools)
    levels = find_levels(score(sounds, query := sounds.vectors.texts(1)[0]), 0.2)
    tables = open_all(sounds.path, SearchSettings(1))
    assert ask_for_one(tables, query, levels, "lot < 8") == (1, max_pools < tables.n_pools)


def ask_for_one(tables: EventTables, query: Any, levels: Levels, where: str | None = None) -> tuple[int, bool]:
    """How many events were found, and whether the search was cut."""
    [(events, is_cut)] = find_all_events(tables, [EventQuery(query, levels, 1, where)])
    return len(events), is_cut
