"""Lets a question end early: whoever asks may say, while it is being answered, that nobody waits for the answer.

Searches look between two steps: a page of candidates, a block of frames, some windows of a sound. Exports and sounds
that are played look between blocks. A step itself, such as one search by the engine, comes to its end.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")

IsStopped = Callable[[], bool]
"""Whether nobody waits for the answer any more."""


def _never() -> bool:
    return False


_is_stopped: ContextVar[IsStopped] = ContextVar("is_stopped", default=_never)


class Stopped(Exception):
    """Nobody waits for the answer."""


@contextmanager
def stopping(is_stopped: IsStopped) -> Iterator[None]:
    """Questions of this thread that are asked in the context end with ``Stopped`` once ``is_stopped``."""
    token = _is_stopped.set(is_stopped)
    try:
        yield
    finally:
        _is_stopped.reset(token)


def check_stopped() -> None:
    """Raises ``Stopped`` if nobody waits for the answer any more."""
    if _is_stopped.get()():
        raise Stopped


def until_stopped(items: Iterable[T]) -> Iterator[T]:
    """The items, and ``Stopped`` instead of the next one once nobody waits for the answer any more."""
    for item in items:
        check_stopped()
        yield item


def carried(work: Callable[[T], R]) -> Callable[[T], R]:
    """``work`` for other threads: it ends there when it would end in this one."""
    is_stopped = _is_stopped.get()

    def run(item: T) -> R:
        with stopping(is_stopped):
            return work(item)

    return run
