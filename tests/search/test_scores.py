"""Scores: exact dot products, and the bound on the engine's rounding."""

import numpy as np
import pytest

from pipeline.search.scores import dot_products, longest_norm, max_score_error


def test_score_does_not_depend_on_how_many_are_computed() -> None:
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((300, 64)).astype(np.float16)
    query = rng.standard_normal(64).astype(np.float32)
    together = dot_products(vectors, query)
    assert [dot_products(vectors[n : n + 1], query)[0] for n in range(300)] == together.tolist()
    assert together == pytest.approx(vectors.astype(np.float64) @ query, rel=1e-6)


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
