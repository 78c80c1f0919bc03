"""Checksums of vectors: they add up in any order and in any parts, and no change goes unnoticed."""

from itertools import pairwise
from random import Random

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.index.checksum import add_up, hash_rows, sum_rows


def make_vectors(n_rows: int, dimension: int, seed: int = 0) -> npt.NDArray[np.float16]:
    return np.random.default_rng(seed).standard_normal((n_rows, dimension)).astype(np.float16)


@settings(deadline=None)
@given(st.integers(1, 40), st.integers(1, 13), st.lists(st.integers(0, 40), max_size=5), st.randoms())
def test_sums_of_parts_add_up_in_any_order(n_rows: int, dimension: int, cuts: list[int], random: Random) -> None:
    vectors = make_vectors(n_rows, dimension)
    whole = sum_rows(range(n_rows), vectors)
    edges = sorted({0, n_rows, *(cut for cut in cuts if cut < n_rows)})
    parts = [sum_rows(range(a, b), vectors[a:b]) for a, b in pairwise(edges)]
    random.shuffle(parts)
    assert add_up(parts) == whole
    order = np.random.default_rng(n_rows).permutation(n_rows)
    assert sum_rows(order, vectors[order]) == whole
    assert -(2**63) <= whole < 2**63


@settings(deadline=None)
@given(st.integers(1, 9), st.integers(1, 13), st.integers(0, 2**31), st.integers(1, 2**16 - 1))
def test_any_other_number_gives_another_sum(n_rows: int, dimension: int, where: int, flip: int) -> None:
    vectors = make_vectors(n_rows, dimension)
    changed = vectors.copy()
    changed.reshape(-1).view(np.uint16)[where % vectors.size] ^= flip
    assert sum_rows(range(n_rows), changed) != sum_rows(range(n_rows), vectors)


def test_rows_that_changed_places_give_another_sum() -> None:
    vectors = make_vectors(6, 8)
    assert sum_rows(range(6), vectors[::-1]) != sum_rows(range(6), vectors)
    assert sum_rows(range(1, 7), vectors) != sum_rows(range(6), vectors)


def test_additional_or_doubled_row_gives_another_sum() -> None:
    vectors = make_vectors(6, 8)
    vectors[0] = 0
    whole = sum_rows(range(6), vectors)
    assert sum_rows(range(1, 6), vectors[1:]) != whole
    assert sum_rows([0, *range(6)], np.concatenate([vectors[:1], vectors])) != whole


@pytest.mark.parametrize("dimension", [3, 4, 64])
def test_known_vectors_have_known_checksums(dimension: int) -> None:
    """They are stored: another hash would call each index damaged."""
    vectors = (np.arange(5 * dimension).reshape(5, dimension) / 16 - 1).astype(np.float16)
    known = {3: KNOWN_3, 4: KNOWN_4, 64: KNOWN_64}
    assert sum_rows(range(5), vectors) == known[dimension]


def test_no_rows_sum_to_zero() -> None:
    assert sum_rows([], make_vectors(0, 8)) == 0
    assert hash_rows([], make_vectors(0, 8)).shape == (0,)


KNOWN_3, KNOWN_4, KNOWN_64 = 8209407888078596613, -4905561939551833775, -1046050391567702201
