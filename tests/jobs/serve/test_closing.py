"""Closing never waits for a read, and happens once."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from jobs.serve.closing import Closing


def test_read_that_runs_is_not_waited_for_and_closes_at_its_end() -> None:
    begun, go, ended = threading.Event(), threading.Event(), list[str]()
    closing = Closing(lambda: ended.append(threading.current_thread().name))

    def read() -> str:
        with closing.reading() as is_open:
            assert is_open
            begun.set()
            assert go.wait(60)
            assert not ended
        return threading.current_thread().name

    with ThreadPoolExecutor(1, thread_name_prefix="reader") as threads:
        running = threads.submit(read)
        try:
            assert begun.wait(60)
            closing.close()  # returns, although the read goes on
            assert not ended
        finally:
            go.set()
    assert ended == [running.result()]


def test_read_that_fails_closes_as_well() -> None:
    ended = list[int]()
    closing = Closing(lambda: ended.append(1))

    def fail() -> None:
        with closing.reading():
            closing.close()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert ended == [1]


def test_source_is_closed_once_and_not_read_afterwards() -> None:
    ended = list[int]()
    closing = Closing(lambda: ended.append(1))
    with ThreadPoolExecutor(8) as threads:
        for _ in range(100):
            threads.submit(closing.close)
    with closing.reading() as is_open:
        assert not is_open
    assert ended == [1]
