"""Scores: dot products and cosines of a query and stored vectors, and how far the engine's own may be off."""

from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.errors import UsageError

Vector = npt.NDArray[np.float32]

ROWS_AT_ONCE = 128
"""Rows that are turned into float64 together: a megabyte of 1,024 numbers, which stays in the cache."""

MAX_COMPARED = 20_000
"""Whole clips that a search compares at most, unless it returns more: 40 MB of 1,024 numbers each, and 0.3 s."""


def dot_products(vectors: npt.NDArray[Any], query: Vector) -> Vector:
    """The scores (n,) of ``vectors`` (n, D). Sums are in float64, so a score does not depend on ``n``."""
    return score_rows(vectors, query)[0]


def score_rows(vectors: npt.NDArray[Any], query: Vector) -> tuple[Vector, float]:
    """The scores (n,) of ``vectors`` (n, D), and the length of the longest of them."""
    scores, squares = _multiply(vectors, query)
    return scores.astype(np.float32), float(np.sqrt(squares.max(initial=0.0)))


def cosines(vectors: npt.NDArray[Any], query: Vector) -> Vector:
    """The cosines (n,) of ``vectors`` (n, D) and ``query``; 0 where one of the two is zero, so has no direction."""
    products, squares = _multiply(vectors, query)
    lengths = np.sqrt(squares) * np.linalg.norm(query.astype(np.float64))
    found = np.divide(products, lengths, out=np.zeros(len(lengths)), where=lengths > 0)
    return np.asarray(found, np.float32)


def _multiply(vectors: npt.NDArray[Any], query: Vector) -> npt.NDArray[np.float64]:
    """Dot products with the query, and squared lengths: (2, n).

    ``vecdot`` computes one row after the other in this thread. A matrix product would wake the other threads of BLAS,
    which then spin for longer than they work.
    """
    found = np.empty((2, len(vectors)))
    products, squares = found
    exact_query = query.astype(np.float64)
    for begin in range(0, len(vectors), ROWS_AT_ONCE):
        some = slice(begin, begin + ROWS_AT_ONCE)
        exact = vectors[some].astype(np.float64)
        np.vecdot(exact, exact_query, out=products[some])
        np.vecdot(exact, exact, out=squares[some])
    return found


def to_direction(vectors: npt.NDArray[Any]) -> Vector:
    """Vectors (..., D) with length 1, as float32; zeros stay."""
    exact = vectors.astype(np.float64)
    lengths = np.linalg.norm(exact, axis=-1, keepdims=True)
    return np.asarray(np.divide(exact, lengths, out=exact, where=lengths > 0), np.float32)


def longest_norm(vectors: npt.NDArray[Any]) -> float:
    """The length (Euclidean norm) of the longest of ``vectors`` (n, D); 0 if there is none."""
    return float(np.linalg.norm(vectors.astype(np.float32), axis=1).max(initial=0.0))


def max_score_error(query: Vector, longest: float) -> float:
    """How far the engine's score of a vector may lie from the exact one, if no vector is longer than ``longest``.

    The engine rounds the query to the float16 of the stored vectors. By the Cauchy-Schwarz inequality, that changes a
    score by at most the length of the part rounded away times the length of the vector. Some CPUs multiply in float16,
    which rounds each product again. The engine sums D products in float32 and returns 1 minus the sum.
    """
    exact = query.astype(np.float64)
    rounded_away = float(np.linalg.norm(exact - query.astype(np.float16).astype(np.float64)))
    largest = float(np.linalg.norm(exact)) * longest
    float16, float32 = (float(np.finfo(kind).eps) for kind in (np.float16, np.float32))
    return rounded_away * longest + float16 / 2 * largest + float32 * (len(query) * largest + 1.0)


def max_cosine_error(direction: Vector) -> float:
    """How far the engine's cosine of a vector and ``direction``, of length 1, may lie from the exact one.

    A cosine is the dot product of vectors of length 1, with the error of one. The length that the engine divides by has
    at most the same error once more: that of the rounded query by what was rounded away, and each of the two lengths by
    half of what rounding does to the products that it is the sum of.
    """
    return 2 * max_score_error(direction, 1.0)


def check_query(dimension: int, query: Vector) -> None:
    """Refuse queries that Lance answers with arbitrary rows (NaN) or with a misleading message (wrong dimension).

    Raises:
        UsageError: the query is not a vector of the table's ``dimension``, of numbers that float16 can hold.
    """
    if query.shape != (dimension,) or not (np.abs(query) <= np.finfo(np.float16).max).all():
        raise UsageError(f"the query must be {dimension} finite numbers up to 65504, not {query.shape}")
