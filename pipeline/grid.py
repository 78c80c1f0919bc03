"""The time grid, counted in integer samples and frames: which windows a file has, and which frames each window owns.

A file of N samples at 48 kHz has F = ceil(N / 1920) frames of 40 ms. Windows start at multiples of the step and overlap
a little. By the rule ``fit``, the last window takes the rest of the file as soon as the rest is 1.5 windows or less:
hardly more than the overlap is encoded twice. By the rule ``back``, of older indexes, the last window has the length of
the others and is moved back to end with the file.

No window is padded but for the last 40 ms of a file.

This is the only place where seconds become samples or frames, and the only one that decides where windows lie.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
import numpy.typing as npt

SAMPLE_RATE_HZ = 48_000
"""The rate PE-Audio hears at (its feature extractor's ``sampling_rate``)."""

BYTES_PER_SAMPLE = 4
"""Samples are float32."""

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


LONGEST_S = frames_to_seconds(2**31 - 1)
"""Later times have no frame: frames are numbered with 32 bits."""


def samples_to_seconds(n_samples: int) -> float:
    """Duration of ``n_samples`` at 48 kHz, in seconds."""
    return n_samples / SAMPLE_RATE_HZ


def seconds_to_samples(seconds: float) -> int:
    """The nearest sample at 48 kHz."""
    return round(seconds * SAMPLE_RATE_HZ)


def seconds_to_frames(seconds: float) -> int:
    """The nearest frame boundary."""
    return round(seconds * SAMPLE_RATE_HZ / HOP_SAMPLES)


def span_to_frames(start_s: float, end_s: float) -> tuple[int, int]:
    """The frames that a span of time touches: the first one, and the one behind the last.

    Of the times that frames give, also where the last frame of a file is partial, it finds these frames again.
    """
    return seconds_to_samples(start_s) // HOP_SAMPLES, count_frames(seconds_to_samples(end_s))


Tail = Literal["fit", "back"]
"""The rule for the last window of a file."""

QUANTA = 25
"""The last window of a longer file has one of about this many lengths: on a GPU, more share a pass of the codec."""


@dataclass(frozen=True, slots=True)
class Grid:
    """How files are cut: window length and overlap, both in frames, and the rule for the last window.

    ``length_frames`` >= 2 and 0 <= ``overlap_frames`` <= ``length_frames`` / 2, so that at most two regular windows
    cover any frame.
    """

    length_frames: int = 250
    overlap_frames: int = 10
    tail: Tail = "fit"

    @property
    def step_frames(self) -> int:
        return self.length_frames - self.overlap_frames

    @property
    def longest_frames(self) -> int:
        """Frames of the longest window that a file may have."""
        return self.length_frames + (self.length_frames // 2 if self.tail == "fit" else 0)

    @property
    def quantum_frames(self) -> int:
        """Lengths of last windows differ by multiples of this."""
        return max(1, self.length_frames // QUANTA)


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
    the table ``frames``. By the rule ``fit``, a seam lies in the middle of the overlap of two regular windows; by the
    rule ``back``, each frame belongs to the window whose centre is nearest.
    """

    first: int
    length: int
    own_first: int
    own_stop: int


def plan_windows(n_frames: int, grid: Grid, from_window: int = 0) -> list[Span]:
    """The windows of a file of ``n_frames`` >= 1 frames, from a window on: together they own every frame once.

    A longer file begins with the same windows. Only the last one differs or, by the rule ``back``, the last two: with
    the last window moves the frame up to which the one before it owns.
    """
    length, step, last = grid.length_frames, grid.step_frames, _last_window(n_frames, grid)
    if from_window > last:
        return []
    numbers = range(from_window, last + 1)
    starts = [*(number * step for number in numbers[:-1]), _last_start(n_frames, last, grid)]
    # Where all windows are regular, a seam lies in the middle of what two of them share.
    seams = [_seam((number - 1) * step, number * step, length) if number else 0 for number in numbers]
    if grid.tail == "back" and last:
        seams[-1] = _seam((last - 1) * step, starts[-1], length)
    stops = [*(start + length for start in starts[:-1]), n_frames]
    return [
        Span(start, stop - start, own_first, own_stop)
        for start, stop, (own_first, own_stop) in zip(starts, stops, pairwise([*seams, n_frames]), strict=True)
    ]


def window_starts(n_frames: int, grid: Grid) -> list[int]:
    """First frames of the windows of a file of ``n_frames`` frames, ascending and distinct."""
    return [span.first for span in plan_windows(n_frames, grid)]


def count_windows(durations_s: npt.NDArray[np.float64], grid: Grid) -> int:
    """How many windows files of these durations, in seconds, have together."""
    return len(durations_s) + int(_last_windows(_count_frames(durations_s), grid).sum())


def count_encoded_frames(durations_s: npt.NDArray[np.float64], grid: Grid) -> int:
    """Frames that the windows of files of these durations, in seconds, hold together: some are in two windows."""
    n = _count_frames(durations_s)
    last = _last_windows(n, grid)
    last_frames = np.where(last, grid.length_frames, n)
    if grid.tail == "fit":
        unused = grid.longest_frames - (n - last * grid.step_frames)
        last_frames = np.where(last, grid.longest_frames - unused // grid.quantum_frames * grid.quantum_frames, n)
    return int((last * grid.length_frames + last_frames).sum())


def list_certain_windows(n_frames: int, grid: Grid, part: Part = WHOLE) -> list[Span]:
    """The windows of ``part`` that lie in the first ``n_frames`` frames of a file, and that more audio would not move.

    A ``part`` with a ``stop`` is always followed by more audio.
    """
    n_expected = n_frames if part.stop is None else n_frames + 2 * grid.longest_frames
    n_open = 1 if grid.tail == "fit" else 2
    spans = plan_windows(n_expected, grid, part.first)[:-n_open] if n_expected else []
    n_windows = None if part.stop is None else part.stop - part.first
    return [span for span in spans[:n_windows] if span.first + span.length <= n_frames]


def first_frame_needed(window: int, grid: Grid) -> int:
    """The frame from which a stream must be held to cut the window ``window`` and those after it."""
    moved_back = grid.quantum_frames - 1 if grid.tail == "fit" else 0
    return max(0, window * grid.step_frames - moved_back)


def plan_parts(n_samples: int, grid: Grid, n_windows: int) -> list[Part]:
    """Cut a file of about ``n_samples`` at 48 kHz into parts of ``n_windows`` windows.

    The last part has at least ``n_windows``: should ``n_samples`` be somewhat wrong, it still has some.
    """
    count = _last_window(count_frames(n_samples), grid) + 1
    firsts = list(range(0, max(1, count - n_windows), n_windows))
    return [Part(first, stop) for first, stop in zip(firsts, [*firsts[1:], None], strict=True)]


def _count_frames(durations_s: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """``count_frames`` of many files, by their durations."""
    return np.ceil(np.rint(durations_s * SAMPLE_RATE_HZ) / HOP_SAMPLES)


def _last_windows(n_frames: npt.NDArray[np.float64], grid: Grid) -> npt.NDArray[np.float64]:
    """``_last_window`` of many files."""
    return np.ceil(np.maximum(0, n_frames - grid.longest_frames) / grid.step_frames)


def _last_window(n_frames: int, grid: Grid) -> int:
    """The number of the last window of a file, from 0."""
    return -(-max(0, n_frames - grid.longest_frames) // grid.step_frames)


def _last_start(n_frames: int, last: int, grid: Grid) -> int:
    """The first frame of the last window, which has the number ``last``.

    By the rule ``fit`` it begins a little early, unless it is the only one, to have a length that others have.
    """
    if grid.tail == "back":
        return max(0, n_frames - grid.length_frames)
    if last == 0:
        return 0
    left, quantum = n_frames - last * grid.step_frames, grid.quantum_frames
    return n_frames - (grid.longest_frames - (grid.longest_frames - left) // quantum * quantum)


def _seam(earlier: int, later: int, length: int) -> int:
    """The first frame that belongs to the later of two windows of ``length`` frames.

    A frame belongs to the window whose centre is nearest to its own, in a tie to the earlier one.
    """
    return (earlier + later + length + 1) // 2
