"""Files inside files: the members of tar shards (as WebDataset writes them), and the rows of tables of audio.

A member of a tar shard is a range of its bytes; ``rows`` reads tables, which are shards too: Parquet and Arrow. The uri
of a member is ``shard.tar#member``, that of a row ``shard.parquet#path``, or its number where it has no path. One whose
name occurs again in its shard is ``shard.tar#member#2``.
"""

import io
import os
import re
import shutil
import tarfile
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import BinaryIO, cast

import pyarrow as pa
import pyarrow.compute as pc

from pipeline import storage
from pipeline.corpus import audio_tables

AT_ONCE_BYTES = 16 * 2**20
"""Members of remote shards up to this size are read in one request, into memory."""

_AHEAD_BYTES = 8192
_WORTH_A_REQUEST_BYTES = 2**20
"""What a store sends in about the time that a further request takes."""

_MOST_PADDING_BYTES = 2**20  # behind the end of a tar file: usual are up to 10 kB
_MOST_LINKS = 10
_TAR = ".tar"
_TABLES = (audio_tables.PARQUET, audio_tables.ARROW)
_MEMBER = re.compile(r"\.(?:tar|parquet|arrow)#", re.IGNORECASE)
_AGAIN = re.compile(r"#\d+$")


@dataclass(frozen=True)
class Place:
    """Where a member lies: ``size_bytes`` bytes of ``shard`` from ``offset`` on.

    Of a table, ``offset`` is the number of the row; the size is about that of its bytes where it is not known before
    they are read (``is_sized``).
    """

    shard: str
    offset: int
    size_bytes: int


def is_shard(path: str) -> bool:
    """Whether a file is taken for a shard, by its name."""
    return path.lower().endswith((_TAR, *_TABLES))


def is_audio_table(path: str) -> bool:
    """Whether a shard is a table, by its name."""
    return path.lower().endswith(_TABLES)


def is_member(uri: str) -> bool:
    """Whether a uri is written as that of a member; a file may have such a name too."""
    return _MEMBER.search(uri) is not None


def shard_of(uri: str) -> str:
    """The shard of a member."""
    found = _MEMBER.search(uri)
    if found is None:
        raise ValueError(f"no member of a shard: {uri}")
    return uri[: found.end() - 1]


def name_of(member: str) -> str:
    """The name that a member has in its shard, without the number by which it differs from others of this name."""
    return _AGAIN.sub("", member[len(shard_of(member)) + 1 :])


def extension_of(recording: str) -> str:
    """The extension of a recording, or of a member's own name, in lower case and without its dot.

    Args:
        recording: the uri of a file; not that of a range.
    """
    name = name_of(recording) if is_member(recording) else recording
    return os.path.splitext(name)[1][1:].lower()


def shards_of(uris: pa.ChunkedArray) -> pa.ChunkedArray:
    """The shard of each member; null where a uri is not written as that of one."""
    # Up to the first mark, as ``search`` finds it; names may have line breaks in them.
    found = pc.extract_regex(uris, rf"(?is)^(?P<shard>.*?{_MEMBER.pattern.removesuffix('#')})#")
    return pc.struct_field(found, "shard")


def is_sized(uri: str) -> bool:
    """Whether the size of a file is known when it is listed: only rows of Parquet have to be read for that."""
    return not (is_member(uri) and shard_of(uri).lower().endswith(audio_tables.PARQUET))


def list_members(shard: str) -> Iterator[tuple[str, Place]]:
    """The uri and the place of each file in a shard, in their order, links last. The bytes of the files are not read.

    Raises:
        tarfile.TarError: it is no tar file, or not whole, or more than one; after the files that are there whole.
        CorpusError: it is a table without a column of audio, or with several.
        Exception: it cannot be read; each store has errors of its own.
    """
    seen: Counter[str] = Counter()
    for name, place in _list_rows(shard) if is_audio_table(shard) else _list_ranges(shard):
        unique = name
        while seen[unique]:  # which another one may be called by itself
            seen[name] += 1
            unique = f"{name}#{seen[name]}"
        seen[unique] += 1
        yield f"{shard}#{unique}", place


def _list_rows(shard: str) -> Iterator[tuple[str, Place]]:
    for number, row in enumerate(audio_tables.list_rows(shard)):
        yield row.name or str(number), Place(shard, number, row.size_bytes)


def _list_ranges(shard: str) -> Iterator[tuple[str, Place]]:
    links: list[_Link] = []
    broken = None
    try:
        for member in _read_headers(shard):
            if member.islnk() or member.issym():
                links.append(_Link(member.name, _find_target(member), member.offset))
            elif member.isfile():
                yield member.name, _locate(shard, member)
            elif not member.isdir():  # a pipe or a device has a name, and no bytes
                yield member.name, Place(shard, member.offset, 0)
    except tarfile.TarError as error:
        broken = error
    yield from _follow(shard, links)
    if broken is not None:
        raise broken


