"""Functions that another process calls: they end, fail, die, take all memory, or never end."""

import os
import signal
from pathlib import Path
from typing import Any


def write(path: str, text: str) -> None:
    Path(path).write_text(text)


def fail(message: str) -> None:
    raise ValueError(message)


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def spin(path: str) -> None:
    """Notes its process, and never ends."""
    Path(path).write_text(str(os.getpid()))
    while True:
        pass


def grow() -> None:
    held = list[Any]()
    while True:
        held.append(bytearray(os.urandom(1_000)) * 1_000)
