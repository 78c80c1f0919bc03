"""The time grid, counted in integer samples and frames: which windows a file has, and which frames each window owns.

A file of N samples at 48 kHz has F = ceil(N / 1920) frames of 40 ms. Windows start at multiples of 1920 samples and
overlap a little; the last one is moved back to end with the file. All windows of a file at least one window long
therefore have the same length, batches need no padding, and no embedding depends on its batch.

This is the only place where seconds become samples or frames, and the only one that decides where windows lie.
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
    """The windows ``first`` .. ``stop - 1`` of a file; without ``stop``, all windows from ``first`` on.

    Each starts at its number times ``Grid.step_frames``; only the last window of a file need not.
    """

    first: int = 0
    stop: int | None = None


WHOLE = Part()


@dataclass(frozen=True, slots=True)
class Span:
    """One window of a file, in frames of that file.

    The window holds frames ``first`` .. ``first + length - 1`` and gives the rows ``own_first`` .. ``own_stop - 1`` of
    the table ``frames``: those whose nearest window centre is its own.
    """

    first: int
    length: int
    own_first: int
    own_stop: int


def window_starts(n_frames: int, grid: Grid, from_window: int = 0) -> list[int]:
    """First frames of the windows of a file of ``n_frames`` frames, ascending and distinct, from a window on."""
    last = max(0, n_frames - grid.length_frames)
    return [*range(from_window * grid.step_frames, last, grid.step_frames), last]


def plan_windows(n_frames: int, grid: Grid, from_window: int = 0) -> list[Span]:
    """The windows of a file of ``n_frames`` >= 1 frames, from a window on: together they own every frame once.

    A longer file begins with the same windows, except for the last two: the last one moves, and with it the frame up to
    which the one before it owns.
    """
    starts = window_starts(n_frames, grid, from_window)
    length = min(n_frames, grid.length_frames)
    begin = _seam((from_window - 1) * grid.step_frames, starts[0], length) if from_window else 0
    seams = [begin, *(_seam(a, b, length) for a, b in pairwise(starts)), n_frames]
    return [
        Span(first, length, own_first, own_stop)
        for first, (own_first, own_stop) in zip(starts, pairwise(seams), strict=True)
    ]


def list_certain_windows(n_frames: int, grid: Grid, part: Part = WHOLE) -> list[Span]:
    """The windows of ``part`` that lie in the first ``n_frames`` frames of a file, and that more audio would not move.

    A ``part`` with a ``stop`` is always followed by more audio.
    """
    n_expected = n_frames if part.stop is None else n_frames + 2 * grid.length_frames
    spans = plan_windows(n_expected, grid, part.first)[:-2] if n_expected else []
    n_windows = None if part.stop is None else part.stop - part.first
    return [span for span in spans[:n_windows] if span.first + span.length <= n_frames]


def plan_parts(n_samples: int, grid: Grid, n_windows: int) -> list[Part]:
    """Cut a file of about ``n_samples`` at 48 kHz into parts of ``n_windows`` windows.

    The last part has at least ``n_windows``: should ``n_samples`` be somewhat wrong, it still has some.
    """
    starts = window_starts(count_frames(n_samples), grid)
    firsts = list(range(0, max(1, len(starts) - n_windows), n_windows))
    return [Part(first, stop) for first, stop in zip(firsts, [*firsts[1:], None], strict=True)]


def _seam(earlier: int, later: int, length: int) -> int:
    """The first frame that belongs to the later of two windows of ``length`` frames.

    A frame belongs to the window whose centre is nearest to its own, in a tie to the earlier one.
    """
    return (earlier + later + length + 1) // 2
