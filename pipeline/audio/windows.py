"""Waveform in, windows out, on the time grid.

The very end of a file is reflect-padded once to a whole number of frames, as PE-Audio's feature extractor does; nothing
else is ever padded.
"""

from collections.abc import Iterable, Iterator

import numpy as np

from pipeline.grid import HOP_SAMPLES, WHOLE, Grid, Part, Span, Waveform, count_frames, seam


def reflect_pad(tail: Waveform) -> Waveform:
    """Extend ``tail`` (samples,) by reflection to a whole number of frames.

    Needs at least one whole frame, so that there is enough to reflect. Source: transformers'
    ``PeAudioFeatureExtractor._reflect_pad``.
    """
    missing = -len(tail) % HOP_SAMPLES
    return np.pad(tail, (0, missing), "reflect") if missing else tail


def cut_windows(blocks: Iterable[Waveform], grid: Grid, part: Part = WHOLE) -> Iterator[tuple[Span, Waveform]]:
    """Cut a stream of 48 kHz mono float32 blocks into windows, holding little over one window.

    Yields ``(span, samples)`` with samples of shape (span.length * 1920,), in the order and
    with the spans that ``plan_windows`` gives for the whole file. A stream shorter than one
    frame yields nothing.

    Args:
        part: of a file, whose samples begin with those of its first window; the file goes on behind the samples of its
            last one, unless it is the end of the file.
    """
    length, step = grid.length_frames * HOP_SAMPLES, grid.step_frames * HOP_SAMPLES
    held: tuple[int, Waveform] | None = None  # the newest window: who owns its end is known with the next
    first_frame = part.first * grid.step_frames
    own_first = seam(first_frame - grid.step_frames, first_frame, grid.length_frames) if part.first else 0
    pieces: list[Waveform] = []  # the newest window, and what follows; joined when the next one is full
    n_pieces = 0  # samples in them
    base = part.first * step  # the sample of the file at which they begin
    next_start = base  # the sample at which the next regular window begins

    def settle(later_start: int) -> tuple[Span, Waveform]:
        nonlocal own_first
        assert held is not None
        first, samples = held
        own_stop = seam(first, later_start // HOP_SAMPLES, grid.length_frames)
        span = Span(first, grid.length_frames, own_first, own_stop)
        own_first = own_stop
        return span, samples

    for block in blocks:
        pieces.append(np.asarray(block, np.float32))
        n_pieces += len(block)
        # A window is regular only once a sample beyond it is known: otherwise it is the last, and moves.
        while (n_beyond := base + n_pieces - next_start - length) > 0:
            if held is not None:
                yield settle(next_start)
            newest = pieces.pop()
            at = len(newest) - n_beyond
            pieces.append(newest[:at])
            pieces[0] = pieces[0][next_start - base :]  # of the window before, what belongs to this one too
            window = np.concatenate(pieces)
            held = next_start // HOP_SAMPLES, window
            # The last window may begin as early as the newest regular one, never before it.
            pieces, n_pieces, base = [window, newest[at:]], length + n_beyond, next_start
            next_start += step
            if part.stop is not None and next_start >= part.stop * step:
                yield settle(next_start)
                return

    n_samples = base + n_pieces
    if n_samples < HOP_SAMPLES or part.stop is not None:
        return
    buffer = np.concatenate(pieces)
    n_frames = count_frames(n_samples)
    first = max(0, n_frames - grid.length_frames)
    tail = reflect_pad(buffer[first * HOP_SAMPLES - base :])
    if held is not None:
        yield settle(first * HOP_SAMPLES)
    yield Span(first, min(n_frames, grid.length_frames), own_first, n_frames), tail
