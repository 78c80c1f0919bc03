"""Files inside files: the members of tar shards (as WebDataset writes them), each a range of bytes of its shard.

The uri of a member is ``shard.tar#member``; one whose name occurs again in its shard is ``shard.tar#member#2``.
"""

import io
import shutil
import tarfile
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import BinaryIO, cast

from pipeline import storage

SHARD = ".tar"


@dataclass(frozen=True)
class Place:
    """Where a member lies: ``size_bytes`` bytes of ``shard`` from ``offset`` on."""

    shard: str
    offset: int
    size_bytes: int


def is_shard(path: str) -> bool:
    """Whether a file is taken for a shard, by its name."""
    return path.lower().endswith(SHARD)


def is_member(uri: str) -> bool:
    """Whether a uri is written as that of a member; a file may have such a name too."""
    return f"{SHARD}#" in uri.lower()


def shard_of(uri: str) -> str:
    """The shard of a member."""
    return uri[: uri.lower().index(f"{SHARD}#") + len(SHARD)]


def list_members(shard: str) -> Iterator[tuple[str, Place]]:
    """The uri and the place of each file in a shard, in their order. Only the headers between them are read.

    Raises:
        tarfile.TarError: it is no tar file, or ends in the middle of one; after what comes before.
        OSError: it cannot be read.
    """
    seen: Counter[str] = Counter()
    with _open(shard) as file, tarfile.open(fileobj=file, mode="r:") as tar:
        while (member := tar.next()) is not None:
            tar.members.clear()  # type: ignore[attr-defined]  # it would keep all of them
            if member.isfile():
                seen[member.name] += 1
                again = f"#{seen[member.name]}" if seen[member.name] > 1 else ""
                yield f"{shard}#{member.name}{again}", Place(shard, member.offset_data, member.size)
        file.seek(tar.offset)
        if file.read(tarfile.BLOCKSIZE).strip(b"\0"):  # tarfile takes whatever is no header for the end
            raise tarfile.ReadError(f"no header at byte {tar.offset}")


def find_member(uri: str) -> Place:
    """The place of a member, by reading the headers of its shard.

    Raises:
        FileNotFoundError: there is no such member.
    """
    for found, place in list_members(shard_of(uri)):
        if found == uri:
            return place
    raise FileNotFoundError(f"{uri}: no such member")


def open_member(place: Place) -> BinaryIO:
    """The bytes of a member, as a file of its own."""
    return cast(BinaryIO, io.BufferedReader(_Range(_open(place.shard), place), 1 << 17))


@contextmanager
def fetched_member(place: Place) -> Iterator[BinaryIO]:
    """The bytes of a member, to be read more than once: copied to this machine, if that is worth while."""
    with open_member(place) as file:
        if not storage.is_url(place.shard) or place.size_bytes > storage.FETCH_BYTES:
            yield file
            return
        with tempfile.TemporaryFile(prefix="earshot-") as copy:
            shutil.copyfileobj(file, copy, 1 << 20)
            yield cast(BinaryIO, copy)


def _open(path: str) -> BinaryIO:
    return storage.open_remote(path) if storage.is_url(path) else open(path, "rb")


class _Range(storage.FileAround):
    def __init__(self, file: BinaryIO, place: Place) -> None:
        super().__init__(file)
        self._place, self._at = place, 0

    def readinto(self, buffer: bytearray) -> int:  # type: ignore[override]
        size = min(len(buffer), max(0, self._place.size_bytes - self._at))
        self._file.seek(self._place.offset + self._at)
        data = self._file.read(size)
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._place.size_bytes}[whence]
        if at < 0:
            raise ValueError(f"a position before the beginning: {at}")
        self._at = at
        return at

    def tell(self) -> int:
        return self._at
