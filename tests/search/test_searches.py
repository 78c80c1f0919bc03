"""An index asked through its own vector indexes, and the audit of it: right and spoilt ones."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import pytest

from pipeline.grid import Grid, window_starts
from pipeline.index.handle import Generation, open_index
from pipeline.index.search_settings import SearchSettings
from pipeline.index.tuning import Tuning, has_vector_index
from pipeline.search import audit_index as module
from pipeline.search import rungs
from pipeline.search.audit import Found
from pipeline.search.audit_index import Audited, audit_index
from pipeline.search.client import Index
from pipeline.search.clips import find_clips
from pipeline.search.event_reader import EventQuery
from pipeline.search.event_tables import EventTables
from pipeline.search.events import Event, Levels
from pipeline.search.find_events import find_events
from pipeline.search.searches import IndexSearches
from pipeline.search.tables import open_table
from tests.helpers.tables import MODEL, Vectors, write_index
from tests.helpers.tuning import FakeModels, add_vector_index
from tests.helpers.vector_tables import ClipTable, UnevenTable

GRID = Grid(250, 10)
LEVELS = Levels(on=2.6, off=2.1, gap_frames=5, min_frames=0)
N_FILES = 30
MEASURES: tuple[Literal["dot"], Literal["cosine"]] = ("dot", "cosine")


def draw_bursts(rng: np.random.Generator) -> tuple[Vectors, Vectors]:
    """A minute of a loud sound now and then, and clips."""
    frames = rng.normal(0, 0.1, (1_500, 8))
    for first in rng.integers(0, 1_450, 12):
        direction = rng.normal(0, 1, 8)
        frames[first : first + rng.integers(5, 50)] += 3 * direction / np.linalg.norm(direction)
    return frames.astype(np.float16), rng.standard_normal((len(window_starts(1_500, GRID)), 8)).astype(np.float16)


def write(
    path: Path | str,
    *names: str,
    spoil: bool = False,
    logit_scale: float = 2.0,
    logit_bias: float = -6.0,
    n_files: int = N_FILES,
) -> Generation:
    """By default, an event begins at 2.6."""
    rng = np.random.default_rng(0)
    model = MODEL | {"logit_scale": logit_scale, "logit_bias": logit_bias}
    write_index(path, {f"/{n}.wav": draw_bursts(rng) for n in range(n_files)}, GRID, None, None, model)
    if names:
        add_vector_index(str(path), *names, spoil=spoil)
    return open_index(path).live


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Generation:
    return write(tmp_path_factory.mktemp("searches") / "index", "pools", "clips")


def audit(tables: Generation) -> Tuning:
    return audit_index(Audited(tables, IndexSearches(tables), FakeModels()), 0.98)


def test_answers_through_the_index_are_those_of_a_scan(tables: Generation) -> None:
    searches = IndexSearches(tables)
    queries = np.random.default_rng(1).standard_normal((5, 8)).astype(np.float32)
    opened = {name: open_table(tables.path, name, tables.versions[name]) for name in ("frames", "files", "clips")}
    exact = EventTables(opened["frames"], opened["files"])
    events = searches.events(queries, 10, LEVELS, SearchSettings(pools_per_event=50))
    found_clips = {
        measure: searches.clips(queries, 10, SearchSettings(clip_refine=16), measure) for measure in MEASURES
    }
    for query, found in zip(queries, events, strict=True):
        scanned = find_events(exact, EventQuery(query, LEVELS, 10))
        assert found == [(holder.uri, event) for holder, event in scanned]
    for measure in MEASURES:
        for query, answer in zip(queries, found_clips[measure], strict=True):
            hits = find_clips(opened["clips"], query, k=10, all_windows=True, measure=measure)
            assert answer.found == [Found(hit.clip_id, 0, 1, hit.score) for hit in hits]
            assert answer.is_full


def spans(events: Sequence[Event]) -> list[tuple[str, float, float, float]]:
    return [(event.uri, event.start_s, event.end_s, event.score) for event in events]


def test_index_in_an_object_store_is_searched_and_audited(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "N_QUESTIONS", 32)
    path = f"{bucket}/{tmp_path.name}/index"
    tables = write(path, "pools", "clips", n_files=6)
    assert has_vector_index(tables, "pools")
    assert has_vector_index(tables, "clips")
    index, texts = Index(path, models=FakeModels()), ["rain", "a dog", "wind"]
    n_exact = n_found = 0
    for found, exact in zip(index.locate(texts, k=20), index.locate(texts, k=20, exact=True), strict=True):
        n_exact, n_found = n_exact + len(exact), n_found + len({*spans(found)} & {*spans(exact)})
    assert 0.9 * n_exact <= n_found
    assert n_exact > 40
    assert index.search("rain", k=20) == index.search("rain", k=20, exact=True)
    tuning = audit(tables)
    assert list(tuning.measured) == ["locate", "query", "similar"]
    assert all(measured.recall and measured.recall >= 0.97 for measured in tuning.measured.values())


def test_index_that_finds_everything_has_a_recall_of_one(tables: Generation, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "N_QUESTIONS", 64)
    tuning = audit(tables)
    assert list(tuning.measured) == ["locate", "query", "similar"]
    for measured in tuning.measured.values():
        assert measured.recall is not None
        assert measured.recall >= 0.98
        assert measured.n_answers > 200
    assert tuning.locate is not None
    assert tuning.locate.threshold == 0.3


def test_index_whose_pools_are_bad_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each pool has the vector of another one, so the best pools hold the best events by chance only."""
    monkeypatch.setattr(module, "N_QUESTIONS", 64)
    monkeypatch.setattr(rungs, "POOLS_PER_EVENT", (5, 8))  # more of them would be all pools of so few files
    tuning = audit(write(tmp_path / "index", "pools", spoil=True))
    assert tuning.locate is not None
    assert tuning.locate.recall is not None
    assert tuning.locate.high < 0.9
    assert tuning.settings.pools_per_event == 8
    assert tuning.query is None


