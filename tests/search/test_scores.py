"""Scores: exact dot products, and the bound on the engine's rounding."""

import numpy as np
import pytest

from pipeline.search.scores import (
    ROWS_AT_ONCE,
    cosines,
    dot_products,
    longest_norm,
    max_cosine_error,
    max_score_error,
    score_rows,
    to_direction,
)


def test_score_does_not_depend_on_how_many_are_computed() -> None:
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((300, 64)).astype(np.float16)
    query = rng.standard_normal(64).astype(np.float32)
    together = dot_products(vectors, query)
    assert [dot_products(vectors[n : n + 1], query)[0] for n in range(300)] == together.tolist()
    assert together == pytest.approx(vectors.astype(np.float64) @ query, rel=1e-6)


@pytest.mark.parametrize("n", [1, ROWS_AT_ONCE, 3 * ROWS_AT_ONCE + 5])
def test_scores_come_with_the_longest_length(n: int) -> None:
    rng = np.random.default_rng(2)
    vectors, query = rng.standard_normal((n, 16)).astype(np.float16), rng.standard_normal(16).astype(np.float32)
    scores, longest = score_rows(vectors, query)
    lengths = np.linalg.norm(vectors.astype(np.float64), axis=1)
    assert longest == pytest.approx(lengths.max())
    assert scores == pytest.approx(vectors.astype(np.float64) @ query, abs=1e-5)
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


@pytest.mark.parametrize("length", [1e-3, 1.0, 1_000.0])
def test_cosines_are_those_of_the_directions(length: float) -> None:
    rng = np.random.default_rng(3)
    vectors, query = (length * rng.standard_normal((500, 16))).astype(np.float16), rng.standard_normal(16)
    vectors[7] = 0
    found = cosines(vectors, query.astype(np.float32))
    exact = np.delete(vectors, 7, axis=0).astype(np.float64)
    expected = exact @ query / np.linalg.norm(exact, axis=1) / np.linalg.norm(query)
    assert np.delete(found, 7) == pytest.approx(expected, abs=1e-6)
    assert found[7] == 0.0
    assert not cosines(vectors, np.zeros(16, np.float32)).any()
    assert np.linalg.norm(to_direction(query.astype(np.float32) * 1e-20)) == pytest.approx(1.0)
    assert not to_direction(np.zeros(16, np.float32)).any()


@pytest.mark.parametrize("kind", [np.float16, np.float32])
def test_rounding_bounds_the_error_of_a_cosine(kind: type) -> None:
    """Also where a CPU multiplies in float16."""
    rng = np.random.default_rng(4)
    vectors = (10 ** rng.uniform(0, 1, (2_000, 1)) * rng.standard_normal((2_000, 64))).astype(np.float16)
    query = to_direction(rng.normal(1, 0.5, 64).astype(np.float32))
    rounded = query.astype(np.float16)
    products = (vectors.astype(kind) * rounded.astype(kind)).astype(np.float32).sum(axis=1)
    squares = [(of.astype(kind) ** 2).astype(np.float32).sum(axis=-1) for of in (vectors, rounded)]
    by_engine = products / np.sqrt(squares[0] * squares[1])
    error = np.abs(by_engine - cosines(vectors, query)).max()
    assert 0 < error <= max_cosine_error(query) < 0.01
