"""Threads that pull receipts or ask slow questions while the driver commits, and signals that wait until it has."""

import contextlib
import queue
import signal
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Generic, TypeVar

from pipeline.errors import RayDied

Answer = TypeVar("Answer")

STOP_S = 10.0
"""How long a run that fails waits for its workers to stop."""

INTERRUPTED_STOP_S = 0.5
"""How long an interrupted run waits: whoever stops a job kills it some seconds later. A run whose Ray is dead has no
workers to wait for."""

FIRST_ANSWER_S = 2.0
"""How long ``Polled`` waits for its first answer."""


class Polled(Generic[Answer]):
    """Asks a question again and again in a thread, since it may take minutes or fail, and keeps the last answer.

    The thread works while the context is open. Entering waits ``FIRST_ANSWER_S`` at most for the first answer.

    Args:
        answer: the answer until then. Where asking fails, the last answer stays.
    """

    def __init__(self, ask: Callable[[], Answer], answer: Answer, every_s: float) -> None:
        self.answer = answer
        self._ask, self._every_s = ask, max(every_s, 0.02)
        self._asked, self._stopped = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._repeat, name="poll", daemon=True)

    def __enter__(self) -> "Polled[Answer]":
        self._thread.start()
        self._asked.wait(FIRST_ANSWER_S)
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join(INTERRUPTED_STOP_S)

    def _repeat(self) -> None:
        while True:
            with contextlib.suppress(Exception):
                self.answer = self._ask()
            self._asked.set()
            if self._stopped.wait(self._every_s):
                return


@contextmanager
def drain(rows: Iterator[dict[str, Any]], timeout_s: float) -> Iterator[Iterator[dict[str, Any] | None]]:
    """The rows as they come, pulled by a thread; None whenever none came for a while, so that checkpoints are not late.

    On leaving, ``rows`` is closed, which stops the workers of a run that fails.
    """
    stop_s = STOP_S
    arrived: queue.Queue[dict[str, Any] | BaseException | None] = queue.Queue(maxsize=64)
    stopped = threading.Event()

    def put(item: dict[str, Any] | BaseException | None) -> None:
        while not stopped.is_set():
            try:
                arrived.put(item, timeout=0.2)
                break
            except queue.Full:
                continue

    def pull() -> None:
        try:
            for row in rows:
                put(row)
                if stopped.is_set():
                    break
            put(None)
        except BaseException as error:
            put(error)
        finally:
            if isinstance(rows, Generator):
                rows.close()

    def take() -> Iterator[dict[str, Any] | None]:
        while True:
            try:
                item = arrived.get(timeout=min(timeout_s, 1.0))
            except queue.Empty:
                yield None
                continue
            if item is None:
                return
            if isinstance(item, BaseException):
                raise item
            yield item

    thread = threading.Thread(target=pull, name="receipts", daemon=True)
    thread.start()
    try:
        yield take()
    except (KeyboardInterrupt, RayDied):
        stop_s = INTERRUPTED_STOP_S
        raise
    finally:
        stopped.set()
        thread.join(stop_s)


@contextmanager
def signals_held() -> Iterator[None]:
    """Let Ctrl-C and SIGTERM wait until the context is left, which takes moments.

    The handler of the first signal runs at once; what it raises is raised on leaving. A second signal does not wait.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handlers: dict[int, Any] = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    former = {number: handler for number, handler in handlers.items() if handler not in (None, signal.SIG_IGN)}
    held: list[BaseException | int] = []

    def hold(number: int, frame: FrameType | None) -> None:
        handler = former[number]
        try:
            if callable(handler):
                handler(number, frame)
            elif held:
                signal.signal(number, handler)
                signal.raise_signal(number)
            else:
                held.append(number)
        except BaseException as error:
            if held:
                raise
            held.append(error)

    try:
        for number in former:
            signal.signal(number, hold)
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
    for signal_or_error in held[:1]:
        if isinstance(signal_or_error, BaseException):
            raise signal_or_error
        signal.raise_signal(signal_or_error)
