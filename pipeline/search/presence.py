"""Whether an indexed file is still at its place, and still the one that was indexed."""

from collections.abc import Callable
from dataclasses import dataclass
from threading import Lock
from typing import Any
from weakref import WeakValueDictionary

from pipeline import storage
from pipeline.audio.source import hash_file, resolve_uri
from pipeline.corpus.shards import is_member, is_sized, shard_of
from pipeline.corpus.time_ranges import split_uri
from pipeline.errors import FileFailure
from pipeline.schema import Row
from pipeline.search.recent import Recent


@dataclass(frozen=True)
class Presence:
    """What has become of the file of a row of ``files``."""

    is_gone: bool = False
    is_changed: bool = False


Version = tuple[str, int, int]
"""A file as it is now: its uri, its size in bytes, its time in nanoseconds."""


class Presences:
    """Looks at files. A hash that was computed once holds as long as size and time of the file stay the same.

    Args:
        hash_content: the hash of a file; a test may count the calls.
    """

    def __init__(self, hash_content: Callable[[Any], str] = hash_file) -> None:
        self._hash_content = hash_content
        self._hashes: Recent[Version, str] = Recent(10_000)
        self._guard = Lock()
        self._hashing: WeakValueDictionary[Version, Lock] = WeakValueDictionary()
        """Of each file that is being hashed: they do not wait for one another."""

    def glance(self, file: Row) -> Presence | None:
        """What can be told without hashing the file; None where only its hash tells. See ``find``."""
        found = self._compare(file)
        return found if isinstance(found, Presence) else self._recall(found, file)

    def find(self, file: Row) -> Presence:
        """Look at the file of a row of ``files`` as it is now.

        A file of another time and the same size is hashed: it may have been copied or touched only.

        Args:
            file: ``uri``, ``size_bytes``, ``modified_ns`` and ``content_hash``.

        Raises:
            Exception: the store does not answer; each has errors of its own.
        """
        version = self._compare(file)
        if isinstance(version, Presence):
            return version
        if known := self._recall(version, file):
            return known
        with self._guard:
            lock = self._hashing.setdefault(version, Lock())
        with lock:  # of many threads that ask for one file, the first one hashes it
            if known := self._recall(version, file):
                return known
            try:
                hashed = self._hash_content(resolve_uri(file["uri"])[0])
            except FileFailure as failure:
                return Presence(is_gone=failure.reason == "vanished", is_changed=failure.reason != "vanished")
            self._hashes.keep({version: hashed})
            return Presence(is_changed=hashed != file["content_hash"])

    def _compare(self, file: Row) -> Presence | Version:
        """What size and time tell; where they leave it open, the version that has to be hashed."""
        uri = file["uri"]
        try:
            size_bytes, modified_ns = storage.stat_file(find_path(uri))
        except FileNotFoundError:
            return Presence(is_gone=True)
        except NotADirectoryError:
            return Presence(is_gone=True)
        is_own_size = file["size_bytes"] is not None and not is_member(uri)
        if is_own_size and is_sized(uri) and size_bytes != file["size_bytes"]:
            return Presence(is_changed=True)
        if modified_ns == file["modified_ns"] or file["content_hash"] is None:
            return Presence()
        return uri, size_bytes, modified_ns

    def _recall(self, version: Version, file: Row) -> Presence | None:
        """What the hash tells, if it is known."""
        hashed = self._hashes.find([version])
        return Presence(is_changed=hashed[version] != file["content_hash"]) if hashed else None


def find_path(uri: str) -> str:
    """The path or URL of the file that holds the audio of a uri: that of the shard, for a member."""
    if storage.exists(uri):
        return uri
    recording, _ = split_uri(uri)
    return shard_of(recording) if is_member(recording) and not storage.exists(recording) else recording
