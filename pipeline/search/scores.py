"""Scores: dot products of a query and stored vectors, and how far the engine's own scores may be off."""

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
    """The scores (n,) of ``vectors`` (n, D), and the length of the longest of them.

    ``vecdot`` computes one row after the other in this thread. A matrix product would wake the other threads of BLAS,
    which then spin for longer than they work.
    """
    scores, squares = np.empty((2, len(vectors)))
    exact_query = query.astype(np.float64)
    for begin in range(0, len(vectors), ROWS_AT_ONCE):
        some = slice(begin, begin + ROWS_AT_ONCE)
        exact = vectors[some].astype(np.float64)
        np.vecdot(exact, exact_query, out=scores[some])
        np.vecdot(exact, exact, out=squares[some])
    return scores.astype(np.float32), float(np.sqrt(squares.max(initial=0.0)))


def to_cosines(products: Vector, vectors: npt.NDArray[Any], query: Vector) -> Vector:
    """The cosines (n,) of ``vectors`` (n, D) and ``query``, from their dot products (n,)."""
    lengths = np.linalg.norm(vectors.astype(np.float32), axis=1) * np.linalg.norm(query)
    cosines: Vector = products / np.maximum(lengths, 1e-30)
    return cosines


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


def check_query(dimension: int, query: Vector) -> None:
    """Refuse queries that Lance answers with arbitrary rows (NaN) or with a misleading message (wrong dimension).

    Raises:
        UsageError: the query is not a vector of the table's ``dimension``, of numbers that float16 can hold.
    """
    if query.shape != (dimension,) or not (np.abs(query) <= np.finfo(np.float16).max).all():
        raise UsageError(f"the query must be {dimension} finite numbers up to 65504, not {query.shape}")
