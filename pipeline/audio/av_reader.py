"""Samples from FFmpeg (through PyAV): mp3, ogg, opus, m4a, webm, and whatever libsndfile refuses."""

import re
from collections.abc import Iterator
from typing import Any

import av
import av.error
import numpy as np
from av.codec.codec import codecs_available

from pipeline.audio.containers import FFMPEG_FORMATS, TIMED_FORMATS, begins_as_audio, read_mp3_duration, read_ogg_end
from pipeline.audio.header_lengths import View, find_cut, is_cut_caf
from pipeline.audio.pieces import PIECE_S, PIECE_VALUES, AudioInfo, Piece, mean_channels
from pipeline.audio.source import Bytes
from pipeline.corpus.raw_formats import RawFormat
from pipeline.errors import FileFailure, one_line

av.logging.set_level(None)  # FFmpeg would write its complaints to stderr; Earshot makes them rows


def _list_audio_decoders() -> Iterator[str]:
    for name in codecs_available:
        try:
            codec = av.Codec(name, "r")
        except av.codec.codec.UnknownCodecError:  # FFmpeg has only an encoder of this name
            continue
        if codec.type == "audio":
            yield codec.name


_AUDIO_DECODERS = ",".join(sorted(_list_audio_decoders()))
"""The decoders that FFmpeg may use. It would otherwise decode cover pictures and films while it opens a file: a picture
of 16,000 x 16,000 takes 2 GB and 20 s."""

_GAP_S = 0.1
"""A longer gap between packets becomes silence, so that later times are right, and counts as damage ..."""

_OPUS_GAP_S = 1.0
"""... except in opus, which sends nothing for 0.4 s at a time during silence (discontinuous transmission)."""

_THINNEST_BYTES_PER_S = 100
"""No codec needs fewer bytes. A packet whose time is beyond what the file can hold at this rate is damaged; its time is
ignored."""


