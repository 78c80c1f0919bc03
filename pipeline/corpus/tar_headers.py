"""Reads the headers of a tar file, in time and memory that hardly exceed their bytes.

``tarfile`` itself may be made to read one header for ever, or to fill memory with a few of them. Only its parser of a
single block of 512 bytes is used here. Sources: POSIX.1-2018 (pax), the manual of GNU tar (long names, sparse files).
"""

import tarfile
from dataclasses import dataclass
from typing import BinaryIO

BLOCK = tarfile.BLOCKSIZE

MOST_HEADER_BYTES = 2**20
"""All headers of one member: its long name, and its attributes (pax). Larger ones are made to fill memory."""

MOST_NAME = 4096
"""Bytes in the name of a member, and in that of the member that a link points to."""

_LONG_NAMES = {tarfile.GNUTYPE_LONGNAME: b"path", tarfile.GNUTYPE_LONGLINK: b"linkpath"}
_ATTRIBUTES = (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE)
_SPARSE = (b"GNU.sparse.major", b"GNU.sparse.map", b"GNU.sparse.size")
_KNOWN = (b"path", b"linkpath", b"size", b"GNU.sparse.name", *_SPARSE)
_MOST_DIGITS = 20


class TooLongError(tarfile.ReadError):
    """A name or a header is longer than is allowed. The tar file may be whole."""


@dataclass(frozen=True)
class Header:
    """A member of a tar file: its bytes, as far as it has any, lie from ``begin`` on."""

    info: tarfile.TarInfo
    """With the name and the target of a link as all its headers say; they are at most ``MOST_NAME`` long."""
    offset: int
    begin: int
    size_bytes: int
    is_sparse: bool
    """Whether its bytes do not lie in one piece."""

    @property
    def end(self) -> int:
        """Where the next member begins."""
        return self.begin + _round_up(self.size_bytes)


def read_header(file: BinaryIO, at: int) -> Header | None:
    """The member whose headers begin at ``at``; None where no header does.

    Headers for all members that follow (pax ``g``) are left out: they hold nothing about a single one.

    Raises:
        TooLongError: its headers are too large, or its name is too long.
        tarfile.TarError: its headers are cut off or invalid.
    """
    known: dict[bytes, bytes] = {}
    here = at
    while True:
        file.seek(here)
        block = file.read(BLOCK)
        try:
            info = tarfile.TarInfo.frombuf(block, tarfile.ENCODING, "surrogateescape")
        except tarfile.HeaderError as error:
            # Zeros, or anything else behind a member: it is the end. At the beginning, only zeros are.
            if here == at and (at or not block.strip(b"\0")):
                return None
            raise tarfile.ReadError(f"{error} at byte {here}") from None
        if info.size < 0:
            raise tarfile.ReadError(f"a size of {info.size:,} bytes at byte {here}")
        if info.type not in (*_LONG_NAMES, *_ATTRIBUTES, tarfile.XGLTYPE):
            return _describe(file, info, known, (at, here))
        begin, here = here + BLOCK, here + BLOCK + _round_up(info.size)
        if here - at > MOST_HEADER_BYTES:
            raise TooLongError(f"a header of {here - at:,} bytes at byte {at}; {MOST_HEADER_BYTES:,} are allowed")
        if info.type == tarfile.XGLTYPE:
            continue
        body = _read(file, begin, info.size)
        is_long_name = info.type in _LONG_NAMES
        found = {_LONG_NAMES[info.type]: body.partition(b"\0")[0]} if is_long_name else _parse_attributes(body, begin)
        known = found | known


def _describe(file: BinaryIO, info: tarfile.TarInfo, known: dict[bytes, bytes], places: tuple[int, int]) -> Header:
    """The member of the header ``info``, with what special headers before it said.

    Args:
        places: where its special headers begin, and where ``info`` lies.
    """
    offset, here = places
    if (name := known.get(b"GNU.sparse.name", known.get(b"path"))) is not None:
        info.name = _decode(name).rstrip("/")
    if (target := known.get(b"linkpath")) is not None:
        info.linkname = _decode(target)
    longest = max(len(name.encode("utf-8", "surrogateescape")) for name in (info.name, info.linkname))
    if longest > MOST_NAME:
        raise TooLongError(f"a name of {longest:,} bytes; {MOST_NAME:,} are allowed")
    is_sparse, begin = any(key in known for key in _SPARSE), here + BLOCK
    if info.type == tarfile.GNUTYPE_SPARSE:
        is_sparse, begin = True, _skip_sparse_map(file, here)
    has_bytes = info.isreg() or info.type not in tarfile.SUPPORTED_TYPES
    size = _parse_size(known[b"size"], here) if b"size" in known else info.size
    return Header(info, offset, begin, size if has_bytes else 0, is_sparse)


def _skip_sparse_map(file: BinaryIO, here: int) -> int:
    """Where the bytes of a sparse file of the old GNU format begin: behind blocks that list its pieces."""
    is_extended = bool(_read(file, here, BLOCK)[482])
    begin = here + BLOCK
    while is_extended:
        if begin - here > MOST_HEADER_BYTES:
            raise TooLongError(f"a header of over {MOST_HEADER_BYTES:,} bytes at byte {here}: more than are allowed")
        is_extended = bool(_read(file, begin, BLOCK)[504])
        begin += BLOCK
    return begin


def _parse_attributes(body: bytes, begin: int) -> dict[bytes, bytes]:
    """The known attributes of a pax header: records of their own length, a key and a value, as in ``12 path=a.wav``."""
    found, at = dict[bytes, bytes](), 0
    while at < len(body) and body[at]:
        length, space, _ = body[at : at + _MOST_DIGITS].partition(b" ")
        n_bytes = int(length) if space and length.isdigit() else 0
        key, equals, value = body[at + len(length) + 1 : at + max(n_bytes, 1) - 1].partition(b"=")
        if not equals:  # nor where the length is too small
            raise tarfile.ReadError(f"invalid attributes at byte {begin + at}")
        if key in _KNOWN:
            found[key] = value
        at += n_bytes
    return found


def _parse_size(text: bytes, here: int) -> int:
    if not text.isdigit() or len(text) > _MOST_DIGITS:
        raise tarfile.ReadError(f"a size of {text[:_MOST_DIGITS].decode(errors='replace')} bytes at byte {here}")
    return int(text)


def _decode(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")


def _round_up(n_bytes: int) -> int:
    return -(-n_bytes // BLOCK) * BLOCK


def _read(file: BinaryIO, at: int, size: int) -> bytes:
    file.seek(at)
    data = file.read(size)
    if len(data) < size:
        raise tarfile.ReadError(f"cut off at byte {at + len(data)}, within a header")
    return data
