"""Pools tile the frames of a window, and are cut as Ward's rule for neighbours demands."""

import itertools

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import schema
from pipeline.grid import Grid, Tail, plan_windows
from pipeline.index.frame_rows import frame_rows
from pipeline.index.pools import FRAMES_PER_POOL, count_pools, pool_frames, pool_rows, pool_stored

Vectors = npt.NDArray[np.float16]


def draw(n_frames: int, seed: int = 0, dimension: int = 8) -> Vectors:
    """Frames that wander: neighbours are more alike than others."""
    rng = np.random.default_rng(seed)
    steps = rng.standard_normal((n_frames, dimension)) * 0.1
    return (steps.cumsum(axis=0) + rng.standard_normal((n_frames, dimension)) * 0.05).astype(np.float16)


def cut_slowly(vectors: Vectors) -> list[int]:
    """The first frame of each pool, by the definition: the squared errors of all unions are computed at each step."""
    x = vectors.astype(np.float64)
    bounds = list(range(len(x) + 1))

    def error(first: int, stop: int) -> float:
        return float(((x[first:stop] - x[first:stop].mean(axis=0)) ** 2).sum())

    while len(bounds) - 1 > -(-len(x) // FRAMES_PER_POOL):
        added = [
            error(first, stop) - error(first, middle) - error(middle, stop)
            for first, middle, stop in zip(bounds, bounds[1:], bounds[2:], strict=False)
        ]
        del bounds[1 + int(np.argmin(added))]
    return bounds[:-1]


@given(st.integers(1, 400), st.integers(0, 2**32 - 1))
def test_pools_tile_the_frames_and_are_their_means(n_frames: int, seed: int) -> None:
    vectors = draw(n_frames, seed, dimension=4)
    starts, means = pool_frames(vectors)
    assert len(starts) == len(means) == count_pools(n_frames) == -(-n_frames // FRAMES_PER_POOL)
    assert starts[0] == 0
    assert (np.diff(starts) > 0).all()
    assert starts[-1] < n_frames
    assert [starts.dtype, means.dtype] == [np.dtype(np.int32), np.dtype(np.float16)]
    for first, stop, mean in zip(starts, [*starts[1:], n_frames], means, strict=True):
        expected = vectors[first:stop].astype(np.float64).mean(axis=0)
        assert mean == pytest.approx(expected, abs=2e-3)
    again = pool_frames(vectors)
    assert (again[0] == starts).all()
    assert (again[1] == means).all()


@pytest.mark.parametrize("n_frames", [1, 2, 25, 26, 50, 51, 97, 130])
@pytest.mark.parametrize("seed", range(3))
def test_pools_are_cut_by_the_definition(n_frames: int, seed: int) -> None:
    vectors = draw(n_frames, seed)
    assert pool_frames(vectors)[0].tolist() == cut_slowly(vectors)


@given(st.lists(st.integers(1, 60), min_size=2, max_size=5), st.integers(0, 99))
def test_runs_of_equal_frames_become_pools(lengths: list[int], seed: int) -> None:
    values = np.random.default_rng(seed).permutation(20)[: len(lengths)]
    vectors = np.repeat(np.eye(20, dtype=np.float16)[values], lengths, axis=0)
    bounds = [0, *itertools.accumulate(lengths[:-1])]
    starts, means = pool_frames(vectors)
    if len(starts) >= len(bounds):  # there are pools enough: each run has one of its own, or several
        assert set(bounds) <= set(starts.tolist())
        assert (means == vectors[starts]).all()


def test_of_equal_neighbours_the_earlier_are_merged_first() -> None:
    vectors = np.zeros((30, 3), np.float16)
    assert pool_frames(vectors)[0].tolist() == [0, 29]
    steps = np.arange(26, dtype=np.float16)[:, None]
    assert pool_frames(steps)[0].tolist() == cut_slowly(steps)


def test_window_without_frames_has_no_pools() -> None:
    starts, means = pool_frames(np.empty((0, 5), np.float16))
    assert (starts.tolist(), means.shape) == ([], (0, 5))


def make_rows(audio: str, vectors: Vectors, first: int = 0) -> pa.RecordBatch:
    return frame_rows(audio, "b" * 32, first, vectors, schema.frames_schema(vectors.shape[1]))


def test_rows_name_their_audio_and_batch() -> None:
    vectors = draw(70)
    rows = pool_rows(make_rows("a" * 32, vectors, first=240))
    assert rows.schema == schema.pools_schema(8)
    starts, means = pool_frames(vectors)
    found = rows.to_pylist()
    assert [row["first_frame"] for row in found] == (starts + 240).tolist()
    assert sum(row["n_frames"] for row in found) == 70
    assert {(row["audio_id"], row["batch_id"]) for row in found} == {("a" * 32, "b" * 32)}
    assert [row["vector"] for row in found] == means.tolist()


@pytest.mark.parametrize("tail", ["fit", "back"])
@pytest.mark.parametrize("piece_rows", [1, 7, 64, 10_000])
def test_stored_frames_have_the_pools_of_their_windows(tail: Tail, piece_rows: int) -> None:
    grid = Grid(50, 10, tail)
    audios = {
        name * 32: draw(n_frames, seed) for seed, (name, n_frames) in enumerate([("a", 1), ("b", 333), ("c", 75)])
    }
    expected = [
        pool_rows(make_rows(audio, vectors[span.own_first : span.own_stop], span.own_first))
        for audio, vectors in audios.items()
        for span in plan_windows(len(vectors), grid)
    ]
    stored = pa.Table.from_batches([make_rows(audio, vectors) for audio, vectors in audios.items()])
    pieces = stored.combine_chunks().to_batches(max_chunksize=piece_rows)
    assert pa.Table.from_batches(pool_stored(pieces, grid)) == pa.Table.from_batches(expected)


def test_stored_frames_with_gaps_have_pools_that_keep_to_them() -> None:
    vectors = draw(200)
    rows = [make_rows("a" * 32, vectors[:60]), make_rows("a" * 32, vectors[90:], 90), make_rows("b" * 32, vectors[:3])]
    found = pa.Table.from_batches(pool_stored(rows, Grid(50, 10))).to_pylist()
    frames = [(row["audio_id"][0], row["first_frame"] + k) for row in found for k in range(row["n_frames"])]
    assert frames == [("a", k) for k in (*range(60), *range(90, 200))] + [("b", k) for k in range(3)]
