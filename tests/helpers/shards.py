"""Tar shards of sounds, and tables with audio: Parquet and Arrow files with bytes in their rows."""

import io
import json
import os
import tarfile
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tests.helpers.contents import content

CLOCK = count(1_000_000_000)
"""Times for files: each file that is written gets its own."""

TABLES = ("a.parquet", "stream.arrow", "file.arrow")
"""Names of tables, one for each format."""

AUDIO = pa.struct([("bytes", pa.binary()), ("path", pa.string())])

Named = Sequence[tuple[str | None, bytes | None]]


def feature(*columns: str) -> dict[bytes, bytes]:
    """What `datasets` writes into its files."""
    features = {name: {"_type": "Audio"} for name in columns}
    return {b"huggingface": json.dumps({"info": {"features": features}}).encode()}


def write_table(path: Path, table: pa.Table, **options: Any) -> Path:
    """A table in the format that the name of ``path`` says, at a time of its own."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix.lower() == ".parquet":
        pq.write_table(table, path, **options)
    else:
        make = pa.ipc.new_file if path.name.endswith("file.arrow") else pa.ipc.new_stream
        with make(path, table.schema) as writer:
            writer.write_table(table, max_chunksize=options.get("row_group_size"))
    os.utime(path, ns=(now := next(CLOCK), now))
    return path


def write_rows(path: Path, named: Named, **options: Any) -> Path:
    """A table as `datasets` writes it, with the column ``audio``."""
    audio = pa.array([{"path": name, "bytes": data} for name, data in named], AUDIO)
    fields = [pa.field("audio", AUDIO), pa.field("label", pa.int64())]
    schema = pa.schema(fields, metadata=feature("audio"))
    table = pa.Table.from_arrays([audio, pa.array(range(len(named)))], schema=schema)
    return write_table(path, table, **options)


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


def add_links(shard: Path, links: dict[str, tuple[bytes, str]]) -> None:
    """Add members without bytes: by name, their type and what they link to."""
    with tarfile.open(shard, "a") as tar:
        for name, (kind, target) in links.items():
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, target
            tar.addfile(info)


def pack(path: Path, members: list[tuple[str, bytes]], **options: Any) -> Path:
    """A shard or a table, as the name of ``path`` says."""
    return write_shard(path, members) if path.suffix == ".tar" else write_rows(path, members, **options)


def sounds(*numbers: int) -> list[tuple[str, bytes]]:
    """Members with known contents (``contents.content``)."""
    return [(f"{number}.wav", content(number).read_bytes()) for number in numbers]
