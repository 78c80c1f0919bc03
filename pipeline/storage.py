"""Where bytes lie: on a disk, or in an object store under a URL. Files there are described, listed and opened here.

Object stores are reached through fsspec: ``s3://`` and ``gs://``, and every other protocol that has a driver installed.
Credentials come from the environment or from fsspec's own configuration, never from a URL. What a store cannot do just
now is tried again, with growing pauses, beyond what its driver does.
"""

import datetime as dt
import email.utils
import errno
import fnmatch
import glob
import hashlib
import io
import os
import random
import re
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, BinaryIO, TypeVar, cast

from pipeline.errors import UsageError

T = TypeVar("T")
Info = dict[str, Any]

PAUSES_S = (0.5, 2.0, 8.0)
"""Before each further try."""

FETCH_BYTES = 256 * 2**20
"""Files up to this size are fetched once, to a file that goes with its process; others are read where they are."""

PAGE_FILES = 1_000
"""How many objects S3 tells in one answer; what is held of each until they are all there is small."""

FOLDERS_AT_ONCE = 16
"""How many folders of an object store are listed at the same time: that waits for the store."""

_PROTOCOL = re.compile(r"(?:[A-Za-z][A-Za-z0-9+.-]+::)*[A-Za-z][A-Za-z0-9+.-]+://")
_CHAIN = re.compile(r"::[A-Za-z][A-Za-z0-9+.-]+://")
_BLOCK_BYTES = 4 * 2**20
_FINAL = (FileNotFoundError, PermissionError, NotADirectoryError, IsADirectoryError, FileExistsError)
_FINAL_NAMES = ("NoCredentialsError", "PartialCredentialsError", "ProfileNotFound", "ParamValidationError")
_MOST_S = 2**63 // 10**9 - 1
"""Seconds of which the nanoseconds fit in a column."""

_TIMES = ("LastModified", "last_modified", "Last-Modified", "mtime", "updated", "modified", "created")


def is_url(path: str) -> bool:
    """Whether ``path`` names something in an object store: it begins with a protocol."""
    return _PROTOCOL.match(path) is not None


def absolute(path: str) -> str:
    """``path`` as it is written wherever it is used from; URLs as their store writes them, ``file:`` ones as paths."""
    if not is_url(path):
        return os.path.abspath(os.path.expanduser(path))
    store, name = find_store(path)
    return name if path.startswith("file://") else str(store.unstrip_protocol(name))


def is_hidden(name: str) -> bool:
    """Whether a name, of one level, is that of something hidden. ``..``, as names in archives and stores have it, is
    not."""
    return name.startswith(".") and name not in (".", "..")


def join(path: str, name: str) -> str:
    """What is called ``name`` in the folder ``path``."""
    return f"{path.rstrip('/')}/{name}" if is_url(path) else os.path.join(path, name)


def find_store(url: str) -> tuple[Any, str]:
    """The store of a URL, an fsspec file system that keeps no listings, and what the URL is called there.

    Raises:
        UsageError: there is no driver for its protocol, or it is a chain of several.
    """
    import fsspec

    if _CHAIN.search(url):
        raise UsageError(f"{url}: URLs are not chained here: give that of the files themselves")
    protocol = url.split("://", 1)[0] if is_url(url) else "file"
    try:
        options = fsspec.get_filesystem_class(protocol)._get_kwargs_from_urls(url)
    except (ImportError, ValueError) as error:
        raise UsageError(f"{url}: {' '.join(str(error).split())}") from None
    store = fsspec.filesystem(protocol, use_listings_cache=False, **options)
    return store, str(store._strip_protocol(url))


def database(path: str) -> str:
    """``path`` as Lance opens tables there: it wants to be told that a store without TLS is meant."""
    if is_url(path) and os.environ.get("AWS_ENDPOINT_URL", "").startswith("http://"):
        os.environ.setdefault("AWS_ALLOW_HTTP", "true")
    return path


def stat_file(path: str) -> tuple[int, int]:
    """Size in bytes, and the time of modification in nanoseconds.

    Object stores know whole seconds: the digits below tell versions of one second apart, by what the store itself tells
    them apart by (its ETag).

    Raises:
        OSError: there is no such file; or what the driver of the store raises.
    """
    if not is_url(path):
        status = os.stat(path)
        return status.st_size, modified_ns(status)
    store, name = find_store(path)
    return _measure(retried(store.info, name))


