"""Spectrograms of any span at any size: samples in, levels in decibels out.

A pixel shows the loudest moment of its time and the loudest part of its band. So a click of a millisecond stays visible
where an hour is one picture. Long spans are read in blocks and never held as a whole. Of half a day, short parts can be
drawn instead (``sample_spectrogram``): decoding all of it would take minutes.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import takewhile

import numpy as np
import numpy.typing as npt

from pipeline.audio.excerpt import Samples, open_excerpt
from pipeline.errors import FileFailure, UsageError

FLOOR_DB = -140.0
"""The level of silence. 0 dB is a sine of full scale."""

MOST_PIXELS = 8_192
"""Of a side."""

PART_S, MOST_PARTS = 0.25, 512
"""Of a span that is sampled: the length of the parts that are read, and their greatest number. Each has to be found."""

_SHORTEST_S, _LONGEST_S = 0.004, 0.1
"""Lengths of the analysis window ..."""

_PIXELS_WIDE, _PIXELS_HIGH = 4.0, 2.0
"""... which may blur a sound over so many pixels of time, and over so many of frequency."""

_FARTHEST = 0.6
"""Windows lie this far apart at most, in their lengths: a click between two of them still shows, 9 dB weaker."""

_CHUNK_SAMPLES, _CHUNK_VALUES = 1 << 18, 1 << 17
"""So much of the sound, and so many values of windows, are transformed at a time: more would not stay in the cache."""


@dataclass(frozen=True, slots=True)
class View:
    """The size of a picture in pixels, and the band that it shows; ``high_hz`` is half the sample rate by default.

    Raises:
        UsageError: a value out of range.
    """

    width: int
    height: int
    low_hz: float = 0.0
    high_hz: float | None = None

    def __post_init__(self) -> None:
        for name in ("width", "height"):
            if not 1 <= getattr(self, name) <= MOST_PIXELS:
                raise UsageError(f"{name}: {getattr(self, name)} is not a number of pixels from 1 to {MOST_PIXELS:,}")
        if not 0.0 <= self.low_hz < (math.inf if self.high_hz is None else self.high_hz):
            raise UsageError(f"from {self.low_hz} to {self.high_hz} Hz: not a band")

    def band(self, sample_rate_hz: int) -> tuple[float, float]:
        """The lowest and the highest frequency, in hertz. Above half the sample rate, there is nothing to see."""
        high_hz = sample_rate_hz / 2 if self.high_hz is None else self.high_hz
        return min(self.low_hz, high_hz), high_hz


@dataclass(frozen=True, slots=True, eq=False)
class Spectrogram:
    """Levels in decibels, float32 (height, width): the first row is the highest band, the first column the earliest.

    ``is_approximate`` tells that the times may be somewhat wrong (``audio.excerpt``), ``is_sampled`` that only parts of
    the span were read.
    """

    levels_db: npt.NDArray[np.float32]
    start_s: float
    end_s: float
    low_hz: float
    high_hz: float
    is_approximate: bool = False
    is_sampled: bool = False


def read_spectrogram(
    uri: str, start_s: float, end_s: float, view: View, stop: Callable[[], bool] = lambda: False
) -> Spectrogram:
    """The spectrogram of a span of a recording. What lies behind its end is silent.

    Args:
        uri: as for ``open_excerpt``. stop: looked at while a long span is read; the rest is silent once it is true.

    Raises:
        UsageError: the span ends before it begins. FileFailure: as ``open_excerpt``, and where the file breaks off.
    """
    _check_span(start_s, end_s)
    begin_s = max(0.0, start_s - _LONGEST_S)  # windows at the edges need what lies behind them
    with open_excerpt(uri, begin_s, end_s + _LONGEST_S) as excerpt:
        rate_hz = excerpt.sample_rate_hz
        lead, n_samples = round(start_s * rate_hz) - round(begin_s * rate_hz), round((end_s - start_s) * rate_hz)
        levels_db = measure_levels(
            takewhile(lambda _: not stop(), excerpt.blocks()), lead, max(1, n_samples), rate_hz, view
        )
        low_hz, high_hz = view.band(rate_hz)
        return Spectrogram(levels_db, start_s, end_s, low_hz, high_hz, excerpt.is_approximate)


def sample_spectrogram(
    uri: str, start_s: float, end_s: float, view: View, stop: Callable[[], bool] = lambda: False
) -> Spectrogram:
    """The spectrogram of a long span of which short parts are read, evenly spaced: what sounds in between is not seen.

    A file in which no part is found without decoding all that lies before is read as a whole.

    Args:
        uri, stop: as for ``read_spectrogram``.

    Raises:
        UsageError, FileFailure: as ``read_spectrogram``.
    """
    _check_span(start_s, end_s)
    with open_excerpt(uri, (start_s + end_s) / 2) as excerpt:
        is_entered = excerpt.is_entered
    if not is_entered:
        return read_spectrogram(uri, start_s, end_s, view, stop)
    n_parts = min(view.width, MOST_PARTS)
    middles_s = start_s + (np.arange(n_parts) + 0.5) * (end_s - start_s) / n_parts
    levels_db = np.full((view.height, n_parts), FLOOR_DB, np.float32)
    part, is_approximate = None, False
    for number, middle_s in enumerate(middles_s.tolist()):
        begin_s = max(start_s, middle_s - PART_S / 2)
        try:
            part = read_spectrogram(uri, begin_s, begin_s + PART_S, replace(view, width=1))
        except FileFailure as failure:
            if failure.reason != "out_of_range" or part is None:
                raise
            break  # the recording ends before its header says so: the rest is silent
        levels_db[:, number] = part.levels_db[:, 0]
        is_approximate |= part.is_approximate
        if stop():
            break
    assert part is not None
    shown = levels_db[:, np.arange(view.width) * n_parts // view.width]
    return Spectrogram(shown, start_s, end_s, part.low_hz, part.high_hz, is_approximate, is_sampled=True)


def measure_levels(
    blocks: Iterable[Samples], lead: int, n_samples: int, sample_rate_hz: int, view: View
) -> npt.NDArray[np.float32]:
    """The levels (height, width) in decibels of ``n_samples`` samples.

    Args:
        blocks: samples (n, channels), in blocks of any size; channels are added by their energy.
        lead: how many samples of them come before the span.
    """
    n_window = _choose_window(n_samples / sample_rate_hz, sample_rate_hz, view)
    windows = _Windows(n_window, n_samples, view.width)
    rows = _Rows(n_window, sample_rate_hz, view)
    levels_db = np.full((view.width, view.height), FLOOR_DB, np.float32)
    held, at, number = np.zeros((0, 0), np.float32), -lead, 0
    for block in _with_end(blocks, n_window):
        if held.shape[1] != block.shape[1]:  # the first block
            n_missing = max(0, at - windows.begin(0))
            held, at = np.zeros((n_missing, block.shape[1]), np.float32), at - n_missing
        held = np.concatenate([held, block])
        ready = windows.count_until(at + len(held))
        while number < ready:
            stop = min(ready, number + windows.at_once)
            begins = windows.begins(number, stop)
            columns, powers = windows.pool(number, stop, _measure_power(held, begins - at, n_window))
            levels_db[columns] = np.maximum(levels_db[columns], rows.level(powers))
            number = stop
        n_done = min(len(held), max(0, windows.begin(number) - at))
        held, at = held[n_done:], at + n_done
        if number >= windows.n:
            break
    return np.ascontiguousarray(levels_db.T[::-1])


def _choose_window(duration_s: float, sample_rate_hz: int, view: View) -> int:
    """Samples of the analysis window: a power of two that suits the size of a pixel in time and in frequency."""
    low_hz, high_hz = view.band(sample_rate_hz)
    by_time_s = _PIXELS_WIDE * duration_s / view.width
    by_frequency_s = _PIXELS_HIGH * view.height / max(high_hz - low_hz, 1.0)
    wanted_s = min(max(min(by_time_s, by_frequency_s), _SHORTEST_S), _LONGEST_S)
    return int(2 ** max(5, round(math.log2(wanted_s * sample_rate_hz))))


def _with_end(blocks: Iterable[Samples], n_window: int) -> Iterator[Samples]:
    """The blocks, and silence behind the last one for the windows that reach over the end."""
    channels = 0
    for block in blocks:
        channels = block.shape[1]
        yield block
    if channels:
        yield np.zeros((n_window, channels), np.float32)


class _Windows:
    """Analysis windows, evenly spaced: so many for each column that every sample lies near the middle of one."""

    def __init__(self, n_window: int, n_samples: int, width: int) -> None:
        self._n_window, self._n_samples = n_window, n_samples
        self._per_column = max(1, math.ceil(n_samples / width / (_FARTHEST * n_window)))
        self.n = width * self._per_column
        step = max(1, n_samples // self.n)
        self.at_once = max(1, min(_CHUNK_VALUES // n_window, _CHUNK_SAMPLES // step))

    def begins(self, first: int, stop: int) -> npt.NDArray[np.int64]:
        """Where windows begin, in samples from the beginning of the span: each has its middle at its own time."""
        middles = (2 * np.arange(first, stop, dtype=np.int64) + 1) * self._n_samples // (2 * self.n)
        return middles - self._n_window // 2

    def begin(self, number: int) -> int:
        return int(self.begins(number, number + 1)[0])

    def count_until(self, at: int) -> int:
        """How many windows end at or before ``at``."""
        last_middle = at - self._n_window + self._n_window // 2
        if last_middle < 0:
            return 0
        n = min(self.n, ((2 * last_middle + 2) * self.n - 1) // (2 * self._n_samples) + 2)
        while n and self.begin(n - 1) + self._n_window > at:
            n -= 1
        return n

    def pool(self, first: int, stop: int, powers: npt.NDArray[np.float32]) -> tuple[slice, npt.NDArray[np.float32]]:
        """The columns that these windows belong to, and the largest power of each band in each (columns, bands)."""
        column = first // self._per_column
        starts = np.arange(column, (stop - 1) // self._per_column + 1) * self._per_column - first
        return slice(column, column + len(starts)), np.maximum.reduceat(powers, starts.clip(0), axis=0)


def _measure_power(samples: Samples, begins: npt.NDArray[np.int64], n_window: int) -> npt.NDArray[np.float32]:
    """The power of each band (windows, bands): 1 for a sine of full scale; the mean of the channels."""
    shape = np.hanning(n_window + 1)[:-1].astype(np.float32)
    shape *= np.float32(2 / shape.sum())
    by_channel = np.ascontiguousarray(samples[begins[0] : begins[-1] + n_window].T)
    cut = np.lib.stride_tricks.sliding_window_view(by_channel, n_window, axis=1)[:, begins - begins[0]]
    bands = np.fft.rfft(cut * shape)  # (channels, windows, bands)
    powers = np.square(bands.real) + np.square(bands.imag)
    return np.asarray(powers[0] if len(powers) == 1 else powers.mean(axis=0), np.float32)


class _Rows:
    """The bands of a transform as the rows of a picture, from low to high."""

    def __init__(self, n_window: int, sample_rate_hz: int, view: View) -> None:
        low_hz, high_hz = view.band(sample_rate_hz)
        band_hz = sample_rate_hz / n_window
        edges = np.linspace(low_hz, high_hz, view.height + 1) / band_hz
        n_bands = n_window // 2 + 1
        self._is_pooled = (high_hz - low_hz) / view.height >= band_hz
        if self._is_pooled:
            self._starts = np.floor(edges[:-1] + 0.5).astype(np.int64)
            self._stop = max(int(np.floor(edges[-1] + 0.5)), int(self._starts[-1]) + 1)
            self._is_seen = self._starts < n_bands
        else:
            middles = (edges[:-1] + edges[1:]) / 2
            self._lower = np.minimum(middles.astype(np.int64), n_bands - 2)
            self._share = (middles - self._lower).clip(0, 1).astype(np.float32)
            self._is_seen = middles <= n_bands - 1

    def level(self, powers: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """The levels (n, height) in decibels, from powers (n, bands)."""
        bands_db = 10 * np.log10(np.maximum(powers, np.float32(10 ** (FLOOR_DB / 10))))
        if self._is_pooled:
            levels_db = np.full((len(powers), len(self._starts)), FLOOR_DB, np.float32)
            seen = self._starts[self._is_seen]
            levels_db[:, self._is_seen] = np.maximum.reduceat(bands_db[:, : self._stop], seen, axis=1)
            return levels_db
        lower, upper = bands_db[:, self._lower], bands_db[:, self._lower + 1]
        return np.where(self._is_seen, lower + (upper - lower) * self._share, np.float32(FLOOR_DB))


def _check_span(start_s: float, end_s: float) -> None:
    if not 0.0 <= start_s < end_s < math.inf:
        raise UsageError(f"from {start_s} to {end_s} s: not a span")
