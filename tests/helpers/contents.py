"""A folder of a few known contents, edited at will, and the rows that an undisturbed run over it would write.

What each content becomes is worked out once, by cutting and encoding it, without plan or store.
"""

import os
import shutil
import tempfile
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import fsspec
import numpy as np

from pipeline import schema
from pipeline.audio.source import hash_file
from pipeline.audio.windows import cut_windows
from pipeline.config import Config, WindowConfig, make_config
from pipeline.errors import FileFailure
from pipeline.grid import Grid
from pipeline.index import journal
from pipeline.index.clip_rows import clip_rows
from pipeline.index.handle import find_index
from pipeline.index.pools import pool_stored
from pipeline.index.tables import open_published
from tests.helpers.decoding import decode_all
from tests.helpers.fakes import noise, write_wav
from tests.helpers.runs import WideEncoder

SECTIONS: dict[str, Any] = {
    "window": {"length_s": 0.8, "overlap_s": 0.2},
    "run": {"batch_s": 2.0},
    "store": {"checkpoint_rows": 60},
}

PATIENT = {**SECTIONS["store"], "optimize_every": 4}
"""Maintenance now and then; old versions stay as long as others may be reading them."""

HASTY = {**SECTIONS["store"], "keep_hours": 1e-6, "optimize_every": 2}
"""Maintenance after every commit; old versions are deleted at once, so that a reader that needs one fails."""

LENGTHS_S = [0.3, 0.3, 0.9, 1.7, 1.7, 2.5]
"""Some have equal sizes: only a hash tells them apart."""

BROKEN = [b"", b"no sound", b"RIFF and no more"]
N_CONTENTS = len(LENGTHS_S) + len(BROKEN)

Rows = dict[str, list[Any]]

_FOLDER = tempfile.TemporaryDirectory(prefix="earshot-")
"""Lives as long as the process."""


@cache
def content(number: int) -> Path:
    """The file of one of the contents; the last ones are broken."""
    file = Path(_FOLDER.name) / f"{number}"
    if number < len(LENGTHS_S):
        return write_wav(file, noise(LENGTHS_S[number], seed=number))
    file.write_bytes(BROKEN[number - len(LENGTHS_S)])
    return file


@cache
def expect(number: int, grid: Grid) -> dict[str, Any]:
    """What an undisturbed run makes of a content."""
    config = make_config({"sources": "x", "into": "y"})
    audio_id = schema.make_audio_id(hash_file(content(number)))
    try:
        samples, _ = decode_all(content(number), config.decode)
    except FileFailure as failure:
        return {"audio_id": audio_id, "reason": failure.reason, "clips": [], "frames": []}
    clips, frames = [], []
    for span, window in cut_windows([samples], grid):
        vectors, frame_vectors = WideEncoder().encode([window])
        [clip], [rows] = vectors, frame_vectors or []
        clips.append(clip.astype(np.float16).tobytes())
        own = rows[span.own_first - span.first : span.own_stop - span.first].astype(np.float16)
        frames += [(audio_id, span.own_first + k, row.tobytes()) for k, row in enumerate(own)]
    duration_s = len(samples) / 48_000
    return {"audio_id": audio_id, "reason": None, "clips": clips, "frames": frames, "duration_s": duration_s}


class KnownCorpus:
    """Files of known contents below ``root``/in, and the configuration of their index, ``root``/index."""

    def __init__(self, root: Path, **sections: Any) -> None:
        self.root, self.folder = root, root / "in"
        (self.folder / "sub").mkdir(parents=True)
        values = {"sources": [str(self.folder)], "into": str(root / "index"), **SECTIONS, "store": PATIENT, **sections}
        self.config: Config = make_config(values)
        self.held: dict[str, int] = {}
        self._now = 1_000_000_000

    def source(self, number: int) -> Path:
        """A file with one of the contents."""
        return content(number)

    def put(self, name: str, number: int) -> None:
        """Add or change a file; it may become broken, or whole again."""
        shutil.copyfile(self.source(number), self.folder / name)
        self.held[name] = number
        self.touch(name)

    def touch(self, name: str) -> None:
        self._now += 1
        os.utime(self.folder / name, ns=(self._now, self._now))

    def delete(self, name: str) -> None:
        (self.folder / name).unlink()
        del self.held[name]

    def move(self, old: str, new: str) -> None:
        (self.folder / old).rename(self.folder / new)
        self.held[new] = self.held.pop(old)

    def swap(self, one: str, other: str) -> None:
        scratch = self.root / "scratch"
        (self.folder / one).rename(scratch)
        (self.folder / other).rename(self.folder / one)
        scratch.rename(self.folder / other)
        self.held[one], self.held[other] = self.held[other], self.held[one]

    def uri(self, name: str) -> str:
        return str(self.folder / name)

    def expected(self, config: Config | None = None) -> Rows:
        """The rows of ``live`` that an undisturbed run would write."""
        grid = (config or self.config).window.grid
        files, clips, frames = [], [], {}
        for name, number in self.held.items():
            known = expect(number, grid)
            uri, audio_id = self.uri(name), known["audio_id"]
            files.append((uri, audio_id, known["reason"], len(known["clips"])))
            if known["clips"]:
                row = {"file_id": schema.make_file_id(uri, audio_id), "audio_id": audio_id, "uri": uri}
                row |= {"duration_s": known["duration_s"], "codec": "", "channels": 1, "sample_rate_hz": 48_000}
                for clip, vector in zip(clip_rows(row, grid), known["clips"], strict=True):
                    clips.append((clip["clip_id"], clip["file_id"], uri, clip["start_s"], clip["end_s"], vector))
                frames[audio_id] = known["frames"]
        return {
            "files": sorted(files),
            "clips": sorted(clips),
            "frames": sorted(frame for rows in frames.values() for frame in rows),
        }


