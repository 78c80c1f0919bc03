"""A part of a recording as the decoder gives it: mono blocks at 48 kHz, without decoding all that lies before.

    with open_part("bells.mp3", 39_600.0, 39_610.0) as part:
        part.is_quick
        for block in part.blocks():      # (samples,) float32
            ...

The decoder itself enters wav, flac and their kin. Other files are entered as an excerpt (``excerpt``), and resampled as
the decoder does. Where that would be approximate, or cannot be, all of the file up to the part is decoded.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import numpy as np
import soxr

from pipeline.audio.decode import AudioStream, begins_anywhere, open_audio
from pipeline.audio.excerpt import Excerpt, Samples, open_span
from pipeline.audio.pieces import mean_channels
from pipeline.audio.seeking_reader import FIRST_S, PREROLL_S
from pipeline.audio.source import resolve_uri
from pipeline.config import DecodeConfig
from pipeline.corpus.time_ranges import TimeRange
from pipeline.errors import FileFailure
from pipeline.grid import SAMPLE_RATE_HZ, Waveform, samples_to_seconds

POSTROLL_S = 1
"""How much is decoded behind the part: many times the length of the resampler's filter."""


class Part(AbstractContextManager["Part"]):
    """An open part of a recording: a context manager, made by ``open_part``."""

    def __init__(self, stream: AudioStream, span: TimeRange, config: DecodeConfig) -> None:
        self._stream, self._config = stream, config
        self._first, self._stop = span.samples
        self._excerpt: Excerpt | None = None
        self._begin_s = 0
        self._channel: int | None = None

    def enter(self, open_from: Callable[[float], Excerpt]) -> None:
        """Let an excerpt find the part, if the decoder cannot: ``open_from`` opens it from a second on."""
        first_s = samples_to_seconds(self._first)
        if first_s <= FIRST_S or self._stream.n_samples is not None:
            return
        # At whole seconds, the samples of every rate coincide with those at 48 kHz.
        self._begin_s = int(first_s - PREROLL_S)
        excerpt = open_from(self._begin_s)
        if excerpt.is_approximate or not excerpt.is_entered or not begins_anywhere(excerpt.sample_rate_hz):
            excerpt.close()
            return
        self._excerpt = excerpt
        self._channel = self._stream.decide_channels() if excerpt.channels == 2 else None

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the files."""
        self._stream.close()
        if self._excerpt is not None:
            self._excerpt.close()

    @property
    def is_quick(self) -> bool:
        """Whether little that lies before the part is decoded."""
        is_near = samples_to_seconds(self._first) <= FIRST_S
        return is_near or self._stream.n_samples is not None or self._excerpt is not None

    def blocks(self, look: Callable[[], object] = lambda: None) -> Iterator[Waveform]:
        """Yield the part as blocks (samples,) at 48 kHz; once. Samples are those of a whole decode, up to rounding.

        Args:
            look: called for each block, also of those that lie before the part. What it raises ends the work.

        Raises:
            FileFailure: as ``AudioStream.blocks`` and ``Excerpt.blocks``.
        """
        at = 0
        if self._excerpt is not None:
            at, found = self._begin_s * SAMPLE_RATE_HZ, self._resample(self._excerpt.blocks())
        elif self._stream.n_samples is not None:
            at, found = self._first, self._stream.blocks(self._first, self._stop)
        else:
            found = self._stream.blocks(0, self._stop)
        for block in found:
            look()
            wanted = block[max(0, self._first - at) : None if self._stop is None else max(0, self._stop - at)]
            at += len(block)
            if len(wanted):
                yield wanted
        if self._first and at <= self._first:
            begin_s, end_s = samples_to_seconds(self._first), samples_to_seconds(at)
            message = f"nothing from {begin_s:.3f} s on: the recording lasts {end_s:.3f} s"
            raise FileFailure("decode", "out_of_range", message)

    def _resample(self, blocks: Iterator[Samples]) -> Iterator[Waveform]:
        """Blocks (n, channels) of the excerpt as the decoder mixes and resamples them."""
        assert self._excerpt is not None
        rate_hz = self._excerpt.sample_rate_hz
        is_resampled = rate_hz != SAMPLE_RATE_HZ
        quality = self._config.resampler
        resampler = soxr.ResampleStream(rate_hz, SAMPLE_RATE_HZ, 1, quality=quality) if is_resampled else None
        for samples in blocks:
            mono = mean_channels(samples.T) if self._channel is None else samples[:, self._channel]
            yield mono if resampler is None else resampler.resample_chunk(mono)
        if resampler is not None:
            yield resampler.resample_chunk(np.empty(0, np.float32), last=True)


def open_part(uri: str, start_s: float = 0.0, end_s: float | None = None, config: DecodeConfig | None = None) -> Part:
    """Open a part of a recording.

    Args:
        uri: a path or URL, a member of a shard, or a time range, in which the other two count from its start.
        start_s, end_s: the part in seconds; by default, from the beginning and to the end.

    Raises:
        FileFailure: as ``open_audio`` and ``open_excerpt``.
    """
    place, time_range, raw = resolve_uri(uri)
    span, settings = time_range.narrow(start_s, end_s), config or DecodeConfig()
    part = Part(open_audio(place, settings, raw), span, settings)
    try:
        stop_s = None if span.end_s is None else span.end_s + POSTROLL_S
        part.enter(lambda begin_s: open_span(place, TimeRange(begin_s, stop_s), raw))
    except BaseException:
        part.close()
        raise
    return part


def is_quick(uri: str, start_s: float) -> bool:
    """Whether a part of a recording that begins at ``start_s`` is decoded without all that lies before.

    Raises:
        FileFailure: as ``open_part``.
    """
    _, time_range, _ = resolve_uri(uri)
    if samples_to_seconds(time_range.narrow(start_s, None).samples[0]) <= FIRST_S:
        return True
    with open_part(uri, start_s) as part:
        return part.is_quick
