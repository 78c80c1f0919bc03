"""Room for what requests send: all of them together take up no more than there is."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from jobs.serve.workers import Busy

Take = Callable[[int], None]
"""Takes room for so many bytes more."""


class NoRoom(Busy):
    """What other requests have sent fills the room."""


class Room:
    """So many bytes, for all requests. It belongs to the thread of the event loop.

    Args:
        what: takes the room, for messages.
    """

    def __init__(self, what: str, max_bytes: int) -> None:
        self._what, self._max_bytes = what, max_bytes
        self.n_taken = 0

    @contextmanager
    def hold(self) -> Iterator[Take]:
        """Room for one request, which takes it as its bytes arrive, and gives it back at the end of the context.

        Raises:
            NoRoom: by what is yielded: there is not so much left.
        """
        n_held = 0

        def take(n_bytes: int) -> None:
            nonlocal n_held
            if self.n_taken + n_bytes > self._max_bytes:
                raise NoRoom(f"{self._what} of other requests fill the server's room for them: try again later")
            self.n_taken += n_bytes
            n_held += n_bytes

        try:
            yield take
        finally:
            self.n_taken -= n_held
