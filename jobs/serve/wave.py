"""A span of a recording as a WAV file that is never made as a whole: each of its bytes is computed when asked for.

16 bits, at most two channels: of more, the mean, which is what the models hear. Rates above 48 kHz are divided by a
whole number after a low-pass. With ``expand``, all samples stay and the header states a lower rate, so that ultrasound
is played slowly, and heard.
"""

import math
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from jobs.serve.closing import Closing
from pipeline.errors import FileFailure
from pipeline.search.stopping import until_stopped

Samples = npt.NDArray[np.float32]

HEADER_BYTES, MAX_BYTES = 44, 2**32 - 1
"""The sizes in a header have 32 bits, so the file ends before 4.3 GB."""

MAX_RATE_HZ = 48_000
TAPS_PER_STEP = 24
"""Of the low-pass, on each side of a sample of the lower rate."""


class Excerpt(Protocol):
    """The part of ``pipeline.audio.excerpt.Excerpt`` that is used here."""

    sample_rate_hz: int
    channels: int

    @property
    def is_approximate(self) -> bool: ...
    def blocks(self) -> Iterator[Samples]: ...
    def close(self) -> None: ...


OpenExcerpt = Callable[[float, float | None], Excerpt]
"""Opens a recording from ``start_s`` to ``end_s``."""


