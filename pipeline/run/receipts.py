"""What threads learn for the driver while it commits: receipts, and how the cluster is. And signals, which wait."""

import contextlib
import queue
import signal
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Generic, TypeVar

from pipeline.errors import RayDied

Answer = TypeVar("Answer")

STOP_S = 10.0
"""How long a run that fails waits for its workers to stop."""

INTERRUPTED_STOP_S = 0.5
"""How long one that is interrupted does: whoever stops a job kills it some seconds later. One whose Ray is dead has no
workers to wait for."""

FIRST_ANSWER_S = 2.0
"""How long the first answer to what is asked again and again is waited for."""

LOOK_EVERY_S = 1.0
"""How often a run looks whether its Ray has died."""

GRACE_S = 3.0
"""How long the main thread may take to notice that. Ray's own code ends this process a quarter of a minute after."""


@contextmanager
def signals_held() -> Iterator[None]:
    """Let Ctrl-C and SIGTERM wait until what is done here is through, which takes moments.

    The first one does what it always does, but what that raises is raised on leaving. A second one does not wait.
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
    for what in held[:1]:
        if isinstance(what, BaseException):
            raise what
        signal.raise_signal(what)


class Polled(Generic[Answer]):
    """What a question was answered with last. A thread asks it, again and again, since it may take minutes or fail.

    The thread works while the context is open. On entering, the first answer is waited for a little.

    Args:
        answer: what holds until then; where asking fails, the answer before stays.
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


class Deathwatch:
    """Looks whether Ray has died while the context is open, and tells the main thread when it asks.

    Args:
        path: of the index, for the message.
        find_death: what has died, in words; None while all is well.
        give_up: called once, in a thread, when the main thread has not left the context ``GRACE_S`` after a death: it
            is in one long call, of Lance say. Ray ends the process before long, so this is the last chance to speak.
    """

    def __init__(
        self,
        path: str,
        find_death: Callable[[], str | None],
        give_up: Callable[[RayDied], object],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._path, self._find_death, self._give_up, self._clock = path, find_death, give_up, clock
        self._polled = Polled(self._look, None, LOOK_EVERY_S)
        self._found_at: float | None = None
        self._has_given_up = False

    def __enter__(self) -> "Deathwatch":
        self._polled.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._polled.__exit__()

    def check(self, *, now: bool = False) -> None:
        """Raise what was found.

        Args:
            now: look once more, rather than take the last answer.

        Raises:
            RayDied: a part of Ray has died.
        """
        if (death := self._find_death() if now else self._polled.answer) is not None:
            raise self._error(death)

    def _error(self, death: str) -> RayDied:
        return RayDied(f"{self._path}: {death}; what was published stays, run again to go on")

    def _look(self) -> str | None:
        death = self._find_death()
        if death is None:
            self._found_at = None
            return None
        if self._found_at is None:
            self._found_at = self._clock()
        elif self._clock() - self._found_at >= GRACE_S and not self._has_given_up:
            self._has_given_up = True
            self._give_up(self._error(death))
        return death


@contextmanager
def drain(rows: Iterator[dict[str, Any]], timeout_s: float) -> Iterator[Iterator[dict[str, Any] | None]]:
    """The rows as they come, and None whenever none came for a while, so that checkpoints are kept in time.

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
