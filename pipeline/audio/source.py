"""The bytes of a file: opened without harm, measured and hashed.

Nothing here decodes, and no heavy library is imported; ``storage`` opens files in object stores. ``file_boundary``
turns every error that a decoder raises into a ``FileFailure``.
"""

import errno
import hashlib
import io
import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import BinaryIO

from pipeline import storage
from pipeline.corpus.raw_formats import RawFormat, raw_format_of
from pipeline.corpus.shards import Place, find_member, is_audio_table, is_member, open_member, shard_of
from pipeline.corpus.time_ranges import TimeRange, split_uri
from pipeline.errors import TOO_LARGE, FileFailure, one_line
from pipeline.heartbeat import beat

PROBE_BYTES = 4096

Source = str | Path | Place | BinaryIO
"""A path, a URL, the place of a shard's member, or a seekable binary file, read from its start and left open."""


class Bytes(AbstractContextManager["Bytes"]):
    """The bytes of a source in the form that decoders need: ``read``, ``seek``, ``tell``; a context manager.

    ``error`` keeps an error of the file itself, and decoders see the end of the file instead: they would print and lose
    an exception inside their callback. They never see a path either, since they interpret names such as ``-``,
    ``%d.mp3`` or ``concat:``. ``is_remote`` tells that they lie in an object store.

    Raises:
        FileFailure: stage ``read``: ``vanished``, ``unreadable``; stage ``decode``: ``empty``.
    """

    def __init__(self, source: Source, *, may_be_empty: bool = False) -> None:
        self.error: Exception | None = None
        self._own = isinstance(source, str | Path | Place)
        self.is_remote = storage.is_url(source.shard if isinstance(source, Place) else str(source)) and self._own
        self._file = _open(source) if isinstance(source, str | Path | Place) else source
        self.size_bytes = self.seek(0, io.SEEK_END)
        self.seek(0)
        if self.error is not None or not (self.size_bytes or may_be_empty):
            self.close()
            raise FileFailure("decode", "empty", "0 bytes") if self.error is None else unreadable(self.error)

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file, if this object opened it."""
        if self._own:
            self._file.close()

    def read(self, size: int = -1) -> bytes:
        beat()
        try:
            return self._file.read(size)
        except Exception as error:
            self.error = error
            return b""

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        try:
            return self._file.seek(offset, whence)
        except Exception as error:
            # A damaged header makes decoders seek to before the beginning: no error of the file.
            if not isinstance(error, ValueError) and getattr(error, "errno", None) != errno.EINVAL:
                self.error = error
            return -1

    def tell(self) -> int:
        return self._file.tell()

    @property
    def descriptor(self) -> int | None:
        """The descriptor of a local file that this object opened: native code then reads it without callbacks."""
        return self._file.fileno() if self._own and isinstance(self._file, io.FileIO) else None

    def peek(self, offset: int, size: int) -> bytes:
        """Up to ``size`` bytes from ``offset``. Leaves the position behind them."""
        self.seek(offset)
        return self.read(size)


def resolve_uri(uri: str) -> tuple[str | Place, TimeRange, RawFormat | None]:
    """The path, URL or place to open for a URI, the range that it names, and how to read it if it has no header.

    A file of exactly that name takes precedence. Members are looked up in their shards.

    Raises:
        FileFailure: ``vanished`` or ``unreadable``: the shard is, or the shard has no such member.
    """
    recording, time_range = split_uri(uri)
    try:
        try:
            if not time_range or is_member(uri) or storage.exists(uri):
                return _find(uri), TimeRange(), raw_format_of(uri)
        except FileNotFoundError:
            if not time_range:
                raise
        return _find(recording), time_range, raw_format_of(recording)
    except Exception as error:  # each store has errors of its own
        raise unreadable(error) from None


def _find(uri: str) -> str | Place:
    return uri if not is_member(uri) or storage.exists(uri) else find_member(uri)


def place_of(uri: str, offset: int | None, size_bytes: int) -> str | Place:
    """The path or URL of a file of a corpus; for a member of a shard, its place there."""
    return uri if offset is None else Place(shard_of(uri), offset, size_bytes)


def _open(source: str | Path | Place) -> BinaryIO:
    if not isinstance(source, Place) and not storage.is_url(str(source)):
        return _open_regular(source)
    try:
        return open_member(source) if isinstance(source, Place) else storage.open_remote(str(source))
    except Exception as error:  # each store has errors of its own
        raise unreadable(error) from None


def _open_regular(path: str | Path) -> BinaryIO:
    """Open a regular file. Refuse anything else, without blocking on a pipe."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise unreadable(error) from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise FileFailure("read", "unreadable", "not a regular file")
    return io.FileIO(descriptor)  # unbuffered: native code and Python share one position


