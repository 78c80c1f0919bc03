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
from typing import NamedTuple

from pipeline.audio.decode import AudioStream, begins_anywhere, open_audio, resample_pieces
from pipeline.audio.excerpt import Excerpt, open_span
from pipeline.audio.pieces import Piece, mean_channels
from pipeline.audio.seeking_reader import FIRST_S, PREROLL_S
from pipeline.audio.source import resolve_uri
from pipeline.config import DecodeConfig
from pipeline.corpus.time_ranges import TimeRange
from pipeline.errors import FileFailure
from pipeline.grid import SAMPLE_RATE_HZ, Waveform, samples_to_seconds

POSTROLL_S = 1
"""How much is decoded behind the part: many times the length of the resampler's filter."""


class Entered(NamedTuple):
    """An excerpt that holds the part, and the second at which it begins. At a whole one, the samples of every rate
    coincide with those at 48 kHz."""

    begin_s: int
    excerpt: Excerpt


class Part(AbstractContextManager["Part"]):
    """An open part of a recording: a context manager, made by ``open_part``."""

    def __init__(self, stream: AudioStream, span: TimeRange, config: DecodeConfig, entered: Entered | None) -> None:
        self._stream, self._config, self._entered = stream, config, entered
        self._first, self._stop = span.samples

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the files."""
        self._stream.close()
        if self._entered is not None:
            self._entered.excerpt.close()

    @property
    def is_quick(self) -> bool:
        """Whether little that lies before the part is decoded."""
        is_near = samples_to_seconds(self._first) <= FIRST_S
        return is_near or self._stream.n_samples is not None or self._entered is not None

    def blocks(self, look: Callable[[], object] = lambda: None) -> Iterator[Waveform]:
        """Yield the part as blocks (samples,) at 48 kHz; once. Samples are those of a whole decode, up to rounding.

        Args:
            look: called for each block, also of those that lie before the part. What it raises ends the work.

        Raises:
            FileFailure: as ``AudioStream.blocks`` and ``Excerpt.blocks``.
        """
        at = 0
        if self._entered is not None:
            at = self._entered.begin_s * SAMPLE_RATE_HZ
            found = resample_pieces(self._mix(self._entered.excerpt), self._config.resampler)
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

    def _mix(self, excerpt: Excerpt) -> Iterator[Piece]:
        """What an excerpt holds, mixed as the decoder does."""
        channel = self._stream.decide_channels() if excerpt.channels == 2 else None
        for samples in excerpt.blocks():
            yield excerpt.sample_rate_hz, mean_channels(samples.T) if channel is None else samples[:, channel]


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
    stream = open_audio(place, settings, raw)
    try:
        stop_s = None if span.end_s is None else span.end_s + POSTROLL_S
        entered = _enter(stream, span, lambda at: open_span(place, TimeRange(at, stop_s), raw))
        return Part(stream, span, settings, entered)
    except BaseException:
        stream.close()
        raise


def _enter(stream: AudioStream, span: TimeRange, open_from: Callable[[float], Excerpt]) -> Entered | None:
    """An excerpt that finds the part exactly, where the decoder cannot; ``open_from`` opens it from a second on."""
    first_s = samples_to_seconds(span.samples[0])
    if first_s <= FIRST_S or stream.n_samples is not None:
        return None
    begin_s = int(first_s - PREROLL_S)
    excerpt = open_from(begin_s)
    if excerpt.is_approximate or not excerpt.is_entered or not begins_anywhere(excerpt.sample_rate_hz):
        excerpt.close()
        return None
    return Entered(begin_s, excerpt)


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
