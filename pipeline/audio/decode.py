"""A file in, a stream of mono 48 kHz float32 blocks out, in bounded memory.

libsndfile (through soundfile) reads the formats that it reads exactly: wav, aiff, flac and their kin. FFmpeg (through
PyAV) reads the rest: mp3, ogg, opus, m4a/aac, webm, and whatever libsndfile refuses or leaves half-read. The first
bytes of a file decide which of the two tries first. Its name counts only if it has no header (``raw``).

Every fault of a file raises ``FileFailure`` and no other exception. Of a damaged file the stream yields the part that
decodes, and ``AudioStream.truncated`` says how much is missing. Nothing is printed.

    with open_audio("bells.flac") as audio:
        for block in audio.blocks():      # (samples,) float32, about two seconds each
            ...
        audio.info.codec, audio.truncated
"""

import math
from collections import deque
from collections.abc import Iterator
from contextlib import AbstractContextManager
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt
import soxr

from pipeline.audio.av_reader import AvReader
from pipeline.audio.limits import LengthLimit
from pipeline.audio.pieces import Piece, mean_channels
from pipeline.audio.readers import without_tag
from pipeline.audio.sound import Sound
from pipeline.audio.soundfile_reader import SoundfileReader
from pipeline.audio.source import Bytes, Source, file_boundary, unreadable
from pipeline.config import DecodeConfig
from pipeline.corpus.raw_formats import RawFormat
from pipeline.errors import FileFailure
from pipeline.grid import SAMPLE_RATE_HZ, Waveform, samples_to_seconds
from pipeline.heartbeat import beat

_PREROLL_S = 1
"""How much is decoded before the wanted second: many times the length of the resampler's filter."""

_KEPT_S = 60
"""How much decoded audio is kept of a file that is not seekable: 12 MB."""

_MOST_PHASES = 2_000
"""The most phases between 48 kHz and the rate of a seekable file. Above some 5,000 soxr interpolates between
phases, and its clock drifts: 60 s into a file of 44,056 Hz, samples are off by 3e-4. 44,100 Hz has 160 phases, 11,025
Hz has 640."""


