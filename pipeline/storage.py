"""Reads files on a disk or, by URL, in an object store: size and time, content, ranges of bytes, many at a time.

Object stores are reached through fsspec: ``s3://``, ``gs://`` and every other protocol whose driver is installed.
Credentials come from the environment or from fsspec's own configuration, never from a URL. Requests that fail for a
reason that may pass are retried with growing pauses, in addition to the retries of the driver.
"""

import datetime as dt
import email.utils
import errno
import hashlib
import io
import os
import random
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, TypeVar, cast

from pipeline.errors import UsageError
from pipeline.heartbeat import beat

T = TypeVar("T")
R = TypeVar("R")
Info = dict[str, Any]

PAUSES_S = (0.5, 2.0, 8.0)
"""Pauses before the retries."""

FETCH_BYTES = 256 * 2**20
"""Remote files up to this size are copied to this machine once; larger ones are read in place."""

_PROTOCOL = re.compile(r"(?:[A-Za-z][A-Za-z0-9+.-]+::)*[A-Za-z][A-Za-z0-9+.-]+://")
_CHAIN = re.compile(r"::[A-Za-z][A-Za-z0-9+.-]+://")
_BLOCK_BYTES = 4 * 2**20
_FINAL = (FileNotFoundError, PermissionError, NotADirectoryError, IsADirectoryError, FileExistsError)
_FINAL_NAMES = ("NoCredentialsError", "PartialCredentialsError", "ProfileNotFound", "ParamValidationError")
_MOST_S = 2**63 // 10**9 - 1
"""Most seconds whose nanoseconds fit in a column."""

_TIME_KEYS = ("LastModified", "last_modified", "Last-Modified", "mtime", "updated", "modified", "created")


def is_url(path: str) -> bool:
    """Whether ``path`` names something in an object store: it begins with a protocol."""
    return _PROTOCOL.match(path) is not None


def absolute(path: str) -> str:
    """``path`` as an absolute path; URLs as their store writes them, ``file:`` URLs as paths."""
    if not is_url(path):
        return os.path.abspath(os.path.expanduser(path))
    store, name = find_store(path)
    return name if path.startswith("file://") else str(store.unstrip_protocol(name))


def is_hidden(name: str) -> bool:
    """Whether the name of a file or folder is hidden. ``..``, which occurs in archives and stores, is not."""
    return name.startswith(".") and name not in (".", "..")


def join(path: str, name: str) -> str:
    """The path or URL of ``name`` in the folder ``path``."""
    return f"{path.rstrip('/')}/{name}" if is_url(path) else os.path.join(path, name)


def find_store(url: str) -> tuple[Any, str]:
    """The store of a URL, as an fsspec file system without a cache of listings, and the name of the URL in it.

    Raises:
        UsageError: its protocol has no driver, or it chains several URLs.
    """
    import fsspec

    if _CHAIN.search(url):
        raise UsageError(f"{url}: URLs are not chained here: give the URL of the files themselves")
    protocol = url.split("://", 1)[0] if is_url(url) else "file"
    try:
        options = fsspec.get_filesystem_class(protocol)._get_kwargs_from_urls(url)
    except (ImportError, ValueError) as error:
        raise UsageError(f"{url}: {' '.join(str(error).split())}") from None
    store = fsspec.filesystem(protocol, use_listings_cache=False, **options)
    return store, str(store._strip_protocol(url))


def database(path: str) -> str:
    """``path``, after telling Lance that a store without TLS is meant, if the environment names one."""
    if is_url(path) and os.environ.get("AWS_ENDPOINT_URL", "").startswith("http://"):
        os.environ.setdefault("AWS_ALLOW_HTTP", "true")
    return path


def stat_file(path: str) -> tuple[int, int]:
    """Size in bytes, and time of modification in nanoseconds.

    Object stores know whole seconds. The digits below come from the ETag, so that versions of one second differ.

    Raises:
        OSError: there is no such file. Exception: whatever the driver of the store raises.
    """
    if not is_url(path):
        status = os.stat(path)
        return status.st_size, modified_ns(status)
    store, name = find_store(path)
    return stat_of(retried(store.info, name))


def modified_ns(status: os.stat_result) -> int:
    """The time of modification in nanoseconds, limited to what fits in a column.

    Clocks that were never set, and archives, make files of the year 2300.
    """
    return max(-(2**63), min(status.st_mtime_ns, 2**63 - 1))


def is_complete(info: Info) -> bool:
    """Whether fsspec's description of a file has its size and its time."""
    return info.get("size") is not None and any(info.get(key) for key in _TIME_KEYS)


def stat_of(info: Info) -> tuple[int, int]:
    """Size and time, as ``stat_file`` has them, from fsspec's description of a file."""
    found = next((info[key] for key in _TIME_KEYS if info.get(key) is not None), 0)
    try:
        if isinstance(found, str):
            found = _read_time(found)
        seconds = int(found.timestamp() if isinstance(found, dt.datetime) else found)
    except (ValueError, OverflowError):  # unusable: as if the store had sent none
        seconds = 0
    seconds = max(-_MOST_S, min(seconds, _MOST_S))
    version = str(next((info[key] for key in ("ETag", "etag", "md5Hash") if info.get(key)), ""))
    below = int(hashlib.sha256(version.encode()).hexdigest()[:12], 16) % 10**9 if version else 0
    return int(info.get("size") or 0), seconds * 10**9 + below


