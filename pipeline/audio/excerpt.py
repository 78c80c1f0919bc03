"""A span of any recording at its own rate and with all its channels, for listening and for pictures.

    with open_excerpt("bells.flac", 3_600.0, 3_610.0) as excerpt:
        excerpt.sample_rate_hz, excerpt.channels, excerpt.is_approximate
        for samples in excerpt.blocks():      # (n, channels) float32, two seconds each, or less
            ...

Times count from the beginning of the container, as everywhere in Earshot, and gaps are silence. wav, flac and their kin
are entered at exactly the wanted sample. Other files are entered by their container or by counting frames
(``seeking_reader``), and nothing long is decoded from its beginning, except chained Ogg.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from itertools import chain

import numpy as np
import numpy.typing as npt
import soxr

from pipeline.audio.channels import Channels
from pipeline.audio.limits import LengthLimit
from pipeline.audio.pieces import check_rate, mean_channels
from pipeline.audio.readers import find_raw, open_exact, without_tag
from pipeline.audio.seeking_reader import Placed, SeekingReader, place
from pipeline.audio.soundfile_reader import SoundfileReader
from pipeline.audio.source import Bytes, Source, file_boundary, resolve_uri, unreadable
from pipeline.audio.timeline import GAP_S
from pipeline.corpus.raw_formats import RawFormat
from pipeline.corpus.time_ranges import TimeRange
from pipeline.errors import FileFailure
from pipeline.heartbeat import beat

Samples = npt.NDArray[np.float32]
"""Samples (n, channels) of full scale 1."""

_SILENT_SAMPLES = 1 << 16
"""Gaps become blocks of at most so many samples."""


class Excerpt(AbstractContextManager["Excerpt"]):
    """An open span of a recording: a context manager, made by ``open_excerpt`` or ``open_span``."""

    def __init__(self, source: Bytes, span: TimeRange, raw: RawFormat | None) -> None:
        self._source = source
        self._sound = without_tag(source)
        headerless = find_raw(self._sound, raw)
        exact = None if headerless else open_exact(self._sound)
        self._reader: SoundfileReader | SeekingReader = exact or SeekingReader(self._sound, headerless)
        self._limit = LengthLimit(source.size_bytes, None)
        self.codec = self._reader.info.codec
        try:
            self._begin(span)
        except BaseException:
            self._reader.close()
            raise

    def _begin(self, span: TimeRange) -> None:
        begin_s = span.start_s or 0.0
        info, reader = self._reader.info, self._reader
        if isinstance(reader, SoundfileReader):
            found = self._exact_parts(reader, begin_s)
        else:
            found = reader.parts_from(begin_s)
        first = next(found, None)
        self._parts = found if first is None else chain([first], found)
        # The header of aac may state half of its rate, and one channel of two.
        self.sample_rate_hz, self.channels = info.sample_rate_hz, info.channels
        if first is not None:
            self.sample_rate_hz, self.channels = first[1][0], len(first[1][1])
        check_rate(self.sample_rate_hz)
        self._first = round(begin_s * self.sample_rate_hz)
        self._stop = None if span.end_s is None else round(span.end_s * self.sample_rate_hz)
        if first is None and begin_s:
            raise self._out_of_range()

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the decoder, and the file if this excerpt opened it."""
        self._reader.close()
        self._source.close()

    @property
    def is_approximate(self) -> bool:
        """Whether a whole decode may have the first sample at another time."""
        return isinstance(self._reader, SeekingReader) and not self._reader.is_certain

    @property
    def is_entered(self) -> bool:
        """Whether little that lies before the span is decoded."""
        return isinstance(self._reader, SoundfileReader) or self._reader.is_entered

    @property
    def n_samples(self) -> int | None:
        """How many samples the span has, as far as the header of the recording tells; None if it does not.

        It may be wrong where the header is, and so may ``blocks`` yield fewer samples.
        """
        if isinstance(self._reader, SoundfileReader):
            in_all = self._reader.n_samples
        else:
            stated_s = self._reader.info.expected_duration_s
            in_all = None if stated_s is None else round(stated_s * self.sample_rate_hz)
        ends = [stop for stop in (in_all, self._stop) if stop is not None]
        return max(0, min(ends) - self._first) if ends else None

    def blocks(self) -> Iterator[Samples]:
        """Yield the samples as blocks (n, channels), float32, not clipped; once. What is not finite is silence.

        They end with the recording, where the span would go on.

        Raises:
            FileFailure: at the faulty place, if the file can be read no longer; damaged sound is left out or silent.
                ``out_of_range`` if the recording ends before the span, and its header did not tell so.
        """
        at: int | None = None
        gaps = _Gaps(self._has_room, self.sample_rate_hz)
        fit = _Fitter(self.sample_rate_hz, self.channels)
        with file_boundary(self._source):
            for begin_s, part in self._parts:
                if self._source.error is not None:
                    raise unreadable(self._source.error)
                values = fit(part)
                begin = round(begin_s * self.sample_rate_hz)
                if at is None:
                    at = min(begin, self._first)
                begin = at + gaps.measure(begin - at, at)
                self._limit.check(max(0, self._end_of(begin) - self._first) / self.sample_rate_hz)
                yield from self._silence(at, begin)
                wanted = values[max(0, self._first - begin) : self._left(begin)]
                if len(wanted):
                    yield wanted
                at = begin + len(values)
                self._limit.check(max(0, at - self._first) / self.sample_rate_hz)
                beat()
                if self._stop is not None and at >= self._stop:
                    return
            if self._first and (at is None or at <= self._first):
                raise self._out_of_range()

    def read(self) -> Samples:
        """The samples (n, channels) of a short span."""
        blocks = list(self.blocks())
        return np.concatenate(blocks) if blocks else np.empty((0, self.channels), np.float32)

    def _out_of_range(self) -> FileFailure:
        return FileFailure("decode", "out_of_range", f"nothing from {self._first / self.sample_rate_hz:.3f} s on")

    def _has_room(self, gap_s: float, at_s: float, filled_s: float) -> bool:
        reader = self._reader
        return not isinstance(reader, SeekingReader) or reader.has_room(gap_s, at_s, filled_s)

    def _end_of(self, stop: int) -> int:
        return stop if self._stop is None else min(stop, self._stop)

    def _left(self, at: int) -> int | None:
        """How many samples of the span lie behind ``at``; None for all."""
        return None if self._stop is None else max(0, self._stop - at)

    def _silence(self, begin: int, stop: int) -> Iterator[Samples]:
        begin, stop = max(begin, self._first), self._end_of(stop)
        for at in range(begin, stop, _SILENT_SAMPLES):
            yield np.zeros((min(_SILENT_SAMPLES, stop - at), self.channels), np.float32)

    def _exact_parts(self, reader: SoundfileReader, begin_s: float) -> Iterator[Placed]:
        """The parts from exactly the wanted sample on. Where libsndfile fails, FFmpeg goes on."""
        rate_hz = reader.info.sample_rate_hz
        first = round(begin_s * rate_hz)
        if reader.n_samples is not None and first >= reader.n_samples > 0:
            message = f"nothing from {begin_s:.3f} s on: the recording lasts {reader.n_samples / rate_hz:.3f} s"
            raise FileFailure("decode", "out_of_range", message)
        if first == 0 or reader.seek(first):
            yield from place(reader.parts(), first / rate_hz)
            if not reader.stopped_short():
                return
            first = max(first, reader.n_read)
        reader.close()
        try:
            self._reader = SeekingReader(self._sound)
        except FileFailure:  # the rest is lost
            self._reader = reader
            return
        yield from _leave_out(self._reader.parts_from(first / rate_hz), first / rate_hz)


