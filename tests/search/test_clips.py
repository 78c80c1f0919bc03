"""Ranking against a plain computation of all scores, folding, filters, and what is refused."""

from dataclasses import replace
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
from pipeline.index.writer import Writer
from pipeline.search.clips import find_clips
from pipeline.search.scores import MAX_COMPARED, dot_products
from pipeline.search.tables import open_table
from tests.helpers.made import MadeIndex
from tests.helpers.made import made_clips as made_clips
from tests.helpers.tables import draw_vectors, write_index
from tests.helpers.tuning import add_vector_index
from tests.helpers.vector_tables import ClipTable, UnevenTable

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


@pytest.mark.parametrize("k", [1, 3, 20, 1_000])
def test_clips_by_cosine_fold_into_the_best_and_keep_their_columns(
    clips: Any, rows: list[dict[str, Any]], k: int
) -> None:
    for row in rows:
        row["cosine"] = float(row["vector"] @ QUERY / np.linalg.norm(row["vector"]) / np.linalg.norm(QUERY))
    kept: list[dict[str, Any]] = []
    for row in sorted(rows, key=lambda row: -row["cosine"]):
        same = [other for other in kept if other["file_id"] == row["file_id"]]
        if all(row["end_s"] <= other["start_s"] or other["end_s"] <= row["start_s"] for other in same):
            kept.append(row)
    hits = find_clips(clips, QUERY, k=k, measure="cosine")
    assert [hit.score for hit in hits] == pytest.approx([row["cosine"] for row in kept[:k]], abs=1e-6)
    names = ("clip_id", "audio_id", "uri", "start_s", "end_s")
    assert [[getattr(hit, name) for name in names] for hit in hits] == [[row[n] for n in names] for row in kept[:k]]
    assert [hit.rank for hit in hits] == list(range(1, len(hits) + 1))


# --- vectors of very different lengths --------------------------------------------------------------------------------


class HalfSilent(UnevenTable):
    """Every second vector is zero."""

    def draw(self, n_clips: int) -> Any:
        vectors = super().draw(n_clips)
        vectors[::2] = 0
        return vectors


def write_table(table: ClipTable, n_files: int) -> Any:
    table.run({f"/{number}.wav": 100 for number in range(n_files)})
    return open_table(table.path, "clips", journal.read_published(table.path).versions["clips"])


@pytest.fixture(scope="module")
def uneven(tmp_path_factory: pytest.TempPathFactory) -> tuple[UnevenTable, Any]:
    table = UnevenTable(tmp_path_factory.mktemp("uneven") / "index")
    return table, write_table(table, 40)


@pytest.fixture(scope="module")
def silent(tmp_path_factory: pytest.TempPathFactory) -> tuple[HalfSilent, Any]:
    table = HalfSilent(tmp_path_factory.mktemp("silent") / "index")
    return table, write_table(table, 10)


def test_scan_by_cosine_misses_nothing_where_lengths_vary(uneven: tuple[UnevenTable, Any]) -> None:
    table, clips = uneven
    n_missed = 0
    for query in np.random.default_rng(2).standard_normal((10, 8)).astype(np.float32):
        ids, cosines = table.rank(query)
        hits = find_clips(clips, query, k=20, measure="cosine")
        assert [hit.clip_id for hit in hits] == ids[:20]
        assert [hit.score for hit in hits] == pytest.approx(cosines[:20], abs=1e-6)
        assert find_clips(clips, 2.0**-30 * query, k=20, measure="cosine") == hits  # its length does not matter
        by_dot = {hit.clip_id for hit in find_clips(clips, query, k=200, all_windows=True)}
        n_missed += len(set(ids[:20]) - by_dot)
    assert n_missed > 20  # so a scan for candidates by dot product would not do


@pytest.mark.parametrize("k", [1, 20, 300, 700, 1_000])
def test_scan_by_cosine_takes_vectors_of_zeros(silent: tuple[HalfSilent, Any], k: int) -> None:
    """Half of 1,000 clips. They come after those with a positive cosine, and before the others."""
    table, clips = silent
    for query in np.random.default_rng(3).standard_normal((3, 8)).astype(np.float32):
        ids, cosines = table.rank(query)
        hits = find_clips(clips, query, k=k, measure="cosine")
        assert [hit.score for hit in hits] == pytest.approx(cosines[:k], abs=1e-6)
        n_positive = int((cosines[:k] > 0).sum())
        assert [hit.clip_id for hit in hits[:n_positive]] == ids[:n_positive]
        assert len({hit.clip_id for hit in hits}) == k


def test_question_of_zeros_gets_hits_without_a_score(silent: tuple[HalfSilent, Any]) -> None:
    hits = find_clips(silent[1], np.zeros(8, np.float32), k=20, measure="cosine")
    assert [hit.score for hit in hits] == [0.0] * 20
    kept = find_clips(silent[1], np.zeros(8, np.float32), k=300, where="uri = '/3.wav'", measure="cosine")
    assert len({hit.clip_id for hit in kept}) == len(kept) == 100


def test_zero_vectors_that_a_filter_keeps_come_once(silent: tuple[HalfSilent, Any]) -> None:
    table, clips = silent
    hits = find_clips(clips, QUERY, k=300, where="uri IN ('/3.wav', '/4.wav')", measure="cosine")
    kept = {*table.rows["/3.wav"]["clip_ids"], *table.rows["/4.wav"]["clip_ids"]}
    assert {hit.clip_id for hit in hits} == kept
    assert len(hits) == len(kept)
    assert sum(hit.score == 0.0 for hit in hits) == 100


