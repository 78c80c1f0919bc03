"""Tar files that are made to take time or memory, for the measurement ``hostile`` and for tests."""

import tarfile
from pathlib import Path

from jobs.bench.hostile_sounds import make_sound

END = bytes(10_240)
"""The mark of the end of a tar file, and its padding."""


def make_header(name: str, kind: bytes = tarfile.REGTYPE, size: int = 0, body: bytes = b"") -> bytes:
    """A header that states a type and a size, and the bytes behind it, filled up to whole blocks."""
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, size
    return info.tobuf(tarfile.GNU_FORMAT) + body + bytes(-len(body) % tarfile.BLOCKSIZE)


def make_special(kind: bytes, body: bytes) -> bytes:
    """A header that says something of the next member: attributes (pax), or a long name (GNU)."""
    return make_header("special", kind, len(body), body)


def make_record(key: str, value: bytes) -> bytes:
    """A record of a pax header; its length counts its own digits."""
    rest = b" " + key.encode() + b"=" + value + b"\n"
    length = len(rest) + 1
    while len(str(length)) + len(rest) != length:
        length += 1
    return str(length).encode() + rest


def write_between(path: Path, attack: bytes, zeros: int = 0) -> None:
    """A shard with the attack between two members of sound.

    Args:
        zeros: bytes behind the attack, which take no room on the disk.
    """
    sound = make_sound()
    with path.open("wb") as file:
        file.write(make_header("a.wav", size=len(sound), body=sound) + attack)
        file.seek(zeros, 1)
        file.write(make_header("b.wav", size=len(sound), body=sound) + END)
