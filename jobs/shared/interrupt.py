"""Ctrl-C and SIGTERM: the first one ends a command in order, with exit code 130; a second one ends it at once."""

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
"""Signals within it are one: `timeout`, for one, sends a process its signal twice."""

AGAIN_S = 0.1
"""When a signal is sent once more that came where Python cannot raise."""

_came: list[float] = []
"""When signals came, in monotonic seconds."""


class Stopped(BaseException):
    """A command was interrupted; the message says how things stand."""


@contextmanager
def stopping() -> Iterator[None]:
    """While the context is open, a signal raises KeyboardInterrupt, and this process ends with one line for it.

    That line says what ``Stopped`` does, where a command raises it. A signal that the process was told to ignore is
    ignored.
    """
    is_main = threading.current_thread() is threading.main_thread()
    numbers = [n for n in (signal.SIGINT, signal.SIGTERM) if is_main and signal.getsignal(n) != signal.SIG_IGN]
    is_outermost = not any(signal.getsignal(number) is _stop for number in numbers)
    former = {number: signal.signal(number, _stop) for number in numbers} if is_outermost else {}
    hook = sys.unraisablehook
    if is_outermost:
        sys.unraisablehook = partial(_ask_again, hook)
        _came.clear()
    try:
        yield
    except BaseException as error:
        if isinstance(error, SystemExit) and not (_came and error.code == EXIT_CODE):  # typer's for KeyboardInterrupt
            raise
        # Whatever else is raised after a signal is due to it: imports that are broken off have errors of their own.
        if not _came and not isinstance(error, KeyboardInterrupt | Stopped):
            raise
        with contextlib.suppress(Exception):
            print_error(f"earshot: {error if isinstance(error, Stopped) else 'stopped'}", over=True)  # the ^C shown
        leave(EXIT_CODE)
    finally:
        if is_outermost:
            sys.unraisablehook = hook
        for number, handler in former.items():
            signal.signal(number, handler)


def leave(code: int) -> NoReturn:
    """End this process now, and all that it has started.

    Nothing is taken down in order. Python would wait for threads that wait for Ray, Ray's own end takes up to a minute
    when workers are just starting, and native libraries whose threads are still at work have crashed there. Nothing
    depends on it: what is published is published, and the next run mends what is half done.
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
    # Not by print: the signal may have come in the middle of one. The cursor is hidden while a bar is shown.
    show_cursor = "\x1b[?25h" if os.isatty(2) else ""
    with contextlib.suppress(OSError):
        os.write(2, f"{show_cursor}\nearshot: stopped at once; run again to go on\n".encode())
    leave(EXIT_CODE)


def _ask_again(hook: Callable[[Any], object], unraisable: Any) -> None:
    """Where Python cannot raise, as in a destructor, it prints a traceback and goes on: so the signal is sent again."""
    if not isinstance(unraisable.exc_value, KeyboardInterrupt):
        hook(unraisable)
        return
    _came.clear()
    again = threading.Timer(AGAIN_S, os.kill, (os.getpid(), signal.SIGINT))
    again.daemon = True
    again.start()
