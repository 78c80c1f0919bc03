"""Ranking against a plain computation of all scores, folding, filters, and what is refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jobs.bench import truth
from pipeline.errors import UsageError
from pipeline.grid import Grid, window_starts
from pipeline.index import journal
from pipeline.index.handle import open_index
from pipeline.index.search_settings import SearchSettings
from pipeline.search.clips import find_clips
from pipeline.search.scores import dot_products
from pipeline.search.tables import open_table
from tests.helpers.made import MadeIndex
from tests.helpers.made import made_clips as made_clips
from tests.helpers.tables import draw_vectors, write_index

GRID = Grid(10, 2)
N_FRAMES = (5, 10, 11, 50, 200)
WEIRD = '/a b/it\'s 100% "new"\n.wav'


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("search") / "index"
    names = {n: WEIRD if n == 11 else f"/{n}.wav" for n in N_FRAMES}
    write_index(path, {name: draw_vectors(rng, n, GRID) for n, name in names.items()}, GRID)
    return path


@pytest.fixture(scope="module")
def clips(index: Path) -> Any:
    return open_table(str(index), "clips", journal.read_published(index).versions["clips"])


@pytest.fixture(scope="module")
def rows(clips: Any) -> list[dict[str, Any]]:
    result: list[dict[str, Any]] = clips.to_arrow().to_pylist()
    for row in result:
        row["vector"] = np.array(row["vector"], np.float32)
    return result


QUERY = np.random.default_rng(1).standard_normal(8).astype(np.float32)


def test_all_windows_are_ranked_by_dot_product(clips: Any, rows: list[dict[str, Any]]) -> None:
    expected = sorted(rows, key=lambda row: -float(row["vector"] @ QUERY))
    hits = find_clips(clips, QUERY, k=12, all_windows=True)
    assert [hit.clip_id for hit in hits] == [row["clip_id"] for row in expected[:12]]
    assert [hit.rank for hit in hits] == list(range(1, 13))
    for hit, row in zip(hits, expected, strict=False):
        assert hit.score == pytest.approx(float(row["vector"] @ QUERY), rel=1e-6)
        assert (hit.uri, hit.start_s, hit.end_s) == (row["uri"], row["start_s"], row["end_s"])
        assert hit.probability is None


def test_overlapping_windows_fold_into_the_best(clips: Any, rows: list[dict[str, Any]]) -> None:
    hits = find_clips(clips, QUERY, k=len(rows))
    assert len(hits) < len(rows)
    scores = {row["clip_id"]: float(row["vector"] @ QUERY) for row in rows}
    for hit in hits:
        overlapping = [
            row for row in rows if row["uri"] == hit.uri and row["start_s"] < hit.end_s and hit.start_s < row["end_s"]
        ]
        others = {other.clip_id for other in hits} - {hit.clip_id}
        assert not others & {row["clip_id"] for row in overlapping}
    kept = {hit.clip_id for hit in hits}
    for row in rows:  # whatever was folded away overlaps something better
        if row["clip_id"] not in kept:
            assert any(
                hit.uri == row["uri"]
                and row["start_s"] < hit.end_s
                and hit.start_s < row["end_s"]
                and hit.score >= scores[row["clip_id"]]
                for hit in hits
            )


def test_folding_gives_k_hits_even_if_one_file_takes_all_candidates(tmp_path: Path) -> None:
    grid = Grid(10, 5)
    n_frames = 3_000  # 599 windows, all better than those of the other files
    loud = np.ones((len(window_starts(n_frames, grid)), 8), np.float16)
    quiet = np.full((1, 8), 0.5, np.float16)
    frames = np.ones((10, 8), np.float16)
    long = np.ones((n_frames, 8), np.float16)
    audios = {"/long.wav": (long, loud), "/a.wav": (frames, quiet), "/b.wav": (frames, quiet)}
    write_index(tmp_path / "index", audios, grid)
    table = open_table(str(tmp_path / "index"), "clips", journal.read_published(tmp_path / "index").versions["clips"])
    hits = find_clips(table, np.ones(8, np.float32), k=1_000)
    assert {hit.uri for hit in hits} == set(audios)
    assert [hit.uri for hit in hits[-2:]] == ["/a.wav", "/b.wav"]


def test_cosine_ranks_a_clip_first_for_its_own_vector(clips: Any, rows: list[dict[str, Any]]) -> None:
    smallest = min(rows, key=lambda row: float(np.linalg.norm(row["vector"])))
    hits = find_clips(clips, smallest["vector"], k=3, measure="cosine")
    assert hits[0].clip_id == smallest["clip_id"]
    assert hits[0].score == pytest.approx(1.0, abs=1e-6)
    by_dot = find_clips(clips, smallest["vector"], k=3)
    assert by_dot[0].clip_id != smallest["clip_id"]  # which is why similar sounds are ranked by cosine


def test_where_is_applied_before_the_search(clips: Any, rows: list[dict[str, Any]]) -> None:
    worst = min(rows, key=lambda row: float(row["vector"] @ QUERY))
    hits = find_clips(clips, QUERY, k=1, where=f"clip_id = '{worst['clip_id']}'")
    assert [hit.clip_id for hit in hits] == [worst["clip_id"]]
    at = find_clips(clips, QUERY, k=100, where="start_s >= 1 AND sample_rate_hz = 48000", all_windows=True)
    expected = {row["clip_id"] for row in rows if row["start_s"] >= 1 and row["sample_rate_hz"] == 48_000}
    assert {hit.clip_id for hit in at} == expected
    assert expected


@pytest.mark.parametrize("measure", ["dot", "cosine"])
def test_where_may_leave_few_clips_or_none(clips: Any, rows: list[dict[str, Any]], measure: Any) -> None:
    assert find_clips(clips, QUERY, k=5, where="uri = '/none.wav'", measure=measure) == []
    only = find_clips(clips, QUERY, k=50, where="uri = '/5.wav'", measure=measure)
    assert [hit.uri for hit in only] == ["/5.wav"]


def test_best_clip_is_found_even_if_rounding_ranks_hundreds_before_it(tmp_path: Path) -> None:
    rng = np.random.default_rng(407)
    query = rng.normal(1, 0.5, 8).astype(np.float32)
    exact = query.astype(np.float64)
    away = rng.standard_normal((400, 8))  # made long, and all but at right angles to the query
    away -= np.outer(away @ exact / (exact @ exact), exact)
    away *= 1_000 / np.linalg.norm(away, axis=1, keepdims=True)
    vectors = (away + exact / (exact @ exact)).astype(np.float16)
    scores, by_engine = (dot_products(vectors, each) for each in (query, query.astype(np.float16).astype(np.float32)))
    assert np.count_nonzero(by_engine > by_engine[scores.argmax()]) > 200
    write_index(tmp_path / "index", {"/a.wav": (np.zeros((4_000, 8), np.float16), vectors)}, Grid(10, 0))
    [hit] = find_clips(open_table(str(tmp_path / "index"), "clips"), query, k=1)
    assert hit.score == scores.max()


def test_strange_file_name_comes_back_unchanged(clips: Any) -> None:
    quoted = WEIRD.replace("'", "''")
    assert {hit.uri for hit in find_clips(clips, QUERY, k=5, where=f"uri = '{quoted}'")} == {WEIRD}


@pytest.mark.parametrize("where", ["nonsense = 1", "start_s >", "uri LIKE 3 AND", "start_s = 'five'"])
def test_error_of_a_wrong_where_is_one_line(clips: Any, where: str) -> None:
    with pytest.raises(UsageError) as caught:
        find_clips(clips, QUERY, k=1, where=where)
    assert where in str(caught.value)
    assert "start_s" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert ".rs" not in str(caught.value)


@pytest.mark.parametrize("query", [np.full(8, np.nan), np.full(8, 1e5), np.ones(7), np.ones((2, 8))])
def test_query_that_lance_would_answer_with_nonsense_is_refused(clips: Any, query: Any) -> None:
    with pytest.raises(UsageError, match="8 finite numbers"):
        find_clips(clips, query.astype(np.float32), k=1)


# --- a vector index as a run builds it --------------------------------------------------------------------------------


def open_clips(made_clips: MadeIndex) -> Any:
    live = open_index(made_clips.path).live
    return open_table(live.path, "clips", live.versions["clips"])


ONE = SearchSettings(clip_probes=1, clip_refine=16)
"""One of 55 partitions is read, if it holds enough clips: 10 to 1,500."""


@pytest.mark.parametrize(("n_probes", "low", "high"), [(5, 0.1, 0.9), (55, 0.95, 1.0)])
def test_only_as_many_partitions_are_read_as_the_settings_allow(
    made_clips: MadeIndex, n_probes: int, low: float, high: float
) -> None:
    clips, queries = open_clips(made_clips), made_clips.vectors.texts(20)
    [exact] = truth.best_clips(str(made_clips.path), queries, [made_clips.n_files], 20, by_cosine=False)
    settings, recalls = SearchSettings(clip_probes=n_probes, clip_refine=16), []
    for query, best in zip(queries, exact, strict=True):
        hits = find_clips(clips, query, k=20, all_windows=True, settings=settings)
        recalls.append(truth.recall(best, [truth.Found(hit.score, hit.clip_id) for hit in hits], 20) or 0.0)
    assert low <= np.mean(recalls) <= high


@pytest.mark.parametrize("measure", ["dot", "cosine"])
@pytest.mark.parametrize("all_windows", [True, False])
def test_few_partitions_give_as_many_hits_as_are_asked_for(
    made_clips: MadeIndex, all_windows: bool, measure: Any
) -> None:
    clips = open_clips(made_clips)
    for query in made_clips.vectors.texts(5):
        hits = find_clips(clips, query, k=1_000, all_windows=all_windows, measure=measure, settings=ONE)
        assert len({hit.clip_id for hit in hits}) == len(hits) == 1_000
    whole = find_clips(clips, query, k=20_000, all_windows=all_windows, measure=measure, settings=ONE)
    assert whole == find_clips(clips, query, k=20_000, all_windows=all_windows, measure=measure)


@pytest.mark.parametrize("k", [20, 1_000])
@pytest.mark.parametrize("limit", [1_000, 200, 20, 1])
def test_filters_keep_the_recall(made_clips: MadeIndex, limit: int, k: int) -> None:
    """Half of the files, a tenth, a hundredth, and one. At most 120 clips are compared one by one."""
    clips, queries, where = open_clips(made_clips), made_clips.vectors.texts(10), f"lot < {limit}"
    [exact] = truth.best_clips(str(made_clips.path), queries, [limit], k, by_cosine=False)
    recalls = []
    for query, best in zip(queries, exact, strict=True):
        hits = find_clips(clips, query, k=k, where=where, all_windows=True, settings=ONE)
        assert len(hits) == min(k, 6 * limit)
        recalls.append(truth.recall(best, [truth.Found(hit.score, hit.clip_id) for hit in hits], k) or 0.0)
        if limit <= 20:
            assert hits == find_clips(clips, query, k=k, where=where, all_windows=True)
    assert np.mean(recalls) >= 0.95
