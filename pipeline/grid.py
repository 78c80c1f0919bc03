"""The time grid, counted in integer samples and frames: which windows a file has, and which frames each window owns.

A file of N samples at 48 kHz has F = ceil(N / 1920) frames of 40 ms. Windows start at multiples of 1920 samples and
overlap a little; the last one is moved back to end with the file. All windows of a file at least one window long
therefore have the same length, batches need no padding, and no embedding depends on its batch.

This is the only place where seconds become samples or frames.
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

SAMPLE_RATE_HZ = 48_000
"""The rate PE-Audio hears at (its feature extractor's ``sampling_rate``)."""

HOP_SAMPLES = 1_920
"""Samples in one frame: the product of the codec's strides, 2 x 8 x 10 x 12."""

FRAME_S = HOP_SAMPLES / SAMPLE_RATE_HZ
"""Seconds in one frame: 0.04."""

Waveform = npt.NDArray[np.float32]


def count_frames(n_samples: int) -> int:
    """Frames of a file of ``n_samples`` at 48 kHz, the last one possibly partial."""
    return -(-n_samples // HOP_SAMPLES)


def frames_to_seconds(n_frames: int) -> float:
    """The time at which frame ``n_frames`` begins, in seconds, exact to the nearest float."""
    return n_frames * HOP_SAMPLES / SAMPLE_RATE_HZ


def samples_to_seconds(n_samples: int) -> float:
    """Duration of ``n_samples`` at 48 kHz, in seconds."""
    return n_samples / SAMPLE_RATE_HZ


def seconds_to_samples(seconds: float) -> int:
    """The nearest sample at 48 kHz."""
    return round(seconds * SAMPLE_RATE_HZ)


def seconds_to_frames(seconds: float) -> int:
    """The nearest frame boundary."""
    return round(seconds * SAMPLE_RATE_HZ / HOP_SAMPLES)


@dataclass(frozen=True, slots=True)
class Grid:
    """How files are cut: window length and overlap, both in frames.

    ``length_frames`` >= 2 and 0 <= ``overlap_frames`` <= ``length_frames`` / 2, so that at most two regular windows
    cover any frame.
    """

    length_frames: int = 250
    overlap_frames: int = 10

    @property
    def step_frames(self) -> int:
        return self.length_frames - self.overlap_frames


@dataclass(frozen=True, slots=True)
class Part:
    """The regular windows ``first`` .. ``stop - 1`` of a file; without ``stop``, all windows from ``first`` on."""

    first: int = 0
    stop: int | None = None


WHOLE = Part()


@dataclass(frozen=True, slots=True)
class Span:
    """One window of a file, in frames of that file.

    The window holds frames ``first`` .. ``first + length - 1``; of these, the rows
    ``own_first`` .. ``own_stop - 1`` are taken from it, because its centre is the nearest.
    """

    first: int
    length: int
    own_first: int
    own_stop: int


def window_starts(n_frames: int, grid: Grid) -> list[int]:
    """First frames of the windows of a file of ``n_frames`` frames, ascending and distinct."""
    last = max(0, n_frames - grid.length_frames)
    return [*range(0, last, grid.step_frames), last]


def plan_parts(n_samples: int, grid: Grid, n_windows: int) -> list[Part]:
    """Cut a file of about ``n_samples`` at 48 kHz into parts of ``n_windows`` regular windows.

    The last one is at least as long, and longer than a window by more than any doubt about ``n_samples``.
    """
    starts = window_starts(count_frames(n_samples), grid)
    firsts = list(range(0, max(1, len(starts) - n_windows), n_windows))
    return [Part(first, stop) for first, stop in zip(firsts, [*firsts[1:], None], strict=True)]


def seam(earlier: int, later: int, length: int) -> int:
    """The first frame that belongs to the later of two windows of ``length`` frames.

    Frame k goes to the window whose centre is nearest to its own, ties to the earlier.
    """
    return (earlier + later + length + 1) // 2


def plan_windows(n_frames: int, grid: Grid) -> list[Span]:
    """All windows of a file of ``n_frames`` >= 1 frames: every frame is owned exactly once."""
    starts = window_starts(n_frames, grid)
    length = min(n_frames, grid.length_frames)
    seams = [0, *(seam(a, b, length) for a, b in pairwise(starts)), n_frames]
    return [
        Span(first, length, own_first, own_stop)
        for first, own_first, own_stop in zip(starts, seams, seams[1:], strict=False)
    ]