def modified_ns(status: os.stat_result) -> int:
    """When a file was modified, in nanoseconds: a time that fits in no column becomes the nearest one that does. Clocks
    that were never set, and archives, make files of the year 2300."""
    return max(-(2**63), min(status.st_mtime_ns, 2**63 - 1))


def _measure(info: Info) -> tuple[int, int]:
    found = next((info[key] for key in _TIMES if info.get(key) is not None), 0)
    try:
        if isinstance(found, str):
            found = _read_time(found)
        seconds = int(found.timestamp() if isinstance(found, dt.datetime) else found)
    except (ValueError, OverflowError):  # of no use: as where a store tells none
        seconds = 0
    seconds = max(-_MOST_S, min(seconds, _MOST_S))
    version = str(next((info[key] for key in ("ETag", "etag", "md5Hash") if info.get(key)), ""))
    below = int(hashlib.sha256(version.encode()).hexdigest()[:12], 16) % 10**9 if version else 0
    return int(info.get("size") or 0), seconds * 10**9 + below


def _read_time(text: str) -> dt.datetime:
    """As stores write them, or as HTTP does (RFC 9110, section 5.6.7)."""
    try:
        return dt.datetime.fromisoformat(text)
    except ValueError:
        return email.utils.parsedate_to_datetime(text)


def exists(path: str) -> bool:
    """Whether there is such a file, or a folder with anything in it."""
    if not is_url(path):
        return os.path.lexists(path)
    store, name = find_store(path)
    return bool(retried(store.exists, name))


