"""Batches that go through the three stages in this process."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from pipeline import schema
from pipeline.audio.decoder_versions import DECODER
from pipeline.audio.source import hash_file
from pipeline.audio.windows import reflect_pad
from pipeline.grid import Grid, Waveform, count_frames, plan_windows
from pipeline.index.checksum import sum_rows
from pipeline.index.writer import Batch
from pipeline.run.collector import Collector
from pipeline.schema import Row
from tests.helpers.fakes import (
    CLIP_DIMENSION,
    GRID,
    NOT_FINITE,
    FakeEncoder,
    FrameSink,
    encode_all,
    noise,
    plan_batch,
    write_wav,
)

BATCH = schema.make_batch_id("test", 1)
OTHER = schema.make_batch_id("test", 2)


def make_collector(grid: Grid = GRID, *, with_frames: bool = True, planned: Sequence[Row] = ()) -> Collector:
    table = pa.Table.from_pylist(list(planned), schema=schema.PLANNED) if planned else None
    return Collector(grid, CLIP_DIMENSION, with_frames=with_frames, planned=table)


def index(*contents: Sequence[Path], grid: Grid = GRID, with_frames: bool = True) -> tuple[Batch, list[Row]]:
    """A batch of these files, and the frame rows that it would publish."""
    planned = plan_batch(BATCH, *contents)
    return index_planned(planned, encode_all(planned, FakeEncoder(frames=with_frames), grid), grid, with_frames)


def index_planned(
    planned: Row, encoded: pa.Table | None = None, grid: Grid = GRID, with_frames: bool = True
) -> tuple[Batch, list[Row]]:
    """The same of a planned batch, whose files may have changed since."""
    sink, encoded = FrameSink(), encode_all(planned, FakeEncoder(), grid) if encoded is None else encoded
    collector = make_collector(grid, with_frames=with_frames, planned=[planned])
    batches = [collector.add(receipt) for receipt in sink.write(encoded)]
    assert collector.missing == set()
    assert batches[:-1] == [None] * (len(batches) - 1)
    batch = batches[-1]
    assert batch is not None
    return batch, published_frames(batch, sink)


def published_frames(batch: Batch, sink: FrameSink) -> list[Row]:
    return [row for row in sink.read(batch.frame_fragments) if row["audio_id"] not in batch.orphaned]


def published_pools(batch: Batch, sink: FrameSink) -> list[Row]:
    return [row for row in sink.read(batch.pool_fragments) if row["audio_id"] not in batch.orphaned]


def audio_id_of(path: Path) -> str:
    return schema.make_audio_id(hash_file(path))


def expected_file(path: Path, samples: Waveform, grid: Grid = GRID, **changes: Any) -> Row:
    n_frames = count_frames(len(samples))
    audio_id = audio_id_of(path)
    windows = windows_of(samples, grid)
    clips = np.stack([FakeEncoder.clip(window) for *_, window in windows]).astype(np.float16)
    frames = [FakeEncoder.frames(window)[own - first : stop - first] for first, own, stop, window in windows]
    return {
        "file_id": schema.make_file_id(str(path), audio_id),
        "audio_id": audio_id,
        "uri": str(path),
        "status": "indexed",
        "stage": None,
        "reason": None,
        "message": None,
        "duration_s": len(samples) / 48_000,
        "expected_duration_s": len(samples) / 48_000,
        "sample_rate_hz": 48_000,
        "channels": 1,
        "codec": "pcm_f32",
        "size_bytes": path.stat().st_size,
        "modified_ns": path.stat().st_mtime_ns,
        "content_hash": hash_file(path),
        "n_clips": len(windows),
        "n_frames": n_frames,
        "decoder": DECODER,
        "note": None,
        "clips_checksum": sum_rows([first for first, *_ in windows], clips),
        "frames_checksum": sum_rows(range(n_frames), np.concatenate(frames).astype(np.float16)),
        **changes,
    }


def windows_of(samples: Waveform, grid: Grid) -> list[tuple[int, int, int, Waveform]]:
    """First frame, first and last-but-one own frame, and samples of each window."""
    padded = reflect_pad(samples)
    return [
        (span.first, span.own_first, span.own_stop, padded[span.first * 1920 : (span.first + span.length) * 1920])
        for span in plan_windows(count_frames(len(samples)), grid)
    ]


def expected_clips(path: Path, samples: Waveform, grid: Grid = GRID) -> list[Row]:
    file = expected_file(path, samples)
    shared = ("file_id", "audio_id", "uri", "duration_s", "sample_rate_hz", "channels", "codec")
    return [
        {name: file[name] for name in shared}
        | {
            "clip_id": schema.make_clip_id(file["file_id"], first),
            "start_s": first * 1920 / 48_000,
            "end_s": min((first + len(window) // 1920) * 1920 / 48_000, len(samples) / 48_000),
            "vector": FakeEncoder.clip(window).astype(np.float16).tolist(),
        }
        for first, _, _, window in windows_of(samples, grid)
    ]


def expected_frames(path: Path, samples: Waveform, grid: Grid = GRID, batch_id: str = BATCH) -> list[Row]:
    audio_id = audio_id_of(path)
    return [
        {
            "audio_id": audio_id,
            "frame": frame,
            "start_s": frame * 1920 / 48_000,
            "batch_id": batch_id,
            "vector": FakeEncoder.frames(window)[frame - first].astype(np.float16).tolist(),
            "begins": audio_id if frame == 0 else None,
        }
        for first, own_first, own_stop, window in windows_of(samples, grid)
        for frame in range(own_first, own_stop)
    ]


def named(rows: list[Row], *columns: str) -> list[tuple[Any, ...]]:
    return [tuple(row[column] for column in columns) for row in rows]


def outcomes(batch: Batch) -> dict[str, tuple[str, str | None, str | None]]:
    rows = batch.files.to_pylist()
    assert len({row["uri"] for row in rows}) == len(rows)
    return {Path(row["uri"]).name: (row["status"], row["stage"], row["reason"]) for row in rows}


def marked(samples: Waveform, value: float, at_s: float = 0.0) -> Waveform:
    changed = samples.copy()
    changed[round(at_s * 48_000)] = value
    return changed


@pytest.fixture(scope="module")
def two_batches(tmp_path_factory: pytest.TempPathFactory) -> list[pa.Table]:
    """The ENCODED rows of two batches of good, bad and doubled files."""
    folder = tmp_path_factory.mktemp("sounds")
    paths = [write_wav(folder / f"{k}.wav", noise(0.1 + 0.31 * k, k)) for k in range(6)]
    twin = write_wav(folder / "twin.wav", noise(0.1 + 0.31 * 2, 2))
    nan = write_wav(folder / "nan.wav", marked(noise(4.0), np.nan, 3.9))
    flat = write_wav(folder / "flat.wav", marked(noise(1.0), NOT_FINITE, 0.5))
    (folder / "text.wav").write_bytes(b"text" * 99)
    first = plan_batch(BATCH, [paths[0]], [nan], [paths[2], twin], [folder / "text.wav"])
    second = plan_batch(OTHER, [paths[5]], [flat], [paths[1]], [paths[3]], [paths[4]])
    return [encode_all(planned, FakeEncoder()) for planned in (first, second)]


def collect(tables: Sequence[pa.Table]) -> dict[str, tuple[Batch, list[Row]]]:
    """By id, the batches of ENCODED rows, and the rows of ``frames`` and ``pools`` that they publish."""
    sink, collector = FrameSink(), make_collector()
    batches = [collector.add(receipt) for table in tables for receipt in sink.write(table)]
    assert collector.missing == set()
    return {
        batch.batch_id: (batch, [*published_frames(batch, sink), *published_pools(batch, sink)])
        for batch in batches
        if batch is not None
    }


EDITS = ["same", "deleted", "other", "longer", "text"]


def held(lengths_s: list[float]) -> list[tuple[str, Waveform]]:
    """Ids and samples of the four planned contents."""
    with tempfile.TemporaryDirectory() as folder:
        sounds = [noise(length_s, k) for k, length_s in enumerate(lengths_s)]
        return [(audio_id_of(write_wav(Path(folder) / "a.wav", samples)), samples) for samples in sounds]
