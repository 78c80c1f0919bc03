"""Work of one kind does not hold up another, and ends when nobody waits for it."""

import asyncio
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

import pytest
from starlette.requests import Request

from jobs.serve import limits
from jobs.serve.workers import Busy, ClientGone, Pool, TooLong, Workers
from pipeline.search.stopping import Stopped, check_stopped

T = TypeVar("T")


class Client:
    """The other end of a request. ``leave`` closes the connection."""

    def __init__(self) -> None:
        self._gone = asyncio.Event()
        self.request = Request({"type": "http", "headers": []}, receive=self._receive)

    async def _receive(self) -> dict[str, Any]:
        await self._gone.wait()
        return {"type": "http.disconnect"}

    def leave(self) -> None:
        self._gone.set()


def run(pool: Pool, work: Callable[[], T]) -> T:
    async def ask() -> T:
        return await pool.run(Client().request, work)

    return asyncio.run(ask())


def test_result_and_error_come_back() -> None:
    pool = Pool("tests", 1)
    assert run(pool, lambda: 7) == 7
    with pytest.raises(ZeroDivisionError):
        run(pool, lambda: 1 // 0)


def test_panic_of_the_engine_is_an_error_of_one_request() -> None:
    class PanicException(BaseException):
        """As of pyo3."""

    def panic() -> None:
        raise PanicException("index out of bounds")

    pool = Pool("tests", 1)
    with pytest.raises(RuntimeError, match="index out of bounds"):
        run(pool, panic)
    assert run(pool, lambda: 7) == 7


def test_work_that_waits_is_dropped_once_its_client_has_gone() -> None:
    pool, begun, go = Pool("tests", 1), threading.Event(), threading.Event()
    done: list[str] = []

    def block() -> None:
        begun.set()
        assert go.wait(60)
        done.append("first")

    async def check() -> None:
        staying, leaving = Client(), Client()
        first = asyncio.create_task(pool.run(staying.request, block))
        await asyncio.to_thread(begun.wait, 60)
        second = asyncio.create_task(pool.run(leaving.request, lambda: done.append("second")))
        await asyncio.sleep(0)
        leaving.leave()
        with pytest.raises(ClientGone):
            await second
        go.set()
        await first
        await pool.run(staying.request, lambda: done.append("third"))

    asyncio.run(check())
    assert done == ["first", "third"]


def test_work_that_runs_is_told_that_its_client_has_gone() -> None:
    pool, begun, stop = Pool("tests", 1), threading.Event(), threading.Event()

    def work() -> bool:
        begun.set()
        return stop.wait(60)

    async def check() -> None:
        client = Client()
        task = asyncio.create_task(pool.run(client.request, work, stop))
        await asyncio.to_thread(begun.wait, 60)
        client.leave()
        with pytest.raises(ClientGone):
            await task

    asyncio.run(check())
    assert stop.is_set()


def test_result_for_which_nobody_has_waited_is_closed() -> None:
    pool, begun, go, closed = Pool("tests", 1), threading.Event(), threading.Event(), threading.Event()

    def open_slowly() -> str:
        begun.set()
        assert go.wait(60)
        return "a stream"

    def close(result: str) -> None:
        assert result == "a stream"
        closed.set()

    async def check() -> None:
        client = Client()
        task = asyncio.create_task(pool.run(client.request, open_slowly, close=close))
        await asyncio.to_thread(begun.wait, 60)
        client.leave()
        with pytest.raises(ClientGone):
            await task
        assert not closed.is_set()
        go.set()
        assert await asyncio.to_thread(closed.wait, 60)
        closed.clear()
        assert await pool.run(Client().request, open_slowly, close=close) == "a stream"
        assert not closed.is_set()

    asyncio.run(check())


def test_search_that_runs_ends_once_its_client_has_gone() -> None:
    pool, begun, ended = Pool("tests", 1), threading.Event(), threading.Event()

    def search() -> None:
        until = time.monotonic() + 60  # a thread that goes on would keep the tests from ending
        try:
            while time.monotonic() < until:
                check_stopped()
                begun.set()
        except Stopped:
            ended.set()
            raise

    async def check() -> None:
        client = Client()
        task = asyncio.create_task(pool.run(client.request, search))
        await asyncio.to_thread(begun.wait, 60)
        assert not ended.is_set()
        client.leave()
        with pytest.raises(ClientGone):
            await task
        assert await pool.run(Client().request, lambda: 7) == 7  # the thread is free again

    asyncio.run(check())
    assert ended.is_set()


def test_answer_that_takes_too_long_is_refused_and_its_work_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_ANSWER_S", 0.05)
    pool, stop = Pool("tests", 1), threading.Event()

    async def check() -> None:
        with pytest.raises(TooLong, match=r"no answer within 0\.05 s"):
            await pool.run(Client().request, lambda: stop.wait(60), stop)

    asyncio.run(check())
    assert stop.is_set()


def test_too_many_waiting_requests_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_WAITING", 3)
    pool, go = Pool("tests", 1), threading.Event()

    async def check() -> None:
        tasks = [asyncio.create_task(pool.run(Client().request, lambda: go.wait(60))) for _ in range(3)]
        await asyncio.sleep(0)
        with pytest.raises(Busy, match="3 requests wait for tests"):
            await pool.run(Client().request, lambda: None)
        go.set()
        await asyncio.gather(*tasks)
        await pool.run(Client().request, lambda: None)

    asyncio.run(check())


def test_long_work_of_one_kind_does_not_hold_up_questions() -> None:
    pools, go = Workers(), threading.Event()

    async def check() -> None:
        long = [
            asyncio.create_task(pool.run(Client().request, lambda: go.wait(60)))
            for pool in (pools.sounds, pools.tiles, pools.long_tiles, pools.long, pools.hashing)
            for _ in range(20)
        ]
        await asyncio.sleep(0)
        assert await asyncio.wait_for(pools.questions.run(Client().request, lambda: 7), 60) == 7
        go.set()
        await asyncio.gather(*long)

    asyncio.run(check())
    pools.close()
