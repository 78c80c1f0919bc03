"""The audit of a whole index: the recall of searches that lose a known share, and the settings that follow."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from pipeline.grid import Grid
from pipeline.index.handle import Generation, open_index
from pipeline.index.search_settings import SearchSettings
from pipeline.index.tables import to_matrix
from pipeline.index.tuning import Tuning, read_trained
from pipeline.search import audit_index as module
from pipeline.search import rungs
from pipeline.search.audit import Answer, Found
from pipeline.search.audit_index import Audited, audit_index, count_sampled, draw_sounds, find_limit_s
from pipeline.search.clip_sample import ClipSample, exact_clips
from pipeline.search.clips import Measure, count_candidates
from pipeline.search.events import EventFrames, Levels
from pipeline.search.rungs import (
    find_least_candidates,
    find_least_refine,
    list_clip_rungs,
    list_pool_rungs,
    list_similar_rungs,
    list_wider,
)
from pipeline.search.scores import MAX_COMPARED, cosines, dot_products
from tests.helpers.tables import draw_vectors, write_index
from tests.helpers.tuning import FakeModels, add_vector_index
from tests.helpers.vector_tables import UnevenTable

GRID = Grid(250, 10)
Matrix = npt.NDArray[np.float32]


class LossySearches:
    """Answers by a scan, and finds each clip with a chance that depends on the settings. By cosine, it ranks as many of
    the best by dot product as the settings say.

    Args:
        of_strangers: how many times smaller the chances are where a question is like no clip.
    """

    def __init__(self, tables: Generation, chances: dict[int, float], of_strangers: float = 1.0) -> None:
        rows = tables.open("clips").to_table(columns=["clip_id", "vector"])
        self._ids, self._vectors = rows["clip_id"].to_pylist(), to_matrix(rows["vector"])
        self._chances, self._of_strangers = chances, of_strangers

    def chance(self, settings: SearchSettings, measure: Measure) -> float:
        return self._chances[settings.clip_refine]

    def clips(self, vectors: Matrix, k: int, settings: SearchSettings, measure: Measure) -> list[Answer]:
        answers = []
        for vector in vectors:
            luck = np.random.default_rng(vector.view(np.uint32)).random(len(self._ids))
            factor = self._of_strangers if cosines(self._vectors, vector).max() < 0.99 else 1.0
            [kept] = np.nonzero(luck < factor * self.chance(settings, measure))
            scores = dot_products(self._vectors[kept], vector)
            if measure == "cosine":
                kept = kept[np.argsort(-scores)[: settings.similar_candidates]]
                scores = cosines(self._vectors[kept], vector)
            best = np.argsort(-scores)[:k]
            answers.append(Answer([Found(self._ids[kept[row]], 0, 1, float(scores[row])) for row in best], True))
        return answers

    def events(
        self, vectors: Matrix, k: int, levels: Levels, settings: SearchSettings
    ) -> list[list[tuple[str, EventFrames]]]:
        raise AssertionError("this index has no pools")


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Generation:
    path = tmp_path_factory.mktemp("audit") / "index"
    rng = np.random.default_rng(0)
    write_index(path, {f"/{n}.wav": draw_vectors(rng, 3_000, GRID) for n in range(60)}, GRID)
    add_vector_index(str(path))
    return open_index(path).live


@pytest.fixture(autouse=True)
def short_vectors(monkeypatch: pytest.MonkeyPatch) -> None:
    """The vectors here have 8 numbers; they are searched as longer ones are."""
    monkeypatch.setattr(rungs, "LEAST_NUMBERS", 0)


def audit(tables: Generation, chances: dict[int, float], wanted: float = 0.98) -> Tuning:
    return audit_index(Audited(tables, LossySearches(tables, chances), FakeModels()), wanted)


def test_fewest_whole_vectors_that_reach_the_recall_are_chosen(tables: Generation) -> None:
    tuning = audit(tables, {4: 0.7, 8: 0.9, 16: 0.997, 32: 1.0, 64: 1.0})
    assert replace(tuning.settings, similar_candidates=1_600) == SearchSettings(clip_refine=16)
    assert tuning.locate is None
    for measured in (tuning.query, tuning.similar):
        assert measured is not None
        assert measured.recall is not None
        assert measured.recall > 0.98
        assert measured.low > 0.96
    assert tuning.query is not None
    assert tuning.query.n_questions == 320
    assert tuning.query.n_dimensions == pytest.approx(8, abs=0.5)
    assert (tuning.n_clips, tuning.n_frames) == (60 * 12, 180_000)
    assert tuning.measured_on == {"clips": read_trained(tables, "clips")}


ALWAYS = dict.fromkeys((4, 8, 16, 32, 64), 1.0)


class EvenTable(UnevenTable):
    longest = 1.0


def write_clips(table: UnevenTable, n_partitions: int = 1) -> Generation:
    table.run({f"/{number}.wav": 100 for number in range(40)})
    add_vector_index(table.path, n_partitions=n_partitions)
    return open_index(table.path).live


@pytest.mark.parametrize(("kind", "expected"), [(EvenTable, (800,)), (UnevenTable, (800, 1_600))])
def test_fewest_candidates_that_hold_the_best_by_cosine_are_chosen(
    tmp_path: Path, kind: type[UnevenTable], expected: tuple[int, ...]
) -> None:
    """Of vectors of one length, the best by dot product are the best by cosine."""
    tuning = audit(write_clips(kind(tmp_path / "index")), ALWAYS)
    assert tuning.query is not None
    assert tuning.similar is not None
    assert tuning.query.recall == 1.0
    assert tuning.similar.recall is not None
    assert tuning.similar.recall >= 0.98
    assert (tuning.similar.k, tuning.similar.n_questions) == (20, 320)
    assert tuning.settings.similar_candidates in expected
    assert tuning.settings.clip_refine == 4


def test_too_few_candidates_are_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rungs, "SIMILAR_CANDIDATES", (200,))
    tuning = audit(write_clips(UnevenTable(tmp_path / "index")), ALWAYS)
    assert tuning.query is not None
    assert tuning.similar is not None
    assert tuning.query.recall == 1.0
    assert tuning.similar.high < 0.9


def test_partitions_that_only_similar_needs_are_read_with_as_few_candidates_as_will_do(tmp_path: Path) -> None:
    class Partitioned(LossySearches):
        def chance(self, settings: SearchSettings, measure: Measure) -> float:
            return 0.7 if measure == "cosine" and settings.clip_probe_share else 1.0

    tables = write_clips(EvenTable(tmp_path / "index"), n_partitions=16)
    tuning = audit_index(Audited(tables, Partitioned(tables, ALWAYS), FakeModels()), 0.98)
    assert tuning.settings == SearchSettings(similar_candidates=800)
    assert tuning.query is not None
    assert tuning.similar is not None
    assert (tuning.query.recall, tuning.similar.recall) == (1.0, 1.0)


def test_losses_of_sounds_that_are_like_no_clip_are_noticed(tables: Generation) -> None:
    searches = LossySearches(tables, ALWAYS, of_strangers=0.7)
    tuning = audit_index(Audited(tables, searches, FakeModels()), 0.98)
    assert tuning.similar is not None
    assert tuning.similar.recall == pytest.approx(0.775, abs=0.05)  # a quarter of the questions are clips


def test_answers_that_are_parts_of_the_question_do_not_count() -> None:
    """They are in the sample for certain. A clip here has a number of its own, so a sound tells what it is made of."""
    sample = ClipSample([str(n) for n in range(12)], np.arange(12) // 2, np.eye(12, dtype=np.float16), 6)
    sounds, own = draw_sounds(sample, np.random.default_rng(0))
    n_parts = [len(np.flatnonzero(sound)) for sound in sounds]
    assert sorted(set(n_parts)) in ([1, 3], [1, 2, 3])
    for sound, audios in zip(sounds, own, strict=True):
        assert {*audios.tolist()} == {*(np.flatnonzero(sound) // 2).tolist()}
    exact = exact_clips(sample, sounds, 20, left_out=own, measure="cosine")
    for answer, audios in zip(exact, own, strict=True):
        assert not set(answer.units) & {*audios.tolist()}


def test_index_that_loses_clips_whatever_the_settings_is_noticed(tables: Generation) -> None:
    tuning = audit(tables, dict.fromkeys((4, 8, 16, 32, 64), 0.8))
    assert tuning.settings == SearchSettings(clip_refine=64, similar_candidates=800)
    for measured in (tuning.query, tuning.similar):
        assert measured is not None
        assert measured.recall == pytest.approx(0.8, abs=0.06)
        assert measured.high < 0.9


def test_tick_is_called_while_questions_are_asked(tables: Generation) -> None:
    ticks: list[int] = []
    searches = LossySearches(tables, ALWAYS)
    audit_index(Audited(tables, searches, FakeModels(), tick=lambda: ticks.append(1)), 0.98)
    assert len(ticks) >= 2 * 320 / 16


def test_sample_of_some_files_measures_the_same(tables: Generation, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_CLIPS", 60)
    tuning = audit(tables, dict.fromkeys((4, 8, 16, 32, 64), 0.8))
    assert tuning.query is not None
    assert tuning.query.low < 0.8 < tuning.query.high
    assert tuning.query.k > 20  # a sample holds enough answers only where more are asked for


def test_more_whole_vectors_are_compared_where_codes_are_coarse(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    assert [find_least_refine(dimension) for dimension in (1_024, 128, 64, 8, 2)] == [4, 4, 8, 64, 64]
    found = list_clip_rungs(SearchSettings(clip_refine=8), 64, 20)
    assert [(rung.clip_probe_share, rung.clip_refine) for rung in found] == [
        (1 / 2, 8),
        *((None, n) for n in (8, 16, 32, 64)),
    ]


def test_partitions_grow_before_the_whole_vectors_do() -> None:
    found = list_clip_rungs(SearchSettings(), 64, 20)
    assert [(rung.clip_probe_share, rung.clip_refine) for rung in found] == [
        (1 / 2, 4),
        *((None, n) for n in (4, 8, 16, 32, 64)),
    ]
    for n_partitions, expected in ((8, [1 / 2, *[None] * 5]), (1, [None] * 5)):
        found = list_clip_rungs(SearchSettings(), n_partitions, 20)
        assert [rung.clip_probe_share for rung in found] == expected


@pytest.mark.parametrize(("k", "refine"), [(20, (4, 8, 16, 32, 64)), (300, (4, 8, 16)), (1_000, (4, 8))])
def test_settings_that_compare_no_more_vectors_are_not_tried(k: int, refine: tuple[int, ...]) -> None:
    """A question for 300 clips compares at most 16 vectors for each of its 1,200 candidates."""
    found = list_clip_rungs(SearchSettings(pools_per_event=10), 1, k)
    assert found == [SearchSettings(pools_per_event=10, clip_refine=n) for n in refine]
    n_candidates = count_candidates(k)
    n_compared = [min(n, MAX_COMPARED // n_candidates) for n in refine]
    assert n_compared == sorted(set(n_compared))


@pytest.mark.parametrize(
    ("k", "n_clips", "expected"),
    [
        (20, 10**6, [800, 1_600, 3_200, 6_400, 12_800]),
        (20, 1_000, [800, 1_600]),
        (300, 10**6, [1_200, 1_600, 3_200, 6_400, 12_800]),
        (1_000, 5_000, [4_000, 6_400]),
    ],
)
def test_candidates_are_tried_until_all_clips_are(k: int, n_clips: int, expected: list[int]) -> None:
    """A question for ``k`` clips has four candidates for each in any case."""
    default = SearchSettings(clip_refine=8)
    assert list_similar_rungs(default, n_clips, k) == [replace(default, similar_candidates=n) for n in expected]


def test_more_candidates_are_compared_by_cosine_where_codes_are_coarse(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    expected = [800, 800, 1_600, 3_200, 12_800]
    assert [find_least_candidates(dimension) for dimension in (1_024, 512, 128, 64, 8)] == expected
    found = list_similar_rungs(SearchSettings(), 10**6, 20, 3_200)
    assert [rung.similar_candidates for rung in found] == [3_200, 6_400, 12_800]
    assert [rung.similar_candidates for rung in list_similar_rungs(SearchSettings(), 720, 20, 3_200)] == [3_200]


def test_partitions_beyond_those_of_query_are_tried_up_to_all() -> None:
    half = SearchSettings(clip_probe_share=1 / 2, clip_refine=8)
    assert list_wider(half, 64) == [SearchSettings(clip_refine=8)]
    assert list_wider(replace(half, clip_probe_share=1 / 4), 64) == [half, SearchSettings(clip_refine=8)]
    assert list_wider(SearchSettings(), 64) == []


@pytest.mark.parametrize(
    ("k", "n_pools", "expected"), [(20, 10_000, (5, 10, 20, 40)), (20, 399, (5, 10, 20)), (1_000, 5_000, (5,))]
)
def test_pools_are_tried_until_all_are_read(k: int, n_pools: int, expected: tuple[int, ...]) -> None:
    assert list_pool_rungs(k, n_pools) == [SearchSettings(pools_per_event=n) for n in expected]


def test_audit_ends_with_the_settings_beyond_which_nothing_more_is_compared(tables: Generation) -> None:
    """Its settings are those of the texts, where these ask for fewer clips."""
    sizes = list[int]()

    class Counting(LossySearches):
        def clips(self, vectors: Matrix, k: int, settings: SearchSettings, measure: Measure) -> list[Answer]:
            sizes.append(settings.clip_refine)
            return super().clips(vectors, k, settings, measure)

    chances = dict.fromkeys((4, 8, 16, 32, 64), 0.8)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rungs, "MAX_COMPARED", 8 * 200)
        tuning = audit_index(Audited(tables, Counting(tables, chances), FakeModels()), 0.98)
    assert tuning.settings.clip_refine == max(sizes) == 8


@pytest.mark.parametrize(
    ("n_rows", "n_sampled"), [(10_000, 400_000), (2_000_000, 625_000), (10**7, 1_414_213), (9 * 10**8, 2_000_000)]
)
def test_sample_grows_slower_than_the_table(n_rows: int, n_sampled: int) -> None:
    assert count_sampled(n_rows, 320) == n_sampled


def test_time_for_questions_is_bounded() -> None:
    assert [find_limit_s(n) for n in (1, 1_000_000, 10**9)] == [60.0, 60.0, 240.0]
