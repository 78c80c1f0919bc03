"""Signals that wait: Ctrl-C and SIGTERM do not interrupt a commit."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any


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
