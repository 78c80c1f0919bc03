"""DECODED rows in, ENCODED rows out: the stage that replaces samples by embeddings.

Before it, ``decode_stage`` opens the files of a planned batch and yields their windows. After it, ``write_stage``
stores the frames and returns receipts. All three are plain functions on Arrow tables; Ray adds nothing to them.
"""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from pipeline import schema
from pipeline.grid import Waveform


class Encoder(Protocol):
    """What ``encode_windows`` needs of ``pipeline.encoder.encoder.AudioEncoder``."""

    precision: str

    def encode(self, windows: Sequence[Waveform]) -> tuple[Any, list[Any] | None]:
        """(n, D) and (frames, D') of each window: float16, or what can be rounded to it."""


def encode_windows(decoded: pa.Table, encoder: Encoder) -> pa.Table:
    """DECODED -> ENCODED: samples become float16 embeddings; rows without samples and the order stay.

    A window without a finite embedding gets null: the collector fails its file.
    """
    pcm = [samples.as_buffer() for samples in decoded["pcm"]]  # without a copy
    at = [i for i, samples in enumerate(pcm) if samples is not None]
    windows = [np.frombuffer(pcm[i], np.float32) for i in at]
    own = list(zip(*(decoded[name].to_pylist() for name in ("first_frame", "own_first", "own_stop")), strict=True))
    clip_vectors: list[bytes | None] = [None] * len(pcm)
    frame_vectors: list[bytes | None] = [None] * len(pcm)
    if windows:
        good, clips, frames = _encode_finite(windows, encoder)
        for k, window in enumerate(good):
            i = at[window]
            first, own_first, own_stop = own[i]
            clip_vectors[i] = _half(clips[k])
            if frames is not None:
                frame_vectors[i] = _half(frames[k][own_first - first : own_stop - first])
                if frame_vectors[i] is None:
                    clip_vectors[i] = None
    columns = [decoded[name] for name in schema.DECODED.names if name != "pcm"]
    columns += [pa.array(clip_vectors, pa.large_binary()), pa.array(frame_vectors, pa.large_binary())]
    columns.append(pa.array([encoder.precision] * len(pcm), pa.string()))
    columns.append(pa.array([0.0] * len(pcm), pa.float64()))
    return pa.Table.from_arrays(columns, schema=schema.ENCODED)


def _encode_finite(windows: list[Waveform], encoder: Encoder) -> tuple[list[int], Any, list[Any] | None]:
    """The positions of the windows with finite embeddings, and their clip and frame embeddings."""
    from pipeline.encoder.encoder import NonFiniteError

    good = list(range(len(windows)))
    try:
        return good, *encoder.encode(windows)
    except NonFiniteError as error:
        broken = set(error.windows)
    good = [i for i in good if i not in broken]
    if not good:
        return [], [], None
    return good, *encoder.encode([windows[i] for i in good])


def _half(vectors: Any) -> bytes | None:
    from pipeline.encoder.encoder import is_finite

    with np.errstate(over="ignore"):
        half = vectors.astype(np.float16, copy=False)
    return half.tobytes() if is_finite(half) else None
