"""Threads that work for the driver: repeated questions, and receipts that are pulled."""

import signal
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from pipeline.run.background import Polled, drain, signals_held


def test_first_answer_is_there_on_entering() -> None:
    with Polled(lambda: 7, 0, 1e6) as polled:
        assert polled.answer == 7


def test_last_answer_stays_where_asking_fails() -> None:
    asked, n_asked = threading.Event(), 0

    def ask() -> int:
        nonlocal n_asked
        n_asked += 1
        if n_asked > 2:
            asked.set()
        if n_asked > 1:
            raise OSError("nobody there")
        return 7

    with Polled(ask, 0, 0.0) as polled:
        assert asked.wait(60)
        assert polled.answer == 7


def test_rows_come_in_order_and_none_while_there_are_none() -> None:
    go_on = threading.Event()

    def rows() -> Iterator[dict[str, Any]]:
        yield {"n": 1}
        assert go_on.wait(60)
        yield {"n": 2}

    found: list[Any] = []
    with drain(rows(), 0.01) as arriving:
        for row in arriving:
            found.append(row)
            if row is None:
                go_on.set()
    assert [row for row in found if row] == [{"n": 1}, {"n": 2}]
    assert None in found


def test_error_of_the_rows_is_raised_where_they_are_taken() -> None:
    def rows() -> Iterator[dict[str, Any]]:
        yield {"n": 1}
        raise ValueError("half a row")

    with pytest.raises(ValueError, match="half a row"), drain(rows(), 0.01) as arriving:
        list(arriving)


def test_rows_are_closed_when_the_context_is_left() -> None:
    closed = threading.Event()

    def rows() -> Iterator[dict[str, Any]]:
        try:
            while True:
                yield {"n": 1}
        finally:
            closed.set()

    with drain(rows(), 0.01) as arriving:
        next(arriving)
    assert closed.wait(60)


class Stop(Exception):
    pass


def stop(*_: object) -> None:
    raise Stop


@pytest.fixture(params=[signal.SIGINT, signal.SIGTERM])
def number(request: pytest.FixtureRequest) -> object:
    former = signal.signal(request.param, stop)
    yield request.param
    signal.signal(request.param, former)


def test_first_signal_waits_until_the_context_is_left(number: signal.Signals) -> None:
    steps: list[str] = []

    def work() -> None:
        with signals_held():
            signal.raise_signal(number)
            steps.append("done")

    with pytest.raises(Stop):
        work()
    assert steps == ["done"]
    assert signal.getsignal(number) is stop


def test_second_signal_does_not_wait(number: signal.Signals) -> None:
    steps: list[str] = []

    def work() -> None:
        with signals_held():
            signal.raise_signal(number)
            steps.append("first")
            signal.raise_signal(number)
            steps.append("second")

    with pytest.raises(Stop):
        work()
    assert steps == ["first"]


def test_signal_that_is_ignored_stays_ignored() -> None:
    former = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        with signals_held():
            signal.raise_signal(signal.SIGTERM)
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGTERM, former)


def test_other_threads_leave_handlers_alone() -> None:
    found: list[object] = []

    def hold() -> None:
        with signals_held():
            found.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=hold)
    thread.start()
    thread.join()
    assert found == [signal.getsignal(signal.SIGINT)]
