"""Tar shards of sounds."""

import io
import os
import tarfile
from pathlib import Path
from typing import Any

from tests.helpers.contents import content

CLOCK = iter(range(1_000_000_000, 2_000_000_000))
"""Times for files: each file that is written gets its own."""


def write_shard(path: Path, members: list[tuple[str, bytes]], **options: Any) -> Path:
    """A tar file with these members, at a time of its own."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", **options) as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    os.utime(path, ns=(now := next(CLOCK), now))
    return path


def sounds(*numbers: int) -> list[tuple[str, bytes]]:
    """Members with known contents (``contents.content``)."""
    return [(f"{number}.wav", content(number).read_bytes()) for number in numbers]