class AudioStream(AbstractContextManager["AudioStream"]):
    """An open audio file: a context manager, made by ``open_audio``."""

    def __init__(self, source: Bytes, config: DecodeConfig, raw: RawFormat | None, max_hours: float | None) -> None:
        self._source = source
        self._config = config
        self._sound = Sound(without_tag(source), raw)
        self.info = self._reader.info
        self.limit = LengthLimit(source.size_bytes, max_hours)
        self._decoded_s = 0.0
        self._uncounted_s = 0.0  # what lies before the wanted samples, if it need not be decoded
        self._running: Iterator[Waveform] | None = None
        self._at = 0  # the sample that `_running` yields next
        self._kept: deque[Waveform] = deque()  # the newest blocks before that sample
        self._keeps = False
        self._first_s = 0.0
        self._stop_s: float | None = None

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the decoder, and the file if this stream opened it."""
        self._reader.close()
        self._source.close()

    @property
    def note(self) -> str | None:
        """A remark for people on a file that is not faulty. Complete once ``blocks`` is exhausted."""
        return "; ".join(filter(None, [self._reader.note, self._reader.mixer.note])) or None

    def decide_channels(self) -> int | None:
        """Decode as much as tells how the channels are mixed, a minute at most: ``note`` says so then.

        Returns:
            The channel that stands for both where they cancel each other; None for the mean of all.
        """
        if not self._reader.mixer.decided:
            next(self.blocks(), None)
        return self._reader.mixer.channel

    @property
    def is_alone(self) -> bool:
        """Whether the file has no other stream of sound or picture, covers aside."""
        return self._reader.is_alone

    @property
    def n_samples(self) -> int | None:
        """The number of samples at 48 kHz, as far as the header tells; None if the file must be read from its start.

        A number means that the decoder can seek to any sample exactly.
        """
        if not isinstance(self._reader, SoundfileReader) or self._reader.n_samples is None:
            return None
        if not begins_anywhere(self.info.sample_rate_hz):
            return None
        return round(self._reader.n_samples * SAMPLE_RATE_HZ / self.info.sample_rate_hz)

    def blocks(self, first: int = 0, stop: int | None = None, *, exactly: bool = False) -> Iterator[Waveform]:
        """Yield the file as mono float32 blocks (samples,) at 48 kHz: the mean of its channels, not clipped.

        Args:
            first, stop: only the samples from ``first`` to the one before ``stop``, equal to those of the whole file up
                to rounding. The stream decodes nothing behind them, and little before them if ``n_samples`` is known.
                A second call may ask only for samples that the stream ``reaches``.
            exactly: raise a failure if the decoder stops short of the end of the file.

        Raises:
            FileFailure: ``not_finite``, ``decode_error``, ``too_short`` (a header without samples), ``too_long``,
                ``unsupported``, ``unreadable``, raised at the faulty place. ``out_of_range``: the file ends before
                ``first``.
        """
        with file_boundary(self._source):
            if first and self.n_samples is not None and first >= self.n_samples and not self._sound.is_joined:
                raise self._out_of_range(first, self.n_samples)
            self._first_s, self._stop_s = samples_to_seconds(first), None if stop is None else samples_to_seconds(stop)
            if self._running is None:
                self._check_length(first, stop)
                self._keeps = self.n_samples is None and (first > 0 or stop is not None)
                self._at = self._go_to(first)
                self._running = resample_pieces(
                    self._checked(self._sound.pieces(exactly=exactly)), self._config.resampler
                )
            at, n_given = self._oldest, 0
            for block in chain(tuple(self._kept), self._go_on()):
                wanted = block[max(0, first - at) : None if stop is None else max(0, stop - at)]
                at += len(block)
                if len(wanted):
                    n_given += len(wanted)
                    self.limit.check(samples_to_seconds(n_given))
                    yield wanted
                if stop is not None and at >= stop:
                    return
            if not self._decoded_s:
                raise self._nothing()
            if first and at <= first:
                raise self._out_of_range(first, at)

    def reaches(self, first: int) -> bool:
        """Whether ``blocks``, called once already, can go on to this sample, or back to one that is still kept.

        False if the decoder can seek: samples after a seek are equal up to rounding only.
        """
        return self._keeps and self._running is not None and self._oldest <= first

    @property
    def _oldest(self) -> int:
        return self._at - sum(map(len, self._kept))

    def _go_on(self) -> Iterator[Waveform]:
        """Decode and yield the following blocks."""
        while self._running is not None:
            try:
                block = next(self._running, None)
            except BaseException:
                self._running = None
                raise
            if block is None:
                return
            self._at += len(block)
            if self._keeps:
                self._kept.append(block)
                while self._at - self._oldest - len(self._kept[0]) >= _KEPT_S * SAMPLE_RATE_HZ:
                    self._kept.popleft()
            yield block

    def _go_to(self, first: int) -> int:
        """Seek to a place shortly before this sample, if possible. Returns the sample that decoding goes on with."""
        if self.n_samples is None:
            return 0
        before_s = max(0, first // SAMPLE_RATE_HZ - _PREROLL_S)
        # At whole seconds, the samples of every rate coincide with those at 48 kHz.
        if before_s and not self._exact_reader.seek(before_s * self.info.sample_rate_hz):
            return 0
        self._decoded_s, self._uncounted_s = float(before_s), samples_to_seconds(first)
        return before_s * SAMPLE_RATE_HZ

    def _check_length(self, first: int, stop: int | None) -> None:
        """Refuse a sound that is too long before anything of it is decoded, if it can be sought in.

        A header that promises too much, and a file that is cut off, are no reason.
        """
        if self.n_samples is None:
            return
        try:
            self.limit.check(samples_to_seconds(min(self.n_samples, stop or self.n_samples) - first))
        except FileFailure:
            if self.ends_as_promised():
                raise

    def ends_as_promised(self) -> bool:
        """Whether the last second decodes. Needs ``n_samples``; the stream then begins at its first sample again."""
        with file_boundary(self._source):
            reader = self._exact_reader
            found = reader.seek(max(0, (reader.n_samples or 0) - self.info.sample_rate_hz))
            for _ in reader.pieces() if found else ():
                pass
            is_whole = found and not reader.stopped_short()
            reader.trouble = None
            reader.seek(0)
            return is_whole

    @property
    def _reader(self) -> SoundfileReader | AvReader:
        return self._sound.reader

    @property
    def _exact_reader(self) -> SoundfileReader:
        if not isinstance(self._reader, SoundfileReader):
            raise ValueError("this file is not seekable exactly")
        return self._reader

    @property
    def truncated(self) -> str | None:
        """After ``blocks`` is exhausted: None, or one line on how much of the wanted samples is missing."""
        expected_s = self.info.expected_duration_s if self._stop_s is None else self._stop_s
        if expected_s is not None and expected_s - self._decoded_s > self.info.tolerance_s:
            found = f"{self._decoded_s:.3f} s decoded of {expected_s:.3f} s"
            why = self._sound.trouble or (self._reader.shortfall if isinstance(self._reader, SoundfileReader) else None)
            return f"{found}: {why}" if why else found
        if not self._first_s and self._stop_s is None:
            return self._sound.trouble
        return self._sound.describe_range(self._first_s, self._stop_s)

    def _checked(self, pieces: Iterator[Piece]) -> Iterator[Piece]:
        for rate_hz, mono in pieces:
            if self._source.error is not None:
                raise unreadable(self._source.error)
            if not (finite := np.isfinite(mono)).all():
                at_s = self._decoded_s + int(np.argmin(finite)) / rate_hz
                raise FileFailure("decode", "not_finite", f"NaN or infinite sample at {at_s:.3f} s")
            self._decoded_s += len(mono) / rate_hz
            wanted_s = self._decoded_s if self._stop_s is None else min(self._decoded_s, self._stop_s)
            self.limit.check_bytes(wanted_s - self._uncounted_s)
            beat()
            yield rate_hz, mono

    def _out_of_range(self, first: int, n_samples: int) -> FileFailure:
        begin_s, duration_s = samples_to_seconds(first), samples_to_seconds(n_samples)
        message = f"nothing from {begin_s:.3f} s on: the recording lasts {duration_s:.3f} s"
        return FileFailure("decode", "out_of_range", message)

    def _nothing(self) -> FileFailure:
        """Why not one sample decodes: the file has none, or it is broken."""
        if self._sound.trouble:
            return FileFailure("decode", "decode_error", self._sound.trouble)
        if self.info.expected_duration_s:
            return FileFailure("decode", "decode_error", f"nothing of {self.info.expected_duration_s:.3f} s decodes")
        return FileFailure("decode", "too_short", "a header without samples")


def open_audio(
    source: Source,
    config: DecodeConfig | None = None,
    raw: RawFormat | None = None,
    max_hours: float | None = None,
) -> AudioStream:
    """Open a path or a binary file object, and read its header.

    Args:
        raw: how to read it if it has no header (``corpus.raw_formats.raw_format_of`` tells by its name).
        max_hours: a longer sound is refused. None: only one that is longer than its bytes can hold is.

    Raises:
        FileFailure: stage ``read`` with ``vanished`` or ``unreadable``; stage ``decode`` with ``empty``, ``not_audio``,
            ``no_audio_stream``, ``unsupported`` or ``decode_error``.
    """
    file = Bytes(source)
    try:
        with file_boundary(file):
            return AudioStream(file, config or DecodeConfig(), raw, max_hours)
    except BaseException:
        file.close()
        raise


def to_model_rate(waveform: npt.NDArray[Any], sample_rate_hz: int, config: DecodeConfig | None = None) -> Waveform:
    """Convert samples in memory as the decoder converts those of a file: mono float32 (samples,) at 48 kHz.

    Args:
        waveform: (n,) or (n, channels), floats of full scale 1, or integers of the full scale of their type.
    """
    mono = mean_channels(waveform[None] if waveform.ndim == 1 else waveform.T)
    if sample_rate_hz == SAMPLE_RATE_HZ:
        return mono
    return np.asarray(soxr.resample(mono, sample_rate_hz, SAMPLE_RATE_HZ, (config or DecodeConfig()).resampler))


def begins_anywhere(sample_rate_hz: int) -> bool:
    """Whether resampling from any whole second on gives the samples of resampling it all."""
    return SAMPLE_RATE_HZ // math.gcd(sample_rate_hz, SAMPLE_RATE_HZ) <= _MOST_PHASES


def resample_pieces(pieces: Iterator[Piece], quality: str) -> Iterator[Waveform]:
    """Resample consecutive pieces of one rate to 48 kHz by one resampler, with exactly the result of a single call.

    Args:
        quality: soxr's preset, as ``DecodeConfig.resampler``.
    """
    now_hz, resampler = SAMPLE_RATE_HZ, None
    for rate_hz, mono in pieces:
        if rate_hz != now_hz:
            if resampler is not None:
                yield _flush(resampler)
            now_hz, resampler = rate_hz, None
            if rate_hz != SAMPLE_RATE_HZ:
                resampler = soxr.ResampleStream(rate_hz, SAMPLE_RATE_HZ, 1, quality=quality)
        yield mono if resampler is None else resampler.resample_chunk(mono)
    if resampler is not None:
        yield _flush(resampler)


def _flush(resampler: soxr.ResampleStream) -> Waveform:
    return np.asarray(resampler.resample_chunk(np.empty(0, np.float32), last=True))