@dataclass(frozen=True)
class Wave:
    """The file: what its header states, and which samples of the recording it has.

    ``first`` .. ``first + n_samples - 1`` at the recording's rate, ``step`` of which become one.
    """

    native_rate_hz: int
    native_channels: int
    first: int
    n_native: int
    step: int
    rate_hz: int

    @property
    def channels(self) -> int:
        return self.native_channels if self.native_channels <= 2 else 1

    @property
    def n_samples(self) -> int:
        return -(-self.n_native // self.step)

    @property
    def sample_bytes(self) -> int:
        return 2 * self.channels

    @property
    def n_bytes(self) -> int:
        return HEADER_BYTES + self.n_samples * self.sample_bytes

    @property
    def header(self) -> bytes:
        n_data, per_sample = self.n_samples * self.sample_bytes, self.sample_bytes
        shape = struct.pack("<HHIIHH", 1, self.channels, self.rate_hz, self.rate_hz * per_sample, per_sample, 16)
        return (
            b"RIFF" + struct.pack("<I", HEADER_BYTES - 8 + n_data) + b"WAVEfmt " + struct.pack("<I", 16) + shape
            + b"data" + struct.pack("<I", n_data)
        )  # fmt: skip


def make_wave(rate_hz: int, channels: int, start_s: float, end_s: float, expand: int = 1) -> Wave:
    """The file of a span of a recording of this rate."""
    first = round(start_s * rate_hz)
    n_native = max(0, round(end_s * rate_hz) - first)
    step = 1 if expand > 1 else choose_step(rate_hz)
    return Wave(rate_hz, channels, first, n_native, step, max(1, round(rate_hz / step / expand)))


def choose_step(rate_hz: int) -> int:
    """By what a rate is divided: one that leaves a whole number of samples a second, if there is any nearby."""
    least = math.ceil(rate_hz / MAX_RATE_HZ)
    return next((step for step in range(least, 2 * least) if rate_hz % step == 0), least)


class WaveStream:
    """The bytes ``first`` .. ``stop - 1`` of a file, piece by piece. Another thread may close it at any time."""

    def __init__(self, wave: Wave, open_excerpt: OpenExcerpt, first: int, stop: int) -> None:
        self._wave, self._closing = wave, Closing(self._end)
        self._left = stop - first
        header = wave.header[first:stop]
        self._pieces: Iterator[bytes] = iter([header]) if header else iter([])
        self._excerpt: Excerpt | None = None
        data_first, data_stop = max(0, first - HEADER_BYTES), stop - HEADER_BYTES
        if data_stop > data_first:
            self._skip = data_first % wave.sample_bytes
            begin, end = data_first // wave.sample_bytes, -(-data_stop // wave.sample_bytes)
            try:
                self._excerpt, samples = open_samples(wave, open_excerpt, begin, end)
            except FileFailure as failure:
                if failure.reason != "out_of_range":
                    raise
                return  # it ends a sample before the stated length, which is rounded
            self._pieces = self._join(header, samples)

    @property
    def is_approximate(self) -> bool:
        return self._excerpt is not None and self._excerpt.is_approximate

    def read(self) -> bytes:
        """The next piece; empty at the end. What the recording lacks of its stated length is silence."""
        with self._closing.reading() as is_open:
            if not is_open or self._left <= 0:
                return b""
            piece = next(self._pieces, None)
            piece = bytes(min(self._left, 1 << 16)) if piece is None else piece[: self._left]
            self._left -= len(piece)
            return piece

    def close(self) -> None:
        self._closing.close()

    def _end(self) -> None:
        if self._excerpt is not None:
            self._excerpt.close()

    def _join(self, header: bytes, samples: Iterator[Samples]) -> Iterator[bytes]:
        if header:
            yield header
        skip = self._skip
        for block in samples:
            data = to_pcm(block, self._wave.channels)[skip:]
            skip = 0
            if data:
                yield data


def open_samples(wave: Wave, open_excerpt: OpenExcerpt, begin: int, end: int) -> tuple[Excerpt, Iterator[Samples]]:
    """The samples ``begin`` .. ``end - 1`` of the file, in blocks."""
    margin = TAPS_PER_STEP * wave.step if wave.step > 1 else 0
    wanted = wave.first + begin * wave.step
    first = max(0, wanted - margin)
    stop = min(wave.first + wave.n_native, wave.first + end * wave.step) + margin
    excerpt = open_excerpt(first / wave.native_rate_hz, stop / wave.native_rate_hz)
    blocks = until_stopped(excerpt.blocks())
    if wave.step > 1:
        blocks = decimate(blocks, wave.step, wanted - first, end - begin)
    return excerpt, blocks


def decimate(blocks: Iterator[Samples], step: int, offset: int, n_samples: int) -> Iterator[Samples]:
    """Every ``step``-th sample after a low-pass: of blocks (n, channels), beginning with the sample ``offset``.

    What each sample becomes depends on its neighbours alone, so that any part of a file equals that of the whole.
    """
    half = TAPS_PER_STEP * step
    taps = np.sinc(np.arange(-half, half + 1) * 0.92 / step) * np.hanning(2 * half + 1)
    taps = (taps / taps.sum()).astype(np.float32)
    held: Samples | None = None
    at = offset - half  # of the first tap, in ``held``
    n_left = n_samples
    for block in chain[Samples | None](blocks, [None]):
        if held is None:
            if block is None:
                return
            held = np.zeros((max(0, -at), block.shape[1]), np.float32)
            at = max(0, at)
        grown = np.zeros((2 * half + 1, held.shape[1]), np.float32) if block is None else block
        held = np.concatenate([held, grown])
        n_ready = min(n_left, (len(held) - at - 2 * half - 1) // step + 1)
        if n_ready > 0:
            found = np.zeros((n_ready, held.shape[1]), np.float32)
            for number, tap in enumerate(taps):
                found += tap * held[at + number : at + number + (n_ready - 1) * step + 1 : step]
            yield found
            n_left -= n_ready
            at += n_ready * step
        if n_left <= 0:
            return
        drop = min(at, len(held))
        held, at = held[drop:], at - drop


def to_pcm(samples: Samples, channels: int) -> bytes:
    """Samples (n, channels) of full scale 1 as 16-bit numbers, clipped."""
    if samples.shape[1] != channels:
        samples = samples.mean(axis=1, keepdims=True, dtype=np.float32)
    clipped: npt.NDArray[Any] = np.clip(np.rint(samples * 32_767), -32_768, 32_767).astype("<i2")
    return clipped.tobytes()
