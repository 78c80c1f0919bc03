"""What both readers give: the content of a header, and pieces of mono samples at the file's own rate."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.errors import FileFailure
from pipeline.grid import Waveform

Piece = tuple[int, Waveform]
"""A sample rate in hertz, and mono samples (n,) at that rate: decoded, not yet resampled."""

PIECE_S = 2
PIECE_VALUES = 1 << 19
"""A piece ends after these seconds, or this many samples x channels (2 MB of float32), whichever comes first."""

_SLOWEST_HZ, _FASTEST_HZ = 1_000, 2_000_000
"""Rates outside come from damaged headers: at one hertz, a short file would become hours of samples."""


def check_rate(rate_hz: int) -> None:
    """Refuse a sample rate that no recording has.

    Raises:
        FileFailure: ``unsupported``.
    """
    if not _SLOWEST_HZ <= rate_hz <= _FASTEST_HZ:
        raise FileFailure("decode", "unsupported", f"a sample rate of {rate_hz} Hz")


@dataclass(frozen=True, slots=True)
class AudioInfo:
    """The content of the header. ``codec`` is FFmpeg's name without byte order: ``pcm_s16``, ``flac``, ``mp3``."""

    codec: str
    sample_rate_hz: int
    channels: int
    expected_duration_s: float | None
    """None if the header does not state it, and only a guess is possible (mp3 without a Xing header, raw aac)."""

    @property
    def tolerance_s(self) -> float:
        """How much less than promised a healthy file may hold.

        The headers of lossless files count samples exactly. Others may include delay and padding, up to three codec
        frames: a quarter of a second at 8 kHz.
        """
        return 0.02 if self.codec.startswith("pcm") or self.codec in ("flac", "alac") else 0.26


def mean_channels(channels: npt.NDArray[Any]) -> Waveform:
    """Mean over ``channels`` [channels, samples], floats or integers of any size, as float32 of full scale 1."""
    # Channel by channel: numpy's mean over a short axis is some twenty times slower.
    with np.errstate(over="ignore", invalid="ignore"):  # `AudioStream` refuses numbers that are not finite
        total: Waveform
        if len(channels) == 1:
            total = channels[0].astype(np.float32)
        else:
            total = np.add(channels[0], channels[1], dtype=np.float32)
        for channel in channels[2:]:
            total += channel
        scale = len(channels)
        if channels.dtype.kind in "iu":
            full_scale = 2 ** (8 * channels.dtype.itemsize - 1)
            if channels.dtype.kind == "u":
                total -= full_scale * scale
            scale *= full_scale
        if scale != 1:
            total *= np.float32(1 / scale)
    return total