def test_where_is_applied_before_a_scan_by_cosine(uneven: tuple[UnevenTable, Any]) -> None:
    table, clips = uneven
    ids, _ = table.rank(QUERY)
    kept = set(table.rows["/7.wav"]["clip_ids"]) | set(table.rows["/8.wav"]["clip_ids"])
    hits = find_clips(clips, QUERY, k=50, where="uri IN ('/7.wav', '/8.wav')", measure="cosine")
    assert [hit.clip_id for hit in hits] == [clip_id for clip_id in ids if clip_id in kept][:50]


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


def test_hits_by_cosine_have_the_columns_of_their_clips(made_clips: MadeIndex) -> None:
    clips = open_clips(made_clips)
    rows = {row["clip_id"]: row for row in clips.to_arrow().drop_columns(["vector"]).to_pylist()}
    for query in made_clips.vectors.sounds(5):
        for hit in find_clips(clips, query, k=20, measure="cosine", settings=SearchSettings()):
            row = rows[hit.clip_id]
            assert (hit.uri, hit.start_s, hit.end_s, hit.audio_id) == tuple(
                row[name] for name in ("uri", "start_s", "end_s", "audio_id")
            )
            assert hit.metadata == {"lot": row["lot"]}


def test_more_candidates_find_more_of_the_best_by_cosine(tmp_path: Path) -> None:
    table = UnevenTable(tmp_path / "index")
    write_table(table, 40)
    add_vector_index(table.path, "clips")
    clips = open_table(table.path, "clips", journal.read_published(table.path).versions["clips"])
    queries = np.random.default_rng(4).standard_normal((10, 8)).astype(np.float32)
    best = [set(table.rank(query)[0][:20]) for query in queries]
    n_found = []
    for n_candidates in (200, 800, 4_000):
        settings = SearchSettings(similar_candidates=n_candidates)
        hits = [find_clips(clips, query, k=20, measure="cosine", settings=settings) for query in queries]
        n_found.append(sum(len({hit.clip_id for hit in some} & of) for some, of in zip(hits, best, strict=True)))
    assert 1.2 * n_found[0] < n_found[1] < n_found[2] == 200
    by_dot = [find_clips(clips, queries[0], k=20, settings=SearchSettings(similar_candidates=n)) for n in (200, 4_000)]
    assert by_dot[0] == by_dot[1]


def test_similar_knows_deleted_clips_new_ones_and_those_of_zeros(tmp_path: Path) -> None:
    """Of an index of two segments that has lost some of its clips, and that leaves out the newest ones."""
    table = HalfSilent(tmp_path / "index")
    write_table(table, 8)
    add_vector_index(table.path, "clips")
    table.run({"/new.wav": 50, "/2.wav": 30}, delete=("/1.wav",))
    table.commit(Writer(table.path, "9" * 32), {"/newest.wav": 20})
    found = table.check()
    assert found is not None
    assert len(found.segments) == 2
    assert 0 < found.n_indexed < len(table.vectors)
    live = open_index(table.path).live
    clips = open_table(live.path, "clips", live.versions["clips"])
    uris = {clip_id: uri for uri, row in table.rows.items() for clip_id in row["clip_ids"]}
    for query in np.random.default_rng(5).standard_normal((5, 8)).astype(np.float32):
        ids, cosines = table.rank(query)
        hits = find_clips(clips, query, k=60, measure="cosine", settings=SearchSettings(similar_candidates=4_000))
        assert [hit.score for hit in hits] == pytest.approx(cosines[:60], abs=1e-6)
        assert [hit.clip_id for hit in hits[:20]] == ids[:20]
        assert [uris[hit.clip_id] for hit in hits] == [hit.uri for hit in hits]


@pytest.mark.parametrize("measure", ["dot", "cosine"])
@pytest.mark.parametrize("k", [20, 1_000])
@pytest.mark.parametrize("limit", [1_000, 200, 20, 1])
def test_filters_keep_the_recall(made_clips: MadeIndex, limit: int, k: int, measure: Any) -> None:
    """Half of the files, a tenth, a hundredth, and one. At most 120 clips are compared one by one. For more hits,
    ``Index`` has as many more candidates."""
    settings = replace(ONE, similar_candidates=min(MAX_COMPARED, ONE.similar_candidates * k // 20))
    clips, where = open_clips(made_clips), f"lot < {limit}"
    queries = (made_clips.vectors.texts if measure == "dot" else made_clips.vectors.sounds)(10)
    [exact] = truth.best_clips(str(made_clips.path), queries, [limit], k, by_cosine=measure == "cosine")
    recalls = []
    for query, best in zip(queries, exact, strict=True):
        hits = find_clips(clips, query, k=k, where=where, all_windows=True, measure=measure, settings=settings)
        assert len(hits) == min(k, 6 * limit)
        recalls.append(truth.recall(best, [truth.Found(hit.score, hit.clip_id) for hit in hits], k) or 0.0)
        if limit <= 20:
            assert hits == find_clips(clips, query, k=k, where=where, all_windows=True, measure=measure)
    assert np.mean(recalls) >= 0.98
