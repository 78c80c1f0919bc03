"""Batches written by hand, and what an index holds after them."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline import schema
from pipeline.index import journal
from pipeline.index.clip_rows import clip_rows
from pipeline.index.frame_rows import frame_rows
from pipeline.index.maintenance import refresh_indexes
from pipeline.index.pools import pool_frames, pool_rows
from pipeline.index.tables import create_tables, open_published, write_rows
from pipeline.index.writer import Batch, Writer
from pipeline.planning.file_rows import empty_row, files_table
from pipeline.planning.ledger import Ledger
from pipeline.schema import Row
from tests.helpers.fakes import CLIP_DIMENSION, FRAME_DIMENSION, FRAMES_SCHEMA, GRID

Corpus = dict[str, tuple[str, int]]
"""uri -> (content, frames). A content named ``bad ...`` fails after its frames were written."""


SETTINGS = {
    "clip_model": None,
    "frame_model": None,
    "window": {"length_s": 0.4, "overlap_s": 0.08},
    "decode": {"resampler": "HQ"},
    "frames": "all",
}


def create(path: Path, failpoint: Callable[[str], None] = lambda step: None) -> None:
    create_tables(path, SETTINGS, clip_dimension=CLIP_DIMENSION, frame_dimension=FRAME_DIMENSION, failpoint=failpoint)


def vectors(content: str, count: int, dimension: int) -> Any:
    """(count x dimension,) float16, made from the name of a content."""
    seed = int.from_bytes(content.encode()[:8], "big")
    return np.random.default_rng(seed).standard_normal(count * dimension).astype(np.float16)


def lists(values: Any, field: pa.Field) -> Any:
    array = pa.FixedSizeListArray.from_arrays(pa.array(values, pa.float16()), field.type.list_size)
    return array.cast(field.type)


def make_batch(
    path: Path, batch_id: str, files: Corpus, deleted: tuple[str, ...] = (), held: frozenset[str] = frozenset()
) -> Batch:
    """The batch that the stages and the collector would make of ``files``; the uris ``deleted`` become deleted rows.

    The audio ids ``held`` have frames already.
    """
    rows, clips, clip_values, frames = list[Row](), list[Row](), list[Any](), list[pa.RecordBatch]()
    seen, orphaned = set[str](), set[str]()
    for uri, (content, n_frames) in files.items():
        audio_id = schema.make_audio_id(content)
        row = empty_row(uri, audio_id) | {"content_hash": content, "size_bytes": n_frames, "modified_ns": 1}
        row |= {"duration_s": n_frames * 0.04, "sample_rate_hz": 48_000, "channels": 1, "codec": "flac"}
        if audio_id not in seen | held:
            frames.append(frame_batch(audio_id, content, n_frames, batch_id))
            seen.add(audio_id)
        if content.startswith("bad"):
            rows.append(row | {"status": "failed", "stage": "decode", "reason": "not_finite", "message": "why"})
            orphaned.add(audio_id)
            continue
        made = clip_rows(row, GRID)
        rows.append(row | {"status": "indexed", "n_clips": len(made), "n_frames": n_frames})
        clips += made
        clip_values.append(vectors(content, len(made), CLIP_DIMENSION))
    rows += [empty_row(uri, None) | {"status": "deleted"} for uri in deleted]
    clips_schema = schema.clips_schema(CLIP_DIMENSION)
    without = pa.schema([f for f in clips_schema if f.name not in ("batch_id", "vector")])
    table = pa.Table.from_pylist(clips, schema=without)
    flat = np.concatenate(clip_values) if clip_values else np.empty(0, np.float16)
    table = table.append_column(clips_schema.field("vector"), lists(flat, clips_schema.field("vector")))
    return Batch(
        batch_id,
        files_table(rows),
        table,
        [text for own in frames for text in write_rows(path, "frames", [own])],
        orphaned=frozenset(orphaned),
        pool_fragments=write_rows(path, "pools", list(map(pool_rows, frames))),
    )


def frame_batch(audio_id: str, content: str, n_frames: int, batch_id: str) -> pa.RecordBatch:
    values = vectors(content, n_frames, FRAME_DIMENSION).reshape(n_frames, FRAME_DIMENSION)
    return frame_rows(audio_id, batch_id, 0, values, FRAMES_SCHEMA)


def prepare(path: Path, writer: Writer, corpus: Corpus) -> list[Batch]:
    """Batches of two files each that bring the index to ``corpus``, with what they replace."""
    ledger = Ledger(open_published(path, "files", writer.published).to_table())
    new = {
        uri: value
        for uri, value in corpus.items()
        if uri not in ledger.rows or ledger.rows[uri]["content_hash"] != value[0]
    }
    deleted = tuple(uri for uri, row in ledger.rows.items() if uri not in corpus and row["status"] != "deleted")
    uris = sorted(new)
    groups = [uris[k : k + 2] for k in range(0, len(uris), 2)]
    batches = []
    for number, group in enumerate(groups):
        batch_id = schema.make_batch_id(writer.run_id, number)
        held = frozenset(row["audio_id"] for row in ledger.rows.values() if row["status"] == "indexed")
        batch = make_batch(path, batch_id, {uri: new[uri] for uri in group}, deleted if number == 0 else (), held)
        drop_files, drop_frames = ledger.apply(batch.files.to_pylist())
        batches.append(replace(batch, drop_files=drop_files, drop_frames=drop_frames))
    return batches


def run(path: Path, corpus: Corpus, run_id: str = "run", failpoint: Callable[[str], None] = lambda step: None) -> None:
    """Bring the index to ``corpus`` in two commits: the last batch in the second."""
    writer = Writer(path, run_id, failpoint=failpoint)
    batches = prepare(path, writer, corpus)
    for some in (batches[:-1], batches[-1:]):
        if some:
            writer.commit(some)
    refresh_indexes(writer)


# Files 1 and 2 share a content, and so do 3 and 4.
BEFORE: Corpus = {"1": ("aa", 8), "2": ("aa", 8), "3": ("bb", 25), "4": ("bb", 25), "5": ("cc", 12), "6": ("bad x", 9)}


class Killed(BaseException):
    """Stands for a process that dies."""


class Killer:
    """A failpoint that dies at one step, counted from 0; it lists the steps it has seen."""

    def __init__(self, at: int | None = None) -> None:
        self.at, self.steps = at, list[str]()

    def __call__(self, step: str) -> None:
        if len(self.steps) == self.at:
            raise Killed(step)
        self.steps.append(step)


def read_state(path: Path) -> dict[str, list[Row]]:
    """The published rows of all tables, in a fixed order, without what names the run that wrote them."""
    published = journal.read_published(path)
    keys = {"files": ["uri"], "clips": ["clip_id"], "frames": ["audio_id", "frame"]}
    keys["pools"] = ["audio_id", "first_frame"]
    state = {}
    for name, columns in keys.items():
        table = open_published(path, name, published).to_table().drop_columns(["batch_id"])
        state[name] = table.sort_by([(column, "ascending") for column in columns]).to_pylist()
    return state


def expected_state(corpus: Corpus, deleted: tuple[str, ...] = ()) -> dict[str, list[Row]]:
    """The same, straight from the corpus."""
    good = {uri: value for uri, value in corpus.items() if not value[0].startswith("bad")}
    clips = []
    frames = {}
    pools = dict[tuple[str, int], Row]()
    for uri, (content, n_frames) in good.items():
        audio_id = schema.make_audio_id(content)
        row = empty_row(uri, audio_id) | {"duration_s": n_frames * 0.04, "sample_rate_hz": 48_000}
        made = clip_rows(row | {"channels": 1, "codec": "flac"}, GRID)
        values = vectors(content, len(made), CLIP_DIMENSION).reshape(-1, CLIP_DIMENSION).tolist()
        clips += [clip | {"vector": value} for clip, value in zip(made, values, strict=True)]
        values = vectors(content, n_frames, FRAME_DIMENSION).reshape(-1, FRAME_DIMENSION).tolist()
        for frame, value in enumerate(values):
            row = {"audio_id": audio_id, "frame": frame, "start_s": frame * 0.04, "vector": value}
            frames[audio_id, frame] = row | {"begins": audio_id if frame == 0 else None}
        pools |= _pools_of(audio_id, np.array(values, np.float16))
    return {
        "files": [
            {"uri": uri, "status": "deleted" if uri in deleted else "indexed" if uri in good else "failed"}
            for uri in sorted([*corpus, *deleted])
        ],
        "clips": sorted(clips, key=lambda clip: str(clip["clip_id"])),
        "frames": [frames[key] for key in sorted(frames)],
        "pools": [pools[key] for key in sorted(pools)],
    }


def _pools_of(audio_id: str, vectors: Any) -> dict[tuple[str, int], Row]:
    """The pools of an audio that was written as one window."""
    starts, means = pool_frames(vectors)
    sizes = np.diff(starts, append=len(vectors))
    return {
        (audio_id, first): {"audio_id": audio_id, "first_frame": first, "n_frames": n, "vector": mean}
        for first, n, mean in zip(starts.tolist(), sizes.tolist(), means.tolist(), strict=True)
    }


def check_state(path: Path, corpus: Corpus, deleted: tuple[str, ...] = ()) -> None:
    state, expected = read_state(path), expected_state(corpus, deleted)
    assert [{"uri": row["uri"], "status": row["status"]} for row in state["files"]] == expected["files"]
    assert state["clips"] == expected["clips"]
    assert state["frames"] == expected["frames"]
    assert state["pools"] == expected["pools"]


RACE_A: Corpus = BEFORE | {"1": ("dd", 30), "7": ("hh", 31)}
