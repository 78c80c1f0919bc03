"""Files inside files: members of tar shards (as WebDataset writes them), and rows of tables with audio.

``tar_members`` lists the members of a tar file, ``audio_tables`` the rows of a Parquet or Arrow file. The uri of a
member is ``shard.tar#member``, that of a row ``shard.parquet#path``, or its number if it has no path. A name that
occurs again in its shard becomes ``shard.tar#member#2``.
"""

import io
import os
import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import BinaryIO, cast

import pyarrow as pa
import pyarrow.compute as pc

from pipeline import storage
from pipeline.corpus import audio_rows, audio_tables
from pipeline.corpus.tar_members import list_tar

AT_ONCE_BYTES = 16 * 2**20
"""Members of remote shards up to this size are read into memory in one request."""

_TAR = ".tar"
_TABLES = (audio_tables.PARQUET, audio_tables.ARROW)
_MEMBER = re.compile(r"\.(?:tar|parquet|arrow)#", re.IGNORECASE)
_AGAIN = re.compile(r"#\d+$")


@dataclass(frozen=True)
class Place:
    """Where a member lies: ``size_bytes`` bytes of ``shard`` from ``offset`` on.

    In a table, ``offset`` is the number of the row, and the size may be an estimate (``is_sized``).
    """

    shard: str
    offset: int
    size_bytes: int


def is_shard(path: str) -> bool:
    """Whether a file counts as a shard, by its name."""
    return path.lower().endswith((_TAR, *_TABLES))


def is_audio_table(path: str) -> bool:
    """Whether a shard is a table with audio, by its name."""
    return path.lower().endswith(_TABLES)


def is_member(uri: str) -> bool:
    """Whether a uri reads as that of a member. A file may have such a name, too."""
    return _MEMBER.search(uri) is not None


def shard_of(uri: str) -> str:
    """The shard of a member."""
    found = _MEMBER.search(uri)
    if found is None:
        raise ValueError(f"no member of a shard: {uri}")
    return uri[: found.end() - 1]


def name_of(member: str) -> str:
    """The name of a member in its shard, without the number that sets it apart from others of this name."""
    return _AGAIN.sub("", member[len(shard_of(member)) + 1 :])


def extension_of(recording: str) -> str:
    """The extension of a recording, or of a member's own name, in lower case and without its dot.

    Args:
        recording: the uri of a file; not that of a range.
    """
    name = name_of(recording) if is_member(recording) else recording
    return os.path.splitext(name)[1][1:].lower()


def shards_of(uris: pa.ChunkedArray) -> pa.ChunkedArray:
    """The shard of each member; null where a uri does not read as that of a member."""
    # Up to the first mark, as in ``shard_of``. Names may contain line breaks.
    found = pc.extract_regex(uris, rf"(?is)^(?P<shard>.*?{_MEMBER.pattern.removesuffix('#')})#")
    return pc.struct_field(found, "shard")


def is_sized(uri: str) -> bool:
    """Whether the size of a listed file is exact: rows of Parquet would have to be read for that."""
    return not (is_member(uri) and shard_of(uri).lower().endswith(audio_tables.PARQUET))


def list_members(shard: str) -> Iterator[tuple[str, Place]]:
    """The uri and the place of each file in a shard, in their order, links last. Their bytes are not read.

    Raises:
        tarfile.TarError: it is no tar file, or cut off, or two in one; raised after the files that are whole.
        CorpusError: it is a table without a column of audio, or with several.
        Exception: it cannot be read; each store has errors of its own.
    """
    seen: Counter[str] = Counter()
    for name, place in _list_places(shard):
        unique = name
        while seen[unique]:  # another member may have this very name
            seen[name] += 1
            unique = f"{name}#{seen[name]}"
        seen[unique] += 1
        yield f"{shard}#{unique}", place


def _list_places(shard: str) -> Iterator[tuple[str, Place]]:
    """Names, which may occur again, and places."""
    if is_audio_table(shard):
        for number, row in enumerate(audio_tables.list_rows(shard)):
            yield row.name or str(number), Place(shard, number, row.size_bytes)
    else:
        for member in list_tar(shard):
            yield member.name, Place(shard, member.offset, member.size_bytes)


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
        FileFailure: a row holds no bytes. Exception: it cannot be read; each store has errors of its own.
    """
    if is_audio_table(place.shard):
        return io.BytesIO(audio_rows.read_row(place.shard, place.offset))
    if storage.is_url(place.shard) and place.size_bytes <= AT_ONCE_BYTES:
        return io.BytesIO(storage.read_bytes(place.shard, place.offset, place.size_bytes))
    file = storage.open_remote(place.shard) if storage.is_url(place.shard) else open(place.shard, "rb")  # noqa: SIM115
    return cast(BinaryIO, io.BufferedReader(_MemberFile(file, place), 1 << 17))


@contextmanager
def fetched_member(place: Place) -> Iterator[BinaryIO]:
    """The bytes of a member, to be read more than once: small members of remote shards are copied to this machine."""
    with open_member(place) as file:
        if isinstance(file, io.BytesIO) or not storage.is_url(place.shard) or place.size_bytes > storage.FETCH_BYTES:
            yield file
            return
        with tempfile.TemporaryFile(prefix="earshot-") as copy:
            shutil.copyfileobj(file, copy, 1 << 20)
            copy.seek(0)
            yield cast(BinaryIO, copy)


class _MemberFile(storage.FileAround):
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