def open_excerpt(uri: str, start_s: float = 0.0, end_s: float | None = None) -> Excerpt:
    """Open a span of a recording.

    Args:
        uri: a path or URL, a member of a shard (``shard.tar#member``), or a time range (``file.wav#t=10,20``), in which
            the other two count from its start.
        start_s, end_s: the span in seconds; by default, from the beginning and to the end.

    Raises:
        FileFailure: stage ``read``: ``vanished`` or ``unreadable``; stage ``decode``: ``empty``, ``not_audio``,
            ``no_audio_stream``, ``unsupported``, ``decode_error``, or ``out_of_range`` where the recording ends before.
    """
    place_, time_range, raw = resolve_uri(uri)
    return open_span(place_, time_range.narrow(start_s, end_s), raw)


def open_span(source: Source, span: TimeRange = TimeRange(), raw: RawFormat | None = None) -> Excerpt:
    """Open a span of a path, a place in a shard, or a binary file object. Raises as ``open_excerpt``.

    Args:
        raw: how to read it if it has no header.
    """
    file = Bytes(source)
    try:
        with file_boundary(file):
            return Excerpt(file, span, raw)
    except BaseException:
        file.close()
        raise


def _leave_out(parts: Iterator[Placed], until_s: float) -> Iterator[Placed]:
    """The parts without what begins before."""
    for begin_s, (rate_hz, values) in parts:
        n = max(0, round((until_s - begin_s) * rate_hz))
        if n < values.shape[1]:
            yield begin_s + n / rate_hz, (rate_hz, values[:, n:])


class _Gaps:
    """How much silence comes before a part that its time places ahead of the samples so far, as a whole decode has it.

    A part whose gap would be too long follows without silence, and so do those behind it.
    """

    def __init__(self, has_room: Callable[[float, float, float], bool], sample_rate_hz: int) -> None:
        self._has_room, self._rate_hz = has_room, sample_rate_hz
        self._filled = self._skipped = 0

    def measure(self, ahead: int, at: int) -> int:
        """The samples of silence. Args: ``ahead``: how far the part is ahead. ``at``: the samples so far."""
        least = GAP_S * self._rate_hz
        if ahead > self._skipped - least:
            ahead -= self._skipped
        if ahead <= least:
            return 0
        if not self._has_room(ahead / self._rate_hz, at / self._rate_hz, self._filled / self._rate_hz):
            self._skipped += ahead
            return 0
        self._filled += ahead
        return ahead


class _Fitter:
    """Turns parts of any rate and number of channels into blocks of one."""

    def __init__(self, sample_rate_hz: int, channels: int) -> None:
        self._rate_hz, self._channels = sample_rate_hz, channels

    def __call__(self, part: Channels) -> Samples:
        rate_hz, values = part
        check_rate(rate_hz)
        if len(values) == self._channels:
            samples = np.stack([mean_channels(values[number : number + 1]) for number in range(len(values))], axis=1)
        else:  # another link of a chain
            samples = np.repeat(mean_channels(values)[:, None], self._channels, axis=1)
        if rate_hz != self._rate_hz:
            samples = np.asarray(soxr.resample(samples, rate_hz, self._rate_hz))
        if not np.isfinite(samples).all():
            samples = np.nan_to_num(samples, nan=0.0, posinf=0.0, neginf=0.0)
        return np.asarray(samples, np.float32)
