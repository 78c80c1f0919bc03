"""Reads many files at the same time, in threads: that waits for disks and servers, not for cores."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

FILES_AT_ONCE = 16

T = TypeVar("T")
R = TypeVar("R")


def map_in_threads(read: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
    """``map`` with ``FILES_AT_ONCE`` threads, in order. Only a few results wait to be taken."""
    with ThreadPoolExecutor(FILES_AT_ONCE) as pool:
        for some in chunked(items, 4 * FILES_AT_ONCE):
            yield from pool.map(read, some)


def chunked(items: Iterable[T], n_items: int) -> Iterator[list[T]]:
    """Lists of ``n_items``; the last one may be shorter."""
    waiting = iter(items)
    while chunk := list(islice(waiting, n_items)):
        yield chunk