def _read_headers(shard: str) -> Iterator[tarfile.TarInfo]:
    """The members of a tar file that are there with all their bytes.

    Raises:
        tarfile.TarError: it does not go on to its mark of the end, or beyond that. tarfile itself takes whatever is no
            header for the end, and nothing at all too: a copy that stopped between two members.
    """
    with cast(BinaryIO, _Headers(shard)) as file:
        n_bytes = file.seek(0, io.SEEK_END)
        file.seek(0)
        with tarfile.open(fileobj=file, mode="r:") as tar:
            while (member := tar.next()) is not None:
                tar.members.clear()  # type: ignore[attr-defined]  # it would keep all of them
                if tar.offset > n_bytes:
                    if member.offset_data + member.size <= n_bytes:  # it was to be filled up to a whole block
                        yield member
                    raise tarfile.ReadError(f"cut off at byte {n_bytes}, after {member.name} began")
                yield member
            _check_end(file, tar.offset)


def _check_end(file: BinaryIO, at: int) -> None:
    file.seek(at)
    mark = file.read(tarfile.BLOCKSIZE)
    if mark.strip(b"\0"):
        raise tarfile.ReadError(f"no header at byte {at}")
    if len(mark) < tarfile.BLOCKSIZE:
        raise tarfile.ReadError(f"cut off at byte {at}: it has no mark of its end")
    for _ in range(_MOST_PADDING_BYTES // _AHEAD_BYTES):
        if not (behind := file.read(_AHEAD_BYTES)):
            return
        if behind.strip(b"\0"):
            raise tarfile.ReadError(f"it goes on behind its end at byte {at}, as two tar files in one do")


@dataclass(frozen=True)
class _Link:
    name: str
    target: str
    offset: int


def _find_target(link: tarfile.TarInfo) -> str:
    """The name, in its plainest form, of the member that a link is to: of a symbolic one from its own folder on."""
    folder = os.path.dirname(link.name) if link.issym() else ""
    return os.path.normpath(os.path.join(folder, link.linkname))


def _follow(shard: str, links: list[_Link]) -> Iterator[tuple[str, Place]]:
    """The members that are links, each with the bytes of what it is to; with none, where that is not in the shard."""
    targets = {os.path.normpath(link.name): link.target for link in links}
    ends = {link: link.target for link in links}
    for link in links:
        for _ in range(_MOST_LINKS):  # to each other
            ends[link] = targets.get(ends[link], ends[link])
    wanted, found = set(ends.values()), dict[str, Place]()
    with suppress(tarfile.TarError):
        for member in _read_headers(shard) if links else ():
            if member.isfile() and (name := os.path.normpath(member.name)) in wanted:
                found[name] = _locate(shard, member)
    for link in links:
        yield link.name, found.get(ends[link], Place(shard, link.offset, 0))


def _locate(shard: str, member: tarfile.TarInfo) -> Place:
    """Where a file lies. A sparse one does not lie in one piece, and is none."""
    return Place(shard, member.offset_data, 0 if member.issparse() else member.size)


def find_member(uri: str) -> Place:
    """The place of a member, by listing its shard.

    Raises:
        FileNotFoundError: there is no such member.
    """
    for found, place in list_members(shard_of(uri)):
        if found == uri:
            return place
    raise FileNotFoundError(f"{uri}: no such member")


def open_member(place: Place) -> BinaryIO:
    """The bytes of a member, as a file of its own.

    Raises:
        FileFailure: a row has none. Exception: it cannot be read; each store has errors of its own.
    """
    if is_audio_table(place.shard):
        return io.BytesIO(audio_tables.read_row(place.shard, place.offset))
    if storage.is_url(place.shard) and place.size_bytes <= AT_ONCE_BYTES:
        return io.BytesIO(storage.read_bytes(place.shard, place.offset, place.size_bytes))
    return cast(BinaryIO, io.BufferedReader(_Range(_open(place.shard), place), 1 << 17))


@contextmanager
def fetched_member(place: Place) -> Iterator[BinaryIO]:
    """The bytes of a member, to be read more than once: copied to this machine, if that is worth while."""
    with open_member(place) as file:
        if isinstance(file, io.BytesIO) or not storage.is_url(place.shard) or place.size_bytes > storage.FETCH_BYTES:
            yield file
            return
        with tempfile.TemporaryFile(prefix="earshot-") as copy:
            shutil.copyfileobj(file, copy, 1 << 20)
            copy.seek(0)
            yield cast(BinaryIO, copy)


def _open(path: str) -> BinaryIO:
    return storage.open_remote(path) if storage.is_url(path) else open(path, "rb")


class _Headers(io.RawIOBase):
    """A shard to read a little of, here and there: by the descriptor, or by requests to its store.

    A store is asked for what is between two headers as well, where that takes less time than one more request. The
    position is kept here: Python's own files ask the system at each ``tell``, which takes three times as long where
    sixteen threads do so.
    """

    def __init__(self, shard: str) -> None:
        self._local = None if storage.is_url(shard) else open(shard, "rb", buffering=0)  # noqa: SIM115
        self._shard = shard
        self._size = storage.stat_file(shard)[0] if self._local is None else os.fstat(self._local.fileno()).st_size
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
                self._held = storage.read_bytes(self._shard, self._at, n_bytes)
            self._from, begin = self._at, 0
        data = self._held[begin : begin + size]
        self._at += len(data)
        return data

    def _ahead(self) -> int:
        skipped = self._at - self._from - len(self._held)
        if self._local is not None or skipped > _WORTH_A_REQUEST_BYTES:
            return _AHEAD_BYTES
        return 8 * _AHEAD_BYTES if not self._held else 4 * _WORTH_A_REQUEST_BYTES

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        return self._at

    def tell(self) -> int:
        return self._at


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
