"""The recording that a task is reading: fetched and hashed once for all consecutive ranges of it.

If it is not seekable, it is also decoded once: the stream of one range goes on to the next.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import TYPE_CHECKING

from pipeline import storage
from pipeline.audio.source import Source, hash_file, measure_file, unreadable
from pipeline.config import DecodeConfig
from pipeline.corpus.raw_formats import RawFormat
from pipeline.corpus.shards import Place, fetched_member

if TYPE_CHECKING:
    from pipeline.audio.decode import AudioStream


class Recording(AbstractContextManager["Recording"]):
    """The current recording; ``fetch`` replaces it by another.

    Args:
        whole: copy remote files to this machine. False if only a part of each is needed.
        max_hours: as for ``open_audio``.
    """

    def __init__(self, *, whole: bool = True, max_hours: float | None = None) -> None:
        self._whole, self._max_hours = whole, max_hours
        self._stack = ExitStack()
        self._place: str | Place | None = None
        self._opened: Source = ""
        self._hash: str | None = None
        self._size_bytes: int | None = None
        self._stream: AudioStream | None = None
        self._raw: RawFormat | None = None

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._stop()
        self._place = self._hash = self._size_bytes = None
        self._stack.close()

    def _stop(self) -> None:
        if self._stream is not None:
            self._stream.close()
            self._stream = None

    def fetch(self, place: str | Place) -> None:
        """Make a file the current recording."""
        if place != self._place:
            self.close()
            self._opened = self._stack.enter_context(fetched(place)) if self._whole else place
            self._place = place

    def hash(self) -> str:
        """SHA-256 of its bytes."""
        if self._hash is None:
            self._stop()  # the stream may read from the same open file
            self._hash = hash_file(self._opened)
        return self._hash

    def measure(self) -> int:
        """Its size in bytes."""
        if self._size_bytes is None:
            self._stop()
            self._size_bytes = measure_file(self._opened)
        return self._size_bytes

    def stream(self, first: int, config: DecodeConfig, raw: RawFormat | None = None) -> "AudioStream":
        """A stream that can give samples from ``first`` on. It stays open as long as it reaches the next ``first``.

        Args:
            raw: as for ``open_audio``. It may differ between calls: in a shard, two names may stand for the same bytes.
        """
        from pipeline.audio.decode import open_audio

        if self._stream is None or raw != self._raw or not self._stream.reaches(first):
            self._stop()
            self._stream, self._raw = open_audio(self._opened, config, raw, self._max_hours), raw
        return self._stream


@contextmanager
def fetched(place: str | Place) -> Iterator[Source]:
    """A file or open file to read from: a local copy, if the file is remote."""
    with ExitStack() as stack:
        source: Source
        try:
            opened = fetched_member(place) if isinstance(place, Place) else storage.fetched(place)
            source = stack.enter_context(opened)
        except Exception as error:  # each store has errors of its own
            raise unreadable(error) from None
        yield source