def unreadable(error: Exception) -> FileFailure:
    """The failure for an error of the file itself."""
    if isinstance(error, FileFailure):
        return error
    reason = "vanished" if isinstance(error, FileNotFoundError | NotADirectoryError) else "unreadable"
    # Reading may succeed when there is more memory: the next run tries it again.
    return FileFailure("read", reason, TOO_LARGE if isinstance(error, MemoryError) else one_line(error))


@contextmanager
def memory_boundary() -> Iterator[None]:
    """Turn a lack of memory, also of pyarrow's, into a failure of the file that is decoded inside.

    Raises:
        FileFailure: ``crashed``.
    """
    try:
        yield
    except MemoryError:  # of a worker that has too little of it, the system ends the process
        raise FileFailure("decode", "crashed", TOO_LARGE) from None


@contextmanager
def file_boundary(source: Bytes) -> Iterator[None]:
    """Turn every error inside into a failure of this file.

    Raises:
        FileFailure: as raised inside; ``vanished`` or ``unreadable`` if reading the file failed; else ``decode_error``.
    """
    try:
        with memory_boundary():
            yield
    except Exception as error:
        if source.error is not None:
            raise unreadable(source.error) from None
        if isinstance(error, FileFailure):
            raise
        raise FileFailure("decode", "decode_error", one_line(error)) from None
    if source.error is not None:
        raise unreadable(source.error)


def hash_file(source: Source) -> str:
    """SHA-256 of the bytes, as 64 hexadecimal digits; reads piece by piece.

    Raises:
        FileFailure: ``vanished`` or ``unreadable``.
    """
    with Bytes(source, may_be_empty=True) as file, file_boundary(file):
        return _digest(iter(lambda: file.read(1 << 20), b""))


def measure_file(source: Source) -> int:
    """Size in bytes.

    Raises:
        FileFailure: ``vanished`` or ``unreadable``.
    """
    with Bytes(source, may_be_empty=True) as file:
        return file.size_bytes


def probe_file(source: Source) -> str:
    """SHA-256 of up to 4 KiB each from the start, the middle and the end: differs for most files of equal size.

    Raises:
        FileFailure: ``vanished`` or ``unreadable``.
    """
    if isinstance(source, str | Place) and (probed := _probe_remote(source)) is not None:
        return probed
    with Bytes(source, may_be_empty=True) as file, file_boundary(file):
        return _digest(file.peek(begin, PROBE_BYTES) for begin in _probed(file.size_bytes))


def _probe_remote(source: str | Place) -> str | None:
    """The same by three small requests to an object store; None for other sources."""
    url = source.shard if isinstance(source, Place) else source
    if not storage.is_url(url) or is_audio_table(url):
        return None
    try:
        place = source if isinstance(source, Place) else Place(url, 0, storage.stat_file(url)[0])
        sizes = ((begin, min(PROBE_BYTES, place.size_bytes - begin)) for begin in _probed(place.size_bytes))
        return _digest(storage.read_bytes(url, place.offset + begin, size) for begin, size in sizes)
    except Exception as error:  # each store has errors of its own
        raise unreadable(error) from None


def _probed(size_bytes: int) -> tuple[int, int, int]:
    last = max(0, size_bytes - PROBE_BYTES)
    return 0, last // 2, last


def _digest(parts: Iterable[bytes]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()
