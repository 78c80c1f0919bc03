"""Frames that FFmpeg decoded, as pieces of mono samples."""

from collections.abc import Iterator
from typing import Any

import av
import numpy as np

from pipeline.audio.pieces import PIECE_VALUES, Piece, mean_channels


def kind_of(frame: Any) -> tuple[int, int, str]:
    return frame.sample_rate, frame.layout.nb_channels, frame.format.name


_DTYPES = {"u8": "u1", "s16": "i2", "s32": "i4", "s64": "i8", "flt": "f4", "dbl": "f8"}


def join_frames(frames: list[Any]) -> Piece:
    """One piece of consecutive frames of one kind."""
    rate_hz, channels, _ = kind_of(frames[0])
    if frames[0].format.is_planar and channels >= 8:
        # PyAV finds the end of the planes by a null pointer, but FFmpeg sets one for up to seven only: it would crash.
        packer = av.AudioResampler(format="flt", layout=frames[0].layout, rate=rate_hz)
        frames = [packed for frame in [*frames, None] for packed in packer.resample(frame)]
    planar = frames[0].format.is_planar
    n_planes, per_sample = (channels, 1) if planar else (1, channels)
    n_values = per_sample * sum(frame.samples for frame in frames)
    values = np.empty((n_planes, n_values), _DTYPES[frames[0].format.packed.name])
    at = 0
    for frame in frames:  # takes half the time of `to_ndarray` and `concatenate`
        stop = at + per_sample * frame.samples
        for plane, row in zip(frame.planes, values, strict=True):
            row[at:stop] = np.frombuffer(plane, values.dtype, stop - at)
        at = stop
    return rate_hz, mean_channels(values if planar else values.reshape(-1, channels).T)


def make_silence(rate_hz: int, duration_s: float) -> Iterator[Piece]:
    n_samples = round(duration_s * rate_hz)
    for begin in range(0, n_samples, PIECE_VALUES):
        yield rate_hz, np.zeros(min(PIECE_VALUES, n_samples - begin), np.float32)
