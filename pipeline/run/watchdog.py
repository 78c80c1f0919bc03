"""Ends a worker whose decoder does not return: native code that loops cannot be interrupted, only its process can go.

The batch is then given up: Ray's next tries leave it out (``causes.py``), and its files are tried one by one
(``dispatch.py``). So the file that stops its decoder fails as ``crashed``, and takes no other with it.
"""

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from pipeline.heartbeat import beat, find_silence_s

T = TypeVar("T")

CHECK_S = 1.0

LEAST_S = 600.0
"""How long decoding may take in all, beside the time for its bytes (``run.decoder_s_per_byte``)."""


@dataclass(frozen=True)
class Limits:
    """How long a decoder may read and give nothing, and how long it may take in all, in seconds."""

    silence_s: float
    total_s: float

    @classmethod
    def for_bytes(cls, n_bytes: int, silence_s: float, s_per_byte: float) -> "Limits":
        return cls(silence_s, LEAST_S + s_per_byte * n_bytes)


class Watchdog:
    """Watches an iterator while it works; the time that its consumer takes does not count.

    Args:
        give_up: called in a thread, once, with a line that says why. It ends the process.
    """

    def __init__(self, limits: Limits, give_up: Callable[[str], object], check_s: float = CHECK_S) -> None:
        self._limits, self._give_up, self._check_s = limits, give_up, check_s
        self._worked_s = 0.0
        self._began: float | None = None
        """When the present step began; None between steps."""
        self._has_ended = threading.Event()

    def watch(self, items: Iterable[T]) -> Iterator[T]:
        """The same items."""
        iterator = iter(items)
        thread = threading.Thread(target=self._look_after, name="watchdog", daemon=True)
        thread.start()
        try:
            while True:
                beat()
                self._began = time.monotonic()
                try:
                    item = next(iterator)
                except StopIteration:
                    return
                finally:
                    self._worked_s += time.monotonic() - self._began
                    self._began = None
                yield item
        finally:
            self._has_ended.set()

    def call(self, work: Callable[[], T]) -> T:
        """The result of ``work``, which is watched."""
        [result] = self.watch(work() for _ in range(1))
        return result

    def _look_after(self) -> None:
        while not self._has_ended.wait(self._check_s):
            if (why := self._find_fault()) is not None:
                self._give_up(why)
                return

    def _find_fault(self) -> str | None:
        began = self._began
        if began is None:
            return None
        silence_s = find_silence_s()  # at most that of this step, which began with a beat
        if silence_s > self._limits.silence_s:
            return f"its decoder read and gave nothing for {silence_s:.0f} s (run.decoder_silence_s)"
        if self._worked_s + time.monotonic() - began > self._limits.total_s:
            return f"its decoder had not come to an end after {self._limits.total_s:.0f} s (run.decoder_s_per_byte)"
        return None
