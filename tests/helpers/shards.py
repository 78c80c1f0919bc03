"""Tar shards of sounds."""

import io
import os
import tarfile
from pathlib import Path
from typing import Any

from tests.helpers.contents import content

CLOCK = iter(range(1_000_000_000, 2_000_000_000))


def write_shard(path: Path, members: list[tuple[str, bytes]], **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", **options) as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    os.utime(path, ns=(now := next(CLOCK), now))
    return path


def sounds(*numbers: int) -> list[tuple[str, bytes]]:
    return [(f"{number}.wav", content(number).read_bytes()) for number in numbers]
