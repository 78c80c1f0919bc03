"""Room for what requests send and are sent: all of them together take up no more than there is."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from jobs.serve.workers import Busy

Take = Callable[[int], None]
"""Takes so much more room."""


class NoRoom(Busy):
    """Other requests fill the room."""


class Room:
    """So many bytes or answers, for all requests. It belongs to the thread of the event loop.

    Args:
        what: takes the room, for messages.
    """

    def __init__(self, what: str, most: int) -> None:
        self._what, self._most = what, most
        self.n_taken = 0

    @contextmanager
    def hold(self, n_at_first: int = 0) -> Iterator[Take]:
        """Room for one request, which may take more as its bytes arrive, and gives it back at the end of the context.

        Raises:
            NoRoom: at once, or by what is yielded: there is not so much left.
        """
        n_held = 0

        def take(n_more: int) -> None:
            nonlocal n_held
            if self.n_taken + n_more > self._most:
                raise NoRoom(f"too many {self._what} at once: try again later")
            self.n_taken += n_more
            n_held += n_more

        try:
            take(n_at_first)
            yield take
        finally:
            self.n_taken -= n_held
