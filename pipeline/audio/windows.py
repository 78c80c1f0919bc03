"""Waveform in, windows out. The rule that places them is in ``pipeline/grid.py``.

The very end of a file is reflect-padded once to a whole number of frames, as PE-Audio's feature extractor does; nothing
else is ever padded.
"""

from collections import deque
from collections.abc import Iterable, Iterator

import numpy as np

from pipeline.grid import (
    HOP_SAMPLES,
    WHOLE,
    Grid,
    Part,
    Span,
    Waveform,
    count_frames,
    first_frame_needed,
    list_certain_windows,
    plan_windows,
)


def reflect_pad(tail: Waveform) -> Waveform:
    """Extend ``tail`` (samples,) by reflection to a whole number of frames.

    Needs at least one whole frame, so that there is enough to reflect. Source: transformers'
    ``PeAudioFeatureExtractor._reflect_pad``.
    """
    missing = -len(tail) % HOP_SAMPLES
    return np.pad(tail, (0, missing), "reflect") if missing else tail


def cut_windows(blocks: Iterable[Waveform], grid: Grid, part: Part = WHOLE) -> Iterator[tuple[Span, Waveform]]:
    """Cut a stream of 48 kHz mono float32 blocks into windows, holding the samples of about one and a half,
    or of two by the rule ``back``.

    Yields ``(span, samples)`` with samples of shape (span.length * HOP_SAMPLES,), in the order and with the spans that
    ``plan_windows`` gives for the whole file. A stream shorter than one frame yields nothing.

    Args:
        part: of a file; the stream begins with the frame ``first_frame_needed(part.first, grid)``.
    """
    window = part.first
    held = _Held(first_frame_needed(window, grid) * HOP_SAMPLES)
    for block in blocks:
        held.append(block)
        for span in list_certain_windows(held.stop // HOP_SAMPLES, grid, Part(window, part.stop)):
            yield span, held.take(span)
            window += 1
        held.forget(first_frame_needed(window, grid))
        if window == part.stop:
            return
    if held.stop >= HOP_SAMPLES and part.stop is None:
        for span in plan_windows(count_frames(held.stop), grid, window):
            yield span, reflect_pad(held.take(span))


class _Held:
    """The newest samples of a stream. ``stop`` is the number in the file of the sample that comes next."""

    def __init__(self, first: int) -> None:
        self.stop = first
        self._blocks: deque[tuple[int, Waveform]] = deque()

    def append(self, block: Waveform) -> None:
        self._blocks.append((self.stop, np.asarray(block, np.float32)))
        self.stop += len(block)

    def take(self, span: Span) -> Waveform:
        """A copy of the samples of a window, which may end within its last frame."""
        first, stop = span.first * HOP_SAMPLES, (span.first + span.length) * HOP_SAMPLES
        return np.concatenate([block[max(0, first - at) : max(0, stop - at)] for at, block in self._blocks])

    def forget(self, first_frame: int) -> None:
        """Let go of the blocks that end before a frame."""
        while self._blocks and self._blocks[0][0] + len(self._blocks[0][1]) <= first_frame * HOP_SAMPLES:
            self._blocks.popleft()