@contextmanager
def fetched(path: str) -> Iterator[str | BinaryIO]:
    """A path on this machine, or an open file, to read ``path`` from more than once.

    Raises:
        OSError: it is not there; or what the driver of the store raises.
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
        retried(store.get_file, name, copy.name)
        with open(copy.name, "rb", buffering=1 << 17) as file:  # a driver may have put another file in its place
            yield file


def fetch(url: str, path: str) -> None:
    """Copy a file of an object store to this machine."""
    store, name = find_store(url)
    retried(store.get_file, name, path)


def read_bytes(url: str, offset: int, size_bytes: int) -> bytes:
    """Some bytes of a file of an object store, in one request; fewer where it ends before."""
    store, name = find_store(url)
    return cast(bytes, retried(store.cat_file, name, start=offset, end=offset + size_bytes)) if size_bytes else b""


def open_remote(url: str, block_bytes: int | None = None) -> BinaryIO:
    """A file of an object store, read in blocks as they are wanted, each tried again where that fails."""
    store, name = find_store(url)
    file = retried(store.open, name, "rb", block_size=block_bytes or _BLOCK_BYTES)
    return cast(BinaryIO, _Retried(file))


class FileAround(io.RawIOBase):
    """Another file, which is closed with it, to be read in another way."""

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


def stat_folder(url: str) -> Iterator[tuple[str, tuple[int, int]]]:
    """As ``stat_file``, of what lies in a folder, with its URL: in one request for a thousand of them. What the store
    does not tell the size and the time of in a listing is left out."""
    store, name = find_store(url)
    for infos in _list_folder(store, name):
        for info in infos:
            if info["type"] == "file" and info.get("size") is not None and any(info.get(key) for key in _TIMES):
                yield str(store.unstrip_protocol(info["name"])), _measure(info)


def _list_folder(store: Any, path: str) -> Iterator[list[Info]]:
    """What a store says of what is in a folder; of S3 a page at a time, for it may be millions."""
    if not hasattr(store, "call_s3") or store.version_aware:
        yield retried(store.ls, path, detail=True)
        return
    bucket, key, _ = store.split_path(path.rstrip("/"))
    asked = {"Bucket": bucket, "Prefix": f"{key}/" if key else "", "Delimiter": "/", "MaxKeys": PAGE_FILES}
    while True:
        page = retried(store.call_s3, "list_objects_v2", **asked, **store.req_kw)
        folders = [each["Prefix"] for each in page.get("CommonPrefixes", ())]
        yield [{"name": f"{bucket}/{folder}", "type": "directory"} for folder in folders] + [
            {"name": f"{bucket}/{each['Key']}", "type": "file", "size": each["Size"], **each}
            for each in page.get("Contents", ())
        ]
        if not page.get("IsTruncated"):
            return
        asked["ContinuationToken"] = page["NextContinuationToken"]


def list_files(
    url: str,
    *,
    hidden: bool,
    enter: Callable[[str], bool],
    ignore: Callable[[str], None] = lambda url: None,
) -> Iterator[tuple[str, tuple[int, int] | Exception, bool]]:
    """What a URL names: a file, the files in a folder and all below it, or what a pattern matches.

    Args:
        hidden: also what has a name that begins with a dot, save where the URL names it so, or its pattern does.
        enter: whether a folder is entered, by its URL.
        ignore: told of what is left out as it is hidden, by its URL.

    Yields:
        A file's URL, with its size and time; or a folder's, with why it cannot be listed. And whether the URL names or
        matches the file itself, rather than a folder that it is in.

    Raises:
        FileNotFoundError: nothing is there; or what the driver of the store raises.
    """
    store, name = find_store(url)
    for found in _resolve(store, name, hidden=hidden, ignore=ignore):
        if found["type"] != "directory":
            yield store.unstrip_protocol(found["name"]), _measure(found), True
        elif enter(store.unstrip_protocol(found["name"].rstrip("/"))):
            for below, described in _walk(store, found["name"], hidden=hidden, enter=enter, ignore=ignore):
                yield below, described, False


def _resolve(store: Any, name: str, *, hidden: bool, ignore: Callable[[str], None]) -> list[Info]:
    """What is there under a name, or else what it matches as a pattern, by the rules for those on a disk."""
    try:
        return [retried(store.info, name)]
    except FileNotFoundError:
        if not glob.has_magic(name):
            raise
    matches = retried(store.glob, _escape_folders(store, name), detail=True)
    dotted = [part for part in name.split("/") if part.startswith(".")]

    def is_left_out(part: str) -> bool:
        return not hidden and is_hidden(part) and not any(fnmatch.fnmatchcase(part, pattern) for pattern in dotted)

    found = []
    for path, info in matches.items():
        parts = path.split("/")
        n_shown = next((k for k, part in enumerate(parts) if is_left_out(part)), len(parts))
        if n_shown < len(parts):  # a hidden folder counts as one, whatever it holds
            ignore(str(store.unstrip_protocol("/".join(parts[: n_shown + 1]))))
        else:
            found.append(info)
    if not found:
        raise FileNotFoundError(f"the pattern matches nothing: {name}")
    return found


def _escape_folders(store: Any, pattern: str) -> str:
    """A pattern in which the folders at its beginning that exist, whatever their names, are taken as they stand."""
    parts, n_taken = pattern.split("/"), 0
    for n_taken, part in enumerate(parts):
        if glob.has_magic(part) and not _is_folder(store, "/".join(parts[: n_taken + 1])):
            break
    return "/".join([*map(glob.escape, parts[:n_taken]), *parts[n_taken:]])


def _is_folder(store: Any, name: str) -> bool:
    try:
        return bool(retried(store.isdir, name))
    except ValueError:  # a bucket cannot be called so
        return False


def _walk(
    store: Any, folder: str, *, hidden: bool, enter: Callable[[str], bool], ignore: Callable[[str], None]
) -> Iterator[tuple[str, tuple[int, int] | Exception]]:
    def list_one(path: str) -> list[tuple[str, tuple[int, int] | None]] | Exception:
        """Names with size and time; of folders None."""
        try:
            return [
                (info["name"].rstrip("/"), None if info["type"] == "directory" else _measure(info))
                for infos in _list_folder(store, path)
                for info in infos
            ]
        except Exception as error:
            return error

    waiting = [folder]
    with ThreadPoolExecutor(FOLDERS_AT_ONCE) as pool:
        while waiting:
            some, waiting = waiting[-FOLDERS_AT_ONCE:], waiting[:-FOLDERS_AT_ONCE]
            for path, children in zip(some, pool.map(list_one, some), strict=True):
                if isinstance(children, Exception):
                    if path == folder:
                        raise children
                    yield store.unstrip_protocol(path), children
                    continue
                for name, described in children:
                    if name == path.rstrip("/"):
                        continue  # a folder may hold an object of its own name
                    url = str(store.unstrip_protocol(name))
                    if not hidden and is_hidden(name.rsplit("/", 1)[-1]):
                        ignore(url)
                        continue
                    if described is not None:
                        yield url, described
                    elif enter(url):
                        waiting.append(name)


def retried(action: Callable[..., T], *arguments: Any, **options: Any) -> T:
    """What ``action`` returns; what fails for a reason that may pass is tried again."""
    for pause_s in PAUSES_S:
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
