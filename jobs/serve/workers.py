"""Threads for the work of requests: a pool for each kind, so that long work of one kind never holds up another.

Work that waits for a client that has gone is dropped. Work that runs is told, and searches end at their next step.
"""

import asyncio
import contextlib
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

from starlette.requests import Request

from jobs.serve import limits
from jobs.shared.explain import explain
from pipeline.errors import EarshotError
from pipeline.search.stopping import stopping

T = TypeVar("T")


class Busy(EarshotError):
    """Too many requests wait."""


class TooLong(EarshotError):
    """An answer takes longer than it may."""


class ClientGone(Exception):
    """Nobody waits for the answer."""


class Pool:
    """A fixed number of threads for one kind of work."""

    def __init__(self, kind: str, n_threads: int) -> None:
        self.kind = kind
        self._threads = ThreadPoolExecutor(n_threads, thread_name_prefix=kind)
        self._n_unfinished = 0

    async def run(
        self,
        request: Request,
        work: Callable[[], T],
        stop: threading.Event | None = None,
        close: Callable[[T], object] | None = None,
    ) -> T:
        """The result of ``work``, done in a thread of this pool.

        Args:
            stop: set once nobody waits; work that is no search looks at it.
            close: called with a result for which nobody has waited, in any thread; it must not wait.

        Raises:
            Busy: too many requests wait. ClientGone: the client does not wait any more. TooLong: it has waited for
                ``limits.MAX_ANSWER_S``.
        """
        if self._n_unfinished >= limits.MAX_WAITING:
            raise Busy(f"{self._n_unfinished} requests wait for {self.kind} already: try again later")
        self._n_unfinished += 1
        told = stop or threading.Event()
        working = self._threads.submit(_guard, work, told)
        done = asyncio.ensure_future(asyncio.wrap_future(working))
        gone = asyncio.ensure_future(wait_until_gone(request))
        waiting: set[asyncio.Future[Any]] = {done, gone}
        try:
            await asyncio.wait(waiting, timeout=limits.MAX_ANSWER_S, return_when=asyncio.FIRST_COMPLETED)
            if done.done():
                return done.result()
            if gone.done():
                raise ClientGone
            raise TooLong(f"no answer within {limits.MAX_ANSWER_S:g} s: ask for less")
        finally:
            self._n_unfinished -= 1
            gone.cancel()
            if not done.done():
                done.cancel()
                told.set()
                if close is not None:
                    working.add_done_callback(partial(_close, close))

    async def compute(self, work: Callable[[], T], stop: threading.Event) -> T:
        """The result of ``work``, for a request that was let in before and watches over its client itself.

        Args:
            stop: set by the request once nobody waits, which ends the work at its next step.
        """
        return await asyncio.wrap_future(self._threads.submit(_guard, work, stop))

    def submit(self, work: Callable[[], object]) -> None:
        """Have something done that nobody waits for."""
        with contextlib.suppress(RuntimeError):  # the server ends
            self._threads.submit(work)

    def close(self) -> None:
        """Drop what waits. Work that runs is not waited for."""
        self._threads.shutdown(wait=False, cancel_futures=True)


def _guard(work: Callable[[], T], told: threading.Event) -> T:
    try:
        with stopping(told.is_set):
            return work()
    except Exception:
        raise
    except BaseException as error:  # a panic of the engine is no Exception, and would end the event loop
        raise RuntimeError(explain(error)) from None


def _close(close: Callable[[T], object], working: Future[T]) -> None:
    if not working.cancelled() and working.exception() is None:
        close(working.result())


async def wait_until_gone(request: Request) -> None:
    """Return once the client has closed the connection. Whatever the request sends is dropped."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


class Workers:
    """The pools of a server."""

    def __init__(self) -> None:
        self.questions = Pool("questions", 4)
        self.sounds = Pool("sounds", 4)
        self.tiles = Pool("spectrograms", 2)
        self.long_tiles = Pool("spectrograms of long spans", 1)
        self.long = Pool("exports and uploads", 2)
        self.hashing = Pool("files that are compared", 2)

    def close(self) -> None:
        for pool in (self.questions, self.sounds, self.tiles, self.long_tiles, self.long, self.hashing):
            pool.close()
