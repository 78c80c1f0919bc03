"""Ctrl-C and SIGTERM: the first one ends a command in order, with exit code 130; the second one ends it at once."""

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from types import FrameType
from typing import Any, NoReturn

from jobs.shared.output import flush, print_error

EXIT_CODE = 130

SAME_S = 0.2
"""Signals this close count as one: `timeout`, for example, sends its signal twice."""

AGAIN_S = 0.1
"""A signal that came where Python cannot raise is sent again after this time."""

_came: list[float] = []
"""The monotonic seconds at which signals came."""


class Stopped(BaseException):
    """A command was interrupted; the message is the line to print."""


@contextmanager
def stopping() -> Iterator[None]:
    """While the context is open, a signal raises KeyboardInterrupt, and the process ends with one line.

    A command may raise ``Stopped`` with a line of its own. A signal that the process was started to ignore is ignored.
    """
    is_main = threading.current_thread() is threading.main_thread()
    numbers = [n for n in (signal.SIGINT, signal.SIGTERM) if is_main and signal.getsignal(n) != signal.SIG_IGN]
    is_outermost = not any(signal.getsignal(number) is _stop for number in numbers)
    former = {number: signal.signal(number, _stop) for number in numbers} if is_outermost else {}
    hook = sys.unraisablehook
    if is_outermost:
        sys.unraisablehook = partial(_send_again, hook)
        _came.clear()
    try:
        yield
    except BaseException as error:
        if isinstance(error, SystemExit) and not (_came and error.code == EXIT_CODE):  # typer's for KeyboardInterrupt
            raise
        # After a signal, any error is due to it: an interrupted import may raise an error of its own.
        if not _came and not isinstance(error, KeyboardInterrupt | Stopped):
            raise
        with contextlib.suppress(Exception):
            print_error(f"earshot: {error if isinstance(error, Stopped) else 'stopped'}", over=True)  # over the ^C
        leave(EXIT_CODE)
    finally:
        if is_outermost:
            sys.unraisablehook = hook
        for number, handler in former.items():
            signal.signal(number, handler)


def leave(code: int) -> NoReturn:
    """End this process now, and all processes that it has started.

    Nothing is shut down in order: Python would wait for threads that wait for Ray, Ray takes up to a minute to end
    while workers are starting, and native libraries have crashed when their threads were still at work. Nothing depends
    on an orderly end: published batches stay, and the next run repairs the rest.
    """
    from pipeline.processes import kill_descendants

    with contextlib.suppress(Exception):
        flush()
    with contextlib.suppress(Exception):
        kill_descendants()
    if watch := sys.modules.get("pipeline.run.ray_health"):
        watch.remove_spilled()
    os._exit(code)


def _stop(number: int, frame: FrameType | None) -> None:
    _came.append(time.monotonic())
    if len(_came) == 1:
        raise KeyboardInterrupt
    if _came[-1] - _came[0] < SAME_S:
        return
    # Not by print, which the signal may have interrupted. The bar has hidden the cursor.
    show_cursor = "\x1b[?25h" if os.isatty(2) else ""
    with contextlib.suppress(OSError):
        os.write(2, f"{show_cursor}\nearshot: stopped at once; run again to go on\n".encode())
    leave(EXIT_CODE)


def _send_again(hook: Callable[[Any], object], unraisable: Any) -> None:
    """Where Python cannot raise, as in a destructor, it prints a traceback and continues: so send the signal again."""
    if not isinstance(unraisable.exc_value, KeyboardInterrupt):
        hook(unraisable)
        return
    _came.clear()
    again = threading.Timer(AGAIN_S, os.kill, (os.getpid(), signal.SIGINT))
    again.daemon = True
    again.start()
