"""Answers in pieces: whole, or ended with their client, and their source is closed in any case."""

import asyncio
import threading
import time
from contextlib import ExitStack
from typing import Any

import pytest
from starlette.requests import Request

from jobs.serve import limits
from jobs.serve.closing import Closing
from jobs.serve.room import NoRoom, Room
from jobs.serve.streams import SourceResponse
from jobs.serve.workers import Pool
from pipeline.search.stopping import check_stopped

SCOPE: dict[str, Any] = {"type": "http", "method": "GET", "headers": [], "asgi": {"spec_version": "2.3"}}


async def wait_for_ever(_: Any = None) -> Any:
    await asyncio.Event().wait()


class Pieces:
    """A source of so many pieces, which counts how many were taken."""

    def __init__(self, n_pieces: int) -> None:
        self._n_pieces = n_pieces
        self.n_read = 0
        self.closed = threading.Event()

    def read(self) -> bytes:
        self.n_read += 1
        return b"piece " if self.n_read <= self._n_pieces else b""

    def close(self) -> None:
        self.closed.set()


def answer(source: Pieces, n_taken: int | None = None) -> bytes:
    """What a client gets, who leaves after so many pieces; None: who stays."""
    sent, gone = list[bytes](), asyncio.Event()
    if n_taken == 0:
        gone.set()

    async def receive() -> Any:
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        await asyncio.sleep(0)
        sent.append(message.get("body", b""))
        if n_taken is not None and len(list(filter(None, sent))) >= n_taken:
            gone.set()

    async def ask() -> None:
        pool, sending = Pool("tests", 1), Room("tests", 1)
        with ExitStack() as held:
            held.enter_context(sending.hold(1))
            response = SourceResponse(Request(SCOPE, receive), pool, source, {"X-Name": "x"}, held.pop_all())
        assert sending.n_taken == 1
        await response(SCOPE, receive, send)
        assert sending.n_taken == 0
        assert await asyncio.to_thread(source.closed.wait, 60)
        pool.close()

    asyncio.run(ask())
    return b"".join(sent)


def test_client_that_stays_gets_all() -> None:
    source = Pieces(3)
    assert answer(source) == b"piece piece piece "
    assert source.n_read == 4


def test_source_of_a_client_that_leaves_is_closed_and_not_read_on() -> None:
    source = Pieces(1_000)
    answer(source, n_taken=2)
    assert source.n_read < 10


def test_source_is_closed_if_the_client_has_gone_before_the_first_piece() -> None:
    source = Pieces(1_000)
    answer(source, n_taken=0)
    assert source.n_read < 10


def test_thread_is_free_once_a_client_has_left_during_a_long_read() -> None:
    begun, closed, gone = threading.Event(), threading.Event(), asyncio.Event()

    class Endless:
        """A source whose first piece takes for ever, unless it is told that nobody waits."""

        def __init__(self) -> None:
            self._closing = Closing(closed.set)

        def read(self) -> bytes:
            with self._closing.reading():
                until = time.monotonic() + 60  # a thread that goes on would keep the tests from ending
                while time.monotonic() < until:
                    begun.set()
                    check_stopped()
                    time.sleep(0.001)
            return b""

        def close(self) -> None:
            self._closing.close()

    async def receive() -> Any:
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        pass

    async def ask() -> None:
        pool = Pool("tests", 1)
        response = SourceResponse(Request(SCOPE, receive), pool, Endless(), {}, ExitStack())
        sending = asyncio.create_task(response(SCOPE, receive, send))
        assert await asyncio.to_thread(begun.wait, 60)
        gone.set()
        await sending
        assert await asyncio.wait_for(pool.run(Request(SCOPE, wait_for_ever), lambda: 7), 60) == 7
        assert await asyncio.to_thread(closed.wait, 60)
        pool.close()

    asyncio.run(ask())


def test_client_that_takes_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_TAKE_S", 0.05)
    source, sending = Pieces(1_000), Room("tests", 1)

    async def ask() -> None:
        pool = Pool("tests", 1)
        with ExitStack() as held:
            held.enter_context(sending.hold(1))
            response = SourceResponse(Request(SCOPE, wait_for_ever), pool, source, {}, held.pop_all())
        await asyncio.wait_for(response(SCOPE, wait_for_ever, wait_for_ever), 60)
        assert await asyncio.to_thread(source.closed.wait, 60)
        pool.close()

    asyncio.run(ask())
    assert sending.n_taken == 0


def test_too_many_answers_that_are_sent_are_refused() -> None:
    sending = Room("sounds", 2)
    with sending.hold(1):
        with sending.hold(1), pytest.raises(NoRoom, match="too many sounds at once"), sending.hold(1):
            pass
        with sending.hold(1):
            assert sending.n_taken == 2
    assert sending.n_taken == 0