class AvReader:
    """The main audio stream of a file as FFmpeg reads it."""

    def __init__(self, source: Bytes, raw: RawFormat | None = None) -> None:
        self.trouble: str | None = None
        self.raw = raw
        self._size_bytes = source.size_bytes
        self._known = begins_as_audio(source)
        self._at_s = 0.0  # the time at which the next frame is due
        cut = find_cut(source) if raw is None else None
        if cut is not None:
            self.trouble = "its last box is cut off"
        source.seek(0)
        try:
            self._container = av.open(
                # With half an index of a fragment, FFmpeg would refuse the whole file.
                View(source, 0, cut[1]) if cut is not None and cut[0] != b"mdat" else source,
                "r",
                format=raw and raw.format,
                container_options={
                    "format_whitelist": raw.format if raw else FFMPEG_FORMATS,
                    "codec_whitelist": _AUDIO_DECODERS,
                },
                metadata_errors="ignore",
                buffer_size=1 << 16,
            )
        except av.error.FFmpegError as error:
            raise self._not_opened(one_line(error)) from None
        try:
            self._timed = raw is not None or self._container.format.name in TIMED_FORMATS
            if self._container.format.name == "ogg":
                self._check_ogg_end(source)
            if self._container.format.name == "caf":
                self._check_caf_end(source)
            self._stream = self._choose()
            self.info = self._describe(source)
        except BaseException:
            self._container.close()
            raise

    def pieces(self) -> Iterator[Piece]:
        frames: list[Any] = []
        n_values = 0
        for silence_s, frame in self._timed_frames():
            full = n_values >= min(PIECE_VALUES, PIECE_S * frame.sample_rate * frame.layout.nb_channels)
            if frames and (full or silence_s or _kind(frame) != _kind(frames[0])):
                yield _join(frames)
                frames, n_values = [], 0
            if silence_s:
                yield from _silence(frame.sample_rate, silence_s)
            frames.append(frame)
            n_values += frame.samples * frame.layout.nb_channels
        if frames:
            rate_hz, mono = _join(frames)
            n_padding = round((self._at_s - (self.info.expected_duration_s or 0.0)) * rate_hz) if self._timed else 0
            # FFmpeg does not remove the padding of the last frame in m4a and in short vorbis.
            yield rate_hz, mono[:-n_padding] if 0 < n_padding < frames[-1].samples else mono

    def close(self) -> None:
        self._container.close()

    def _timed_frames(self) -> Iterator[tuple[float, Any]]:
        """Each frame, with the seconds of silence before it: how far its packet's time is ahead of the samples so far.

        Silence ends within the promised duration, and within the duration that a file of this size can have.
        """
        longest_s = self._size_bytes / _THINNEST_BYTES_PER_S
        limit_s = min(longest_s, (self.info.expected_duration_s or 0.0) + _GAP_S) if self._timed else 0.0
        damage_s = _OPUS_GAP_S if self.info.codec == "opus" else _GAP_S
        begin_s: float | None = None
        filled_s = 0.0
        for frame in self._frames():
            silence_s = 0.0
            if frame.time is not None:
                begin_s = frame.time if begin_s is None else begin_s
                ahead_s = frame.time - begin_s - self._at_s
                if ahead_s > _GAP_S and self._at_s + ahead_s < limit_s:
                    silence_s = ahead_s
            filled_s += silence_s if silence_s > damage_s else 0.0
            self._at_s += silence_s + frame.samples / frame.sample_rate
            yield silence_s, frame
        if filled_s and not self.trouble:
            self.trouble = f"{filled_s:.3f} s are missing in the middle, and taken as silence"

    def _frames(self) -> Iterator[Any]:
        n_packets = n_bad = 0
        worst: Exception | None = None
        for packet in self._packets():
            n_packets += 1
            try:
                yield from packet.decode()
            except av.error.FFmpegError as error:
                n_bad, worst = n_bad + 1, error
        # Many healthy mp3 files begin or end with a tag or half a frame: one or two bad packets.
        if worst and n_bad > max(2, n_packets // 1000):
            self.trouble = f"{n_bad} of {n_packets} packets cannot be decoded: {one_line(worst)}"

    def _packets(self) -> Iterator[Any]:
        packets = self._container.demux(self._stream)
        while True:
            try:
                packet = next(packets, None)
            except av.error.FFmpegError as error:
                # In chained Ogg, FFmpeg goes on only if the next stream is of the same kind.
                chained = "another kind of stream follows" if self._container.format.name == "ogg" else None
                self.trouble = chained or one_line(error)
                return
            if packet is None:
                return
            yield packet

    def _choose(self) -> Any:
        stream = self._container.streams.best("audio")
        if stream is None and self._container.streams.video:
            raise FileFailure("decode", "no_audio_stream", "a video without sound")
        if stream is None:
            raise self._not_opened("no stream in it")
        if stream.codec_context is None:
            raise FileFailure("decode", "unsupported", "no decoder for this codec")
        if stream.codec_context.codec_tag in ("enca", "drms"):
            raise FileFailure("decode", "unsupported", "encrypted")
        for other in self._container.streams:
            if other.index != stream.index:
                other.discard = av.stream.Discard.all
        return stream

    def _check_ogg_end(self, source: Bytes) -> None:
        position = source.tell()
        whole, same_stream = read_ogg_end(source)
        source.seek(position)
        if not whole:
            self.trouble = "the last Ogg page is cut off"
        # FFmpeg takes the duration from the last page. If that belongs to a later stream, the duration is an estimate.
        self._timed &= same_stream

    def _check_caf_end(self, source: Bytes) -> None:
        position = source.tell()
        if is_cut_caf(source):
            self.trouble = "cut off before the end of its samples"
        source.seek(position)

    def _not_opened(self, message: str) -> FileFailure:
        if self._known:
            return FileFailure("decode", "decode_error", message)
        return FileFailure("decode", "not_audio", "no decoder recognises it")

    def _describe(self, source: Bytes) -> AudioInfo:
        context = self._stream.codec_context
        return AudioInfo(
            codec=re.sub(r"(?<=\d)(?:le|be)(?:_planar)?$", "", context.codec.canonical_name),
            sample_rate_hz=context.sample_rate,
            channels=context.layout.nb_channels,
            expected_duration_s=self._promised_s(source),
        )

    def _promised_s(self, source: Bytes) -> float | None:
        if self._container.format.name == "mp3":  # FFmpeg's own answer is an estimate if the size seems wrong
            position = source.tell()
            duration_s = read_mp3_duration(source)
            source.seek(position)
            return duration_s
        if not self._timed:
            return None
        if self._stream.duration is not None:
            return float(self._stream.duration * self._stream.time_base)
        # Without a duration of its own, the sound may end before the film around it.
        alone, duration = len(self._container.streams) == 1, self._container.duration
        return float(duration) / av.time_base if alone and duration else None


def _kind(frame: Any) -> tuple[int, int, str]:
    return frame.sample_rate, frame.layout.nb_channels, frame.format.name


_DTYPES = {"u8": "u1", "s16": "i2", "s32": "i4", "s64": "i8", "flt": "f4", "dbl": "f8"}


def _join(frames: list[Any]) -> Piece:
    """One piece of consecutive frames of one kind."""
    rate_hz, channels, _ = _kind(frames[0])
    if frames[0].format.is_planar and channels >= 8:
        # PyAV finds the end of the planes by a null pointer, but FFmpeg sets one for up to seven only: it would crash.
        packer = av.AudioResampler(format="flt", layout=frames[0].layout, rate=rate_hz)
        frames = [packed for frame in [*frames, None] for packed in packer.resample(frame)]
    planar = frames[0].format.is_planar
    n_planes, per_sample = (channels, 1) if planar else (1, channels)
    n_values = per_sample * sum(frame.samples for frame in frames)
    values = np.empty((n_planes, n_values), _DTYPES[frames[0].format.packed.name])
    at = 0
    for frame in frames:  # takes half the time of `to_ndarray` and `concatenate`
        stop = at + per_sample * frame.samples
        for plane, row in zip(frame.planes, values, strict=True):
            row[at:stop] = np.frombuffer(plane, values.dtype, stop - at)
        at = stop
    return rate_hz, mean_channels(values if planar else values.reshape(-1, channels).T)


def _silence(rate_hz: int, duration_s: float) -> Iterator[Piece]:
    n_samples = round(duration_s * rate_hz)
    for begin in range(0, n_samples, PIECE_VALUES):
        yield rate_hz, np.zeros(min(PIECE_VALUES, n_samples - begin), np.float32)
