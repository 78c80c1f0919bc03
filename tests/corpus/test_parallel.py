"""Results come in order, and no more than a few wait to be taken."""

import threading
from itertools import islice

import pytest

from pipeline.corpus.parallel import FILES_AT_ONCE, chunked, map_in_threads


def test_results_come_in_order_from_several_threads() -> None:
    meeting = threading.Barrier(2)

    def read(number: int) -> int:
        if number < 2:
            meeting.wait(60)  # the first two are read at the same time
        return -number

    assert list(map_in_threads(read, range(100))) == [-number for number in range(100)]


def test_items_are_taken_as_results_are() -> None:
    taken: list[int] = []

    def items() -> object:
        for number in range(10_000):
            taken.append(number)
            yield number

    assert list(islice(map_in_threads(str, items()), 3)) == ["0", "1", "2"]  # type: ignore[arg-type]
    assert len(taken) <= 4 * FILES_AT_ONCE


def test_errors_reach_the_caller() -> None:
    with pytest.raises(ZeroDivisionError):
        list(map_in_threads(lambda number: 1 // number, [1, 0]))


@pytest.mark.parametrize(("n_items", "sizes"), [(0, []), (3, [3]), (4, [4]), (9, [4, 4, 1])])
def test_chunks_hold_all_items(n_items: int, sizes: list[int]) -> None:
    chunks = list(chunked(range(n_items), 4))
    assert list(map(len, chunks)) == sizes
    assert [item for chunk in chunks for item in chunk] == list(range(n_items))