class KnownBucket(KnownCorpus):
    """The same below the URL of a folder in an object store, ``root``/in and ``root``/index."""

    def __init__(self, root: str, scratch: Path, **sections: Any) -> None:
        super().__init__(scratch, **sections)
        self.url = f"{root}/in"
        values = self.config.model_dump() | {"sources": [self.url], "into": f"{root}/index"}
        self.config = make_config(values)
        self.store = fsspec.filesystem(root.split("://")[0], use_listings_cache=False)

    def put(self, name: str, number: int) -> None:
        self.store.put_file(str(content(number)), self.uri(name))
        self.held[name] = number

    def touch(self, name: str) -> None:
        self.put(name, self.held[name])

    def delete(self, name: str) -> None:
        self.store.rm_file(self.uri(name))
        del self.held[name]

    def move(self, old: str, new: str) -> None:
        self.store.cp_file(self.uri(old), self.uri(new))
        self.held[new] = self.held[old]
        self.delete(old)

    def swap(self, one: str, other: str) -> None:
        numbers = self.held[one], self.held[other]
        self.put(other, numbers[0])
        self.put(one, numbers[1])

    def uri(self, name: str) -> str:
        return f"{self.url}/{name}"


def read(index: str, name: str, columns: list[str] | None = None) -> list[dict[str, Any]]:
    """The published rows of a table."""
    rows: list[dict[str, Any]] = find_index(index).live.open(name).to_table(columns).to_pylist()
    return rows


def live(index: str) -> Rows:
    """The published rows in comparable form, without those of deleted files."""

    def half(row: dict[str, Any]) -> bytes:
        return np.array(row["vector"], np.float16).tobytes()

    return {
        "files": sorted(
            (f["uri"], f["audio_id"], f["reason"], f["n_clips"])
            for f in read(index, "files")
            if f["status"] != "deleted"
        ),
        "clips": sorted(
            (c["clip_id"], c["file_id"], c["uri"], c["start_s"], c["end_s"], half(c)) for c in read(index, "clips")
        ),
        "frames": sorted((f["audio_id"], f["frame"], half(f)) for f in read(index, "frames")),
    }


def check_whole(index: str) -> None:
    """The published rows fit together, whatever has happened: readers see whole files."""
    if not journal.exists(index):
        return
    tables = find_index(index).live.path
    published = journal.read_published(tables)

    def column(name: str, of: str) -> Any:
        return open_published(tables, name, published).to_table([of])[of].to_pylist()

    files = open_published(tables, "files", published).to_table().to_pylist()
    assert len({row["uri"] for row in files}) == len(files)
    assert Counter(column("clips", "file_id")) == {row["file_id"]: row["n_clips"] for row in files if row["n_clips"]}
    expected = {row["audio_id"]: row["n_frames"] for row in files if row["n_frames"]}
    assert Counter(column("frames", "audio_id")) == expected
    check_pools(index)


def check_pools(index: str) -> None:
    """The pools are those of the published frames. Tables of older formats have none until they are made."""
    tables = find_index(index).live
    if "pools" not in tables.versions:
        assert "begins" not in tables.open("frames").schema.names
        return
    frames = tables.open("frames").to_table().sort_by([("audio_id", "ascending"), ("frame", "ascending")])
    grid = WindowConfig(**tables.settings["window"]).grid
    pools = [row for piece in pool_stored(frames.combine_chunks().to_batches(), grid) for row in piece.to_pylist()]
    found = tables.open("pools").to_table().to_pylist()
    assert sorted(map(str, found)) == sorted(map(str, pools))
    begins = {row["audio_id"]: row["begins"] for row in frames.to_pylist() if row["frame"] == 0}
    assert begins == {audio_id: audio_id for audio_id in begins}
    assert frames["begins"].null_count == frames.num_rows - len(begins)
