"""A cheap deterministic encoder, exact wav files, and the short way through the stages without Ray.

    write_wav(path, noise(3.0))                       # decodes to exactly these samples
    row = plan_batch("0" * 32, [path], [copy, original])   # one list for each content
    encoded = encode_all(row, FakeEncoder(), GRID)
    frames = FrameSink()
    receipts = frames.write(encoded)                  # RECEIPTS rows, as a worker reports them

``FakeEncoder`` maps a window to a few of its own samples and moments, so a test can say what every vector must be. A
sample of value ``NOT_FINITE``, ``CLIP_OVERFLOW`` or ``FRAME_OVERFLOW`` in a window makes it fail in that way.
"""

import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline import schema
from pipeline.audio.source import hash_file
from pipeline.config import DecodeConfig
from pipeline.corpus.corpus_file import estimate_seconds
from pipeline.encoder.encoder import NonFiniteError
from pipeline.grid import HOP_SAMPLES, SAMPLE_RATE_HZ, Grid, Waveform
from pipeline.run.decode_stage import decode_batch
from pipeline.run.encode_stage import encode_windows
from pipeline.run.write_stage import write_windows
from pipeline.schema import Row

GRID = Grid(10, 2)
"""Windows of 0.4 s: many in a short file."""

CLIP_DIMENSION, FRAME_DIMENSION = 4, 3
FRAMES_SCHEMA = schema.frames_schema(FRAME_DIMENSION)

NOT_FINITE, CLIP_OVERFLOW, FRAME_OVERFLOW = 0.75, 0.8125, 0.875
"""Samples that ``FakeEncoder`` reacts to; all exact in float32. ``noise`` never reaches them."""


class FakeEncoder:
    """Embeddings that show which samples they were made of: see ``clip`` and ``frames``."""

    precision = "float32"

    def __init__(self, *, frames: bool = True) -> None:
        self._with_frames = frames
        self.n_windows = 0

    def encode(self, windows: Sequence[Waveform]) -> tuple[npt.NDArray[np.float32], list[Any] | None]:
        self.n_windows += len(windows)
        broken = [i for i, window in enumerate(windows) if (window == NOT_FINITE).any()]
        if broken:
            raise NonFiniteError(broken, len(windows))
        clips = np.stack([self.clip(window) for window in windows])
        return clips, [self.frames(window) for window in windows] if self._with_frames else None

    @staticmethod
    def clip(window: Waveform) -> npt.NDArray[np.float32]:
        """(4,): first and last sample, mean and size of the window; beyond float16 on CLIP_OVERFLOW."""
        values = [window[0], window[-1], window.mean(), len(window) / HOP_SAMPLES]
        return np.array(values, np.float32) * (1e6 if (window == CLIP_OVERFLOW).any() else 1)

    @staticmethod
    def frames(window: Waveform) -> npt.NDArray[np.float32]:
        """(frames, 3): first sample, last sample and mean of each frame; beyond float16 on FRAME_OVERFLOW."""
        each = window.reshape(-1, HOP_SAMPLES)
        values = np.stack([each[:, 0], each[:, -1], each.mean(axis=1)], axis=1).astype(np.float32)
        values[(each == FRAME_OVERFLOW).any(axis=1)] = 1e6
        return values


def noise(duration_s: float, seed: int = 0) -> Waveform:
    """Uniform noise in [-0.5, 0.5), mono at 48 kHz."""
    n_samples = round(duration_s * SAMPLE_RATE_HZ)
    return (np.random.default_rng(seed).random(n_samples) - 0.5).astype(np.float32)


def write_wav(path: Path, samples: Waveform, sample_rate_hz: int = SAMPLE_RATE_HZ) -> Path:
    """A mono float wav: the same samples give the same bytes."""
    data = samples.astype("<f4").tobytes()
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 3, 1, sample_rate_hz, 4 * sample_rate_hz, 4, 32)
    body = b"WAVE" + form + struct.pack("<4sI", b"data", len(data)) + data
    path.write_bytes(struct.pack("<4sI", b"RIFF", len(body)) + body)
    return path


def plan_batch(batch_id: str, *contents: Sequence[Path]) -> Row:
    """One PLANNED row as ``make_plan`` makes it: only contents that several files hold have been hashed."""
    audios = []
    for paths in contents:
        stats = [path.stat() for path in paths]
        audios.append(
            {
                "content_hash": hash_file(paths[0]) if len(paths) > 1 else None,
                "size_bytes": stats[0].st_size,
                "estimated_s": estimate_seconds(str(paths[0]), stats[0].st_size),
                "uris": [str(path) for path in paths],
                "modified_ns": [stat.st_mtime_ns for stat in stats],
            }
        )
    return {"batch_id": batch_id, "audios": audios}


def encode_all(planned: Row, encoder: FakeEncoder, grid: Grid = GRID, block_windows: int = 32) -> pa.Table:
    """The ENCODED rows of a batch."""
    blocks = decode_batch(planned, DecodeConfig(), grid, block_windows)
    return pa.concat_tables([encode_windows(block, encoder) for block in blocks])


class FrameSink:
    """Stands in for ``tables.write_rows``: keeps the rows, and names them as if they were fragments."""

    def __init__(self) -> None:
        self._written: dict[str, list[pa.RecordBatch]] = {}

    def write(self, encoded: pa.Table) -> list[Row]:
        """ENCODED -> RECEIPTS rows."""
        receipts: list[Row] = write_windows(encoded, FRAMES_SCHEMA, self._keep).to_pylist()
        return receipts

    def _keep(self, name: str, rows: list[pa.RecordBatch]) -> list[str]:
        if not rows:
            return []
        fragment = f"fragment {len(self._written)} of {name}"
        self._written[fragment] = rows
        return [fragment]

    def read(self, fragments: Sequence[str]) -> list[Row]:
        """The rows of these fragments, in order."""
        return [row for name in fragments for batch in self._written[name] for row in batch.to_pylist()]