def test_too_few_partitions_are_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Clips without any structure: of eight partitions, one holds few of the best, but as many as are compared."""
    monkeypatch.setattr(module, "N_QUESTIONS", 64)
    ClipTable(tmp_path / "index").run({f"/{number}.wav": 200 for number in range(49)})
    add_vector_index(str(tmp_path / "index"), "clips", n_partitions=8)
    monkeypatch.setattr(rungs, "CLIP_PROBES", (1 / 8, 1 / 4))
    tables = open_index(tmp_path / "index").live
    tuning = audit(tables)
    assert tuning.measured_on["clips"].n_partitions == 8
    assert tuning.settings.clip_probe_share is None  # all of them
    assert tuning.query is not None
    assert tuning.query.recall is not None
    assert tuning.query.recall >= 0.96  # the half that measures may find a little less than the one that chose
    assert tuning.query.high >= 0.98


def test_sounds_get_as_many_candidates_as_hold_the_best_by_cosine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where lengths vary tenfold, 200 candidates by dot product are too few, which the audit notices."""
    monkeypatch.setattr(module, "N_QUESTIONS", 64)
    monkeypatch.setattr(rungs, "LEAST_NUMBERS", 0)  # the vectors are short, and are searched as longer ones are
    path = str(tmp_path / "index")
    table = UnevenTable(path)
    table.run({f"/{number}.wav": 100 for number in range(40)})
    add_vector_index(path, "clips")
    tables = open_index(path).live
    sounds = np.random.default_rng(1).standard_normal((20, 8)).astype(np.float32)

    def measure(settings: SearchSettings) -> float:
        answers = IndexSearches(tables).clips(sounds, 20, settings, "cosine")
        found = [{each.owner for each in answer.found} for answer in answers]
        return float(np.mean([len(set(table.rank(s)[0][:20]) & of) / 20 for s, of in zip(sounds, found, strict=True)]))

    few = SearchSettings(similar_candidates=200)
    assert measure(few) < 0.9
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rungs, "SIMILAR_CANDIDATES", (200,))
        tuning = audit(tables)
    assert tuning.settings.similar_candidates == 200
    assert tuning.similar is not None
    assert tuning.similar.high < 0.95
    assert tuning.similar.recall == pytest.approx(measure(few), abs=0.15)
    tuning = audit(tables)
    assert tuning.similar is not None
    assert tuning.similar.recall is not None
    assert tuning.similar.recall >= 0.97
    assert tuning.settings.similar_candidates > 200
    assert measure(tuning.settings) >= 0.95
    assert tuning.settings.clip_refine < 64  # `query` needs no more than before


def test_threshold_falls_where_too_little_reaches_the_usual_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "N_QUESTIONS", 32)
    tuning = audit(write(tmp_path / "index", "pools", logit_scale=0.3, logit_bias=-3.5))
    assert tuning.locate is not None
    assert tuning.locate.recall is not None
    assert tuning.locate.threshold == 0.1


def test_sample_without_events_at_any_threshold_leaves_the_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "N_QUESTIONS", 32)
    tuning = audit(write(tmp_path / "index", "pools", logit_scale=0.3, logit_bias=-100.0))
    assert tuning.locate is not None
    assert (tuning.locate.recall, tuning.locate.n_answers, tuning.locate.best_low) == (None, 0, 0.0)
    assert tuning.settings == SearchSettings()
