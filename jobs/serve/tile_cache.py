"""Pictures on the disk of the server, within a limit: those that were not wanted for longest are deleted first.

They lie in the user's cache folder, never in an index. Several threads and several servers may share it.
"""

import contextlib
import os
import secrets
import threading
import time
from collections import OrderedDict
from pathlib import Path

MAX_BYTES = 500_000_000
"""Of all pictures of a user's servers: some twenty thousand."""

KEEP_SHARE = 0.9
"""Once the limit is reached, so much of it is kept."""

RECOUNT_SHARE = 0.05
"""A server that has added so much of the limit counts the pictures of the others, too."""


def find_cache_folder() -> Path:
    """The user's folder for pictures (XDG base directory specification)."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    return Path(base if os.path.isabs(base) else Path.home() / ".cache", "earshot", "spectrograms")


class TileCache:
    """Pictures by their keys. A disk that fails or is full costs time, never an answer."""

    def __init__(self, folder: Path, max_bytes: int = MAX_BYTES) -> None:
        self._folder, self._max_bytes = folder, max_bytes
        self._lock = threading.Lock()
        self._sizes: OrderedDict[str, int] | None = None
        """The size of each picture by its key, that which was not wanted for longest first."""
        self._n_bytes = self._n_added_bytes = 0

    def find(self, key: str) -> bytes | None:
        """A picture, if it is kept."""
        path = self._at(key)
        try:
            data = path.read_bytes()
            _touch(path)
        except OSError:
            return None
        with self._lock:
            if self._sizes is not None and key in self._sizes:
                self._sizes.move_to_end(key)
        return data

    def keep(self, key: str, data: bytes) -> None:
        """Keep a picture, and delete others if that takes more room than the limit."""
        path = self._at(key)
        scratch = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
        with contextlib.suppress(OSError):
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            scratch.write_bytes(data)
            _touch(scratch)
            scratch.replace(path)
            self._count(key, len(data))
        with contextlib.suppress(OSError):
            scratch.unlink(missing_ok=True)

    def _count(self, key: str, n_bytes: int) -> None:
        with self._lock:
            self._n_added_bytes += n_bytes
            if self._sizes is None or self._n_added_bytes > RECOUNT_SHARE * self._max_bytes:
                self._sizes = self._read_sizes()
                self._n_bytes = sum(self._sizes.values())
                self._n_added_bytes = 0
            self._n_bytes += n_bytes - self._sizes.pop(key, 0)
            self._sizes[key] = n_bytes
            if self._n_bytes <= self._max_bytes:
                return
            while self._sizes and self._n_bytes > KEEP_SHARE * self._max_bytes:
                oldest, size = self._sizes.popitem(last=False)
                self._n_bytes -= size
                with contextlib.suppress(OSError):
                    self._at(oldest).unlink(missing_ok=True)

    def _read_sizes(self) -> OrderedDict[str, int]:
        """What is in the folder, also of earlier and of other servers."""
        found = []
        for path in self._folder.glob("??/*"):
            with contextlib.suppress(OSError):
                status = path.stat()
                found.append((status.st_mtime_ns, path.name, status.st_size))
        return OrderedDict((name, size) for _, name, size in sorted(found))

    def _at(self, key: str) -> Path:
        return self._folder / key[:2] / key


def _touch(path: Path) -> None:
    """Note that a picture was wanted now. By the file system's coarser clock, files written together share a time."""
    now_ns = time.time_ns()
    os.utime(path, ns=(now_ns, now_ns))
