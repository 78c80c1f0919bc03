"""Closing what another thread may be reading, without waiting for it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Lock


class Closing:
    """Closes a source as soon as nobody reads it: at once, or where the read that runs ends.

    Args:
        end: closes the source. It is called once, in the thread that closes or in that which reads.
    """

    def __init__(self, end: Callable[[], object]) -> None:
        self._end = end
        self._lock = Lock()
        self._is_asked = self._is_done = False

    @contextmanager
    def reading(self) -> Iterator[bool]:
        """One read at a time; whether the source is still open."""
        try:
            with self._lock:
                yield not self._is_asked
        finally:
            self._end_if_asked()

    def close(self) -> None:
        """Any thread may call it at any time, also more than once. It never waits for a read."""
        self._is_asked = True
        self._end_if_asked()

    def _end_if_asked(self) -> None:
        if not self._is_asked or not self._lock.acquire(blocking=False):
            return  # whoever holds the lock looks again behind it
        try:
            if not self._is_done:
                self._is_done = True
                self._end()
        finally:
            self._lock.release()
