"""Signals that wait. Those of real runs: tests/jobs/shared/test_interrupt.py and tests/run/test_record.py."""

import signal
import threading

import pytest

from pipeline.run.signals import signals_held


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
