"""Lists the files in a tar file, on a disk or in an object store, and reads little but their headers for it.

A copy that was cut off is an error, even if it ends between two members.
"""

import io
import os
import tarfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import BinaryIO, cast

from pipeline import storage
from pipeline.corpus.tar_headers import Header, read_header

AHEAD_BYTES = 8192
"""Read at once around a header."""

WORTH_A_REQUEST_BYTES = 2**20
"""A store sends about this much in the time that one more request takes."""

_MOST_PADDING_BYTES = 2**20  # behind the end of a tar file; 10 kB are usual
_MOST_LINKS = 10  # in a chain


@dataclass(frozen=True)
class TarMember:
    """A file in a tar file: its bytes lie from ``offset`` on."""

    name: str
    offset: int
    size_bytes: int


def list_tar(path: str) -> Iterator[TarMember]:
    """The files in a tar file in their order, links last. Pipes and devices count as empty files.

    Raises:
        tarfile.TarError: it is no tar file, or cut off, or two in one; raised after the files that are whole.
        Exception: it cannot be read; each store has errors of its own.
    """
    links: list[_Link] = []
    broken = None
    try:
        for member in _read_headers(path):
            info = member.info
            if info.islnk() or info.issym():
                links.append(_Link(info.name, _find_target(info), member.offset))
            elif info.isfile():
                yield _locate(member)
            elif not info.isdir():
                yield TarMember(info.name, member.offset, 0)
    except tarfile.TarError as error:
        broken = error
    yield from _follow(path, links)
    if broken is not None:
        raise broken


def _read_headers(path: str) -> Iterator[Header]:
    """The members of a tar file whose bytes are all there. A file without an end mark, or that goes on behind it, is an
    error: otherwise a copy that was cut off between two members would not be noticed."""
    with cast(BinaryIO, _Headers(path)) as file:
        n_bytes = file.seek(0, io.SEEK_END)
        if not n_bytes:
            raise tarfile.ReadError("empty file")
        at = 0
        while (member := read_header(file, at)) is not None:
            at = member.end
            if at <= n_bytes:
                yield member
                continue
            if member.begin + member.size_bytes <= n_bytes:  # only the padding of its last block is missing
                yield member
            raise tarfile.ReadError(f"cut off at byte {n_bytes}, after {member.info.name} began")
        _check_end(file, at)


def _check_end(file: BinaryIO, at: int) -> None:
    file.seek(at)
    mark = file.read(tarfile.BLOCKSIZE)
    if mark.strip(b"\0"):
        raise tarfile.ReadError(f"no header at byte {at}")
    if len(mark) < tarfile.BLOCKSIZE:
        raise tarfile.ReadError(f"cut off at byte {at}: it has no mark of its end")
    for _ in range(_MOST_PADDING_BYTES // AHEAD_BYTES):
        if not (behind := file.read(AHEAD_BYTES)):
            return
        if behind.strip(b"\0"):
            raise tarfile.ReadError(f"it goes on behind its end at byte {at}, as two tar files in one do")


@dataclass(frozen=True)
class _Link:
    name: str
    target: str
    offset: int


def _find_target(link: tarfile.TarInfo) -> str:
    """The normalised name of the member that a link points to; symbolic links start from their own folder."""
    folder = os.path.dirname(link.name) if link.issym() else ""
    return os.path.normpath(os.path.join(folder, link.linkname))


def _follow(path: str, links: list[_Link]) -> Iterator[TarMember]:
    """Links as members: each with the bytes of its target, or empty if its target is not in the tar file."""
    targets = {os.path.normpath(link.name): link.target for link in links}
    ends = {link: link.target for link in links}
    for link in links:
        for _ in range(_MOST_LINKS):
            ends[link] = targets.get(ends[link], ends[link])
    wanted, found = set(ends.values()), dict[str, TarMember]()
    with suppress(tarfile.TarError):
        for member in _read_headers(path) if links else ():
            if member.info.isfile() and (name := os.path.normpath(member.info.name)) in wanted:
                found[name] = _locate(member)
    for link in links:
        target = found.get(ends[link], TarMember("", link.offset, 0))
        yield TarMember(link.name, target.offset, target.size_bytes)


def _locate(member: Header) -> TarMember:
    """The place of a file. A sparse file does not lie in one piece: it counts as empty."""
    return TarMember(member.info.name, member.begin, 0 if member.is_sparse else member.size_bytes)


class _Headers(io.RawIOBase):
    """A tar file, of which little is read here and there: through a file descriptor, or by requests to its store.

    A request to a store also fetches the bytes between two headers if that takes less time than another request. The
    position is kept here: Python's own files ask the system at each ``tell``, which takes three times as long when
    sixteen threads do so.
    """

    def __init__(self, path: str) -> None:
        self._local = None if storage.is_url(path) else open(path, "rb", buffering=0)  # noqa: SIM115
        self._path = path
        self._size = storage.stat_file(path)[0] if self._local is None else os.fstat(self._local.fileno()).st_size
        self._at, self._from, self._held = 0, 0, b""

    def close(self) -> None:
        if self._local is not None:
            self._local.close()
        super().close()

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or size < 0:
            raise ValueError("headers are read by their size")
        begin = self._at - self._from
        if not 0 <= begin <= begin + size <= len(self._held):
            n_bytes = max(0, min(max(size, self._ahead()), self._size - self._at))
            if self._local is not None:
                self._held = os.pread(self._local.fileno(), n_bytes, self._at)
            else:
                self._held = storage.read_bytes(self._path, self._at, n_bytes)
            self._from, begin = self._at, 0
        data = self._held[begin : begin + size]
        self._at += len(data)
        return data

    def _ahead(self) -> int:
        skipped = self._at - self._from - len(self._held)
        if self._local is not None or skipped > WORTH_A_REQUEST_BYTES:
            return AHEAD_BYTES
        return 8 * AHEAD_BYTES if not self._held else 4 * WORTH_A_REQUEST_BYTES

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        return self._at

    def tell(self) -> int:
        return self._at
