"""What workers send in, the same as it comes out: fetched by a thread, while the driver commits and minds signals."""

import queue
import signal
import threading
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Any

STOP_S = 10.0
"""How long a run that fails waits for its workers to stop."""

INTERRUPTED_STOP_S = 0.5
"""How long one that is interrupted does: whoever stops a job kills it some seconds later."""


@contextmanager
def signals_held() -> Iterator[None]:
    """Ctrl-C and SIGTERM wait until what is done here is through, which takes moments; a second one does not."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []

    def hold(number: int, frame: Any) -> None:
        if came:
            raise KeyboardInterrupt
        came.append(number)

    former = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    former = {number: handler for number, handler in former.items() if handler is not None}
    try:
        for number in former:
            signal.signal(number, hold)
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
    if came:
        signal.raise_signal(came[0])


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
    except KeyboardInterrupt:
        stop_s = INTERRUPTED_STOP_S
        raise
    finally:
        stopped.set()
        thread.join(stop_s)
