"""Frames that FFmpeg decoded, as arrays of samples."""

from collections.abc import Iterator
from typing import Any

import av
import numpy as np

from pipeline.audio.channels import Channels
from pipeline.audio.pieces import PIECE_VALUES


def kind_of(frame: Any) -> tuple[int, int, str]:
    return frame.sample_rate, frame.layout.nb_channels, frame.format.name


_DTYPES = {"u8": "u1", "s16": "i2", "s32": "i4", "s64": "i8", "flt": "f4", "dbl": "f8"}


def join_frames(frames: list[Any]) -> Channels:
    """The samples of consecutive frames of one kind."""
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
    return rate_hz, values if planar else values.reshape(-1, channels).T


def make_silence(rate_hz: int, duration_s: float, channels: int) -> Iterator[Channels]:
    """Silence, in parts of bounded size."""
    n_samples, longest = round(duration_s * rate_hz), max(1, PIECE_VALUES // channels)
    for begin in range(0, n_samples, longest):
        yield rate_hz, np.zeros((channels, min(longest, n_samples - begin)), np.float32)