def _read_time(text: str) -> dt.datetime:
    """A time in ISO 8601, or as in HTTP headers (RFC 9110, section 5.6.7)."""
    try:
        return dt.datetime.fromisoformat(text)
    except ValueError:
        return email.utils.parsedate_to_datetime(text)


def count_bytes(path: str) -> int:
    """The bytes of all files in a folder, local or in a store."""
    fs, root = find_store(path)
    return sum(info["size"] or 0 for info in fs.find(root, detail=True).values())


def count_free_bytes(path: str) -> int | None:
    """The free bytes of the disk that a local folder lies on, or will lie on; None where that is unknown."""
    if is_url(path):
        return None
    folder = Path(os.path.abspath(path))
    try:
        there = next(each for each in (folder, *folder.parents) if each.exists())
        return shutil.disk_usage(there).free
    except OSError:
        return None


def exists(path: str) -> bool:
    """Whether there is such a file or folder; in a store, a folder exists if there is anything in it."""
    if not is_url(path):
        return os.path.lexists(path)
    store, name = find_store(path)
    return bool(retried(store.exists, name))


@contextmanager
def fetched(path: str) -> Iterator[str | BinaryIO]:
    """A path on this machine or an open file, from which ``path`` can be read more than once.

    Raises:
        OSError: there is no such file. Exception: whatever the driver of the store raises.
    """
    if not is_url(path):
        yield path
        return
    store, name = find_store(path)
    if (size := retried(store.info, name).get("size")) is None or size > FETCH_BYTES:
        with open_remote(path) as file:
            yield file
        return
    with tempfile.NamedTemporaryFile(prefix="earshot-") as copy:
        retried(store.get_file, name, copy.name, callback=_beating())
        with open(copy.name, "rb", buffering=1 << 17) as file:  # the driver may have replaced the file
            yield file


def fetch(url: str, path: str) -> None:
    """Copy a file of an object store to this machine."""
    store, name = find_store(url)
    retried(store.get_file, name, path, callback=_beating())


def _beating() -> Any:
    """Tells the watchdog of this process of each piece of a file that arrives."""
    from fsspec.callbacks import Callback

    return Callback(hooks={"beat": lambda size, value, **_: beat()})


def read_bytes(url: str, offset: int, size_bytes: int) -> bytes:
    """Some bytes of a file in an object store, in one request; fewer if it ends before."""
    store, name = find_store(url)
    return cast(bytes, retried(store.cat_file, name, start=offset, end=offset + size_bytes)) if size_bytes else b""


def open_remote(url: str, block_bytes: int | None = None) -> BinaryIO:
    """An open file in an object store, read in blocks on demand. Reads that fail are retried."""
    store, name = find_store(url)
    file = retried(store.open, name, "rb", block_size=block_bytes or _BLOCK_BYTES)
    return cast(BinaryIO, _Retried(file))


class FileAround(io.RawIOBase):
    """Wraps another file, and closes it together with itself."""

    def __init__(self, file: Any) -> None:
        self._file = file

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def close(self) -> None:
        self._file.close()
        super().close()


class _Retried(FileAround):
    def read(self, size: int | None = -1, /) -> bytes:
        at = self._file.tell()

        def attempt() -> bytes:
            self._file.seek(at)
            return cast(bytes, self._file.read(-1 if size is None else size))

        return retried(attempt)

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        return int(self._file.seek(offset, whence))

    def tell(self) -> int:
        return int(self._file.tell())


def retried(action: Callable[..., T], *arguments: Any, **options: Any) -> T:
    """The result of ``action``, which is retried if it fails for a reason that may pass."""
    for pause_s in PAUSES_S:
        beat()
        try:
            return action(*arguments, **options)
        except Exception as error:
            if not _may_pass(error):
                raise
            time.sleep(pause_s * random.uniform(0.5, 1.0))
    return action(*arguments, **options)


def _may_pass(error: Exception) -> bool:
    if isinstance(error, _FINAL) or type(error).__name__ in _FINAL_NAMES:
        return False
    if isinstance(error, OSError) and error.errno in (errno.ENOSYS, errno.EOPNOTSUPP):
        return False
    names = ("status", "code", "status_code")  # of drivers that speak HTTP
    status = next((found for name in names if (found := getattr(error, name, None))), None)
    if isinstance(status, int) and 400 <= status < 500:
        return status in (408, 429)
    return not isinstance(error, ValueError | TypeError | LookupError | NotImplementedError)


# --- many files at the same time, in threads: that waits for disks and servers, not for cores -------------------------


FILES_AT_ONCE = 16


def map_in_threads(read: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
    """``map`` with ``FILES_AT_ONCE`` threads, in order. Only a few results wait to be taken."""
    with ThreadPoolExecutor(FILES_AT_ONCE) as pool:
        for some in chunked(items, 4 * FILES_AT_ONCE):
            yield from pool.map(read, some)


def chunked(items: Iterable[T], n_items: int) -> Iterator[list[T]]:
    """Lists of ``n_items``; the last one may be shorter."""
    waiting = iter(items)
    while chunk := list(islice(waiting, n_items)):
        yield chunk
