"""Scores: exact dot products, and the bound on the engine's rounding."""

import numpy as np
import pytest

from pipeline.search.scores import ROWS_AT_ONCE, dot_products, longest_norm, max_score_error, score_rows, to_cosines


def test_score_does_not_depend_on_how_many_are_computed() -> None:
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((300, 64)).astype(np.float16)
    query = rng.standard_normal(64).astype(np.float32)
    together = dot_products(vectors, query)
    assert [dot_products(vectors[n : n + 1], query)[0] for n in range(300)] == together.tolist()
    assert together == pytest.approx(vectors.astype(np.float64) @ query, rel=1e-6)


@pytest.mark.parametrize("n", [1, ROWS_AT_ONCE, 3 * ROWS_AT_ONCE + 5])
def test_scores_come_with_the_longest_length_and_can_be_cosines(n: int) -> None:
    rng = np.random.default_rng(2)
    vectors, query = rng.standard_normal((n, 16)).astype(np.float16), rng.standard_normal(16).astype(np.float32)
    scores, longest = score_rows(vectors, query)
    lengths = np.linalg.norm(vectors.astype(np.float64), axis=1)
    assert longest == pytest.approx(lengths.max())
    expected = vectors.astype(np.float64) @ query / lengths / np.linalg.norm(query)
    assert to_cosines(scores, vectors, query) == pytest.approx(expected, abs=1e-6)
    nothing, zero = score_rows(vectors[:0], query)
    assert (len(nothing), zero) == (0, 0.0)


@pytest.mark.parametrize("length", [0.1, 1.0, 1_000.0])
def test_rounding_bounds_the_error_of_a_float16_query(length: float) -> None:
    rng = np.random.default_rng(1)
    vectors = (length * rng.standard_normal((1_000, 8))).astype(np.float16)
    query = rng.normal(1, 0.5, 8).astype(np.float32)
    exact = vectors.astype(np.float64) @ query
    by_engine = vectors.astype(np.float32) @ query.astype(np.float16).astype(np.float32)
    assert np.abs(by_engine - exact).max() <= max_score_error(query, longest_norm(vectors))


def test_no_vectors_have_no_length() -> None:
    assert longest_norm(np.zeros((0, 8), np.float16)) == 0.0
