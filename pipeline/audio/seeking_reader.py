"""Samples from the middle of the files that FFmpeg reads, without decoding what lies before.

Each part of the sound comes with its time on Earshot's clock, as a whole decode would have it. mp3 and ADTS are entered
at a frame that is found by counting frames, the others by the times of their packets. Decoding begins a little early:
a packet needs those before it.
"""

from collections.abc import Iterator
from typing import Any

import av
import av.error

from pipeline.audio.av_reader import AvReader
from pipeline.audio.channels import Channels
from pipeline.audio.ffmpeg import open_container
from pipeline.audio.frames import join_frames, kind_of
from pipeline.audio.header_lengths import View
from pipeline.audio.mpeg_frames import find_places, read_kind
from pipeline.audio.pieces import PIECE_S, PIECE_VALUES
from pipeline.audio.timeline import GAP_S
from pipeline.corpus.raw_formats import RawFormat

Placed = tuple[float, Channels]
"""When a part begins, in seconds from the beginning of the sound, and its samples."""

PREROLL_S = 1.0
"""How much is decoded before the wanted time: more than the longest memory of a codec."""

NEAR_S, FIRST_S = 3.0, 30.0
"""What begins this early is decoded from the beginning, which takes little time and is exact. The second one is for
files whose times are not certain."""

_CERTAIN_FORMATS = frozenset(["ogg", "mov,mp4,m4a,3gp,3g2,mj2", "flac", "tta", "wv"])
"""The times in these containers count samples. Others have a clock that may run apart from the sound."""

_FRAMED_FORMATS = frozenset(["mp3", "aac"])

MOST_FETCHED_BYTES = 1 << 26
"""Of larger files in an object store, frames are not counted: all bytes up to the wanted time would be fetched."""

_SEEKS_S = (PREROLL_S, 10.0, 60.0)
"""How far before the wanted time a container is asked to go, one after the other, until it does."""

_LAST_FRAMES = 3
"""Frames that may end in padding."""


def place(parts: Iterator[Channels], at_s: float = 0.0) -> Iterator[Placed]:
    """Parts that follow each other without a gap, from ``at_s`` on."""
    for rate_hz, values in parts:
        yield at_s, (rate_hz, values)
        at_s += values.shape[1] / rate_hz


class SeekingReader(AvReader):
    """A file as FFmpeg reads it, from about any time on. ``parts_from`` may be called once."""

    is_certain = True
    """After ``parts_from``: whether times are those of a whole decode."""

    is_entered = False
    """After ``parts_from``: whether what lies before is left out, and not decoded."""

    def parts_from(self, begin_s: float) -> Iterator[Placed]:
        """Parts of the sound, from the one with ``begin_s`` on or from an earlier one."""
        name = self._container.format.name
        is_framed = name in _FRAMED_FORMATS and self.raw is None
        is_certain = is_framed or name in _CERTAIN_FORMATS
        if self._is_chain or begin_s <= (NEAR_S if is_certain else FIRST_S):
            return place(self.parts())
        self.is_entered = True
        first_pos = self._packets.first_pos
        first = next((frame for _, frame in self._timed_frames() if frame is not None), None)
        if first is None:
            return iter(())
        zero_s = self._timeline.zero_s if self._has_clock else first.time
        if zero_s is None:
            zero_s = 0.0
        if is_framed and first_pos is not None:
            return self._framed_parts(first_pos, zero_s, begin_s)
        self.is_certain = is_certain
        return self._join(self._sought_frames(zero_s, begin_s))

    def has_room(self, gap_s: float, at_s: float, filled_s: float) -> bool:
        """Whether a gap may be so long (``Timeline.has_room``). A longer one is a jump of a broken clock."""
        return self._timeline.has_room(gap_s, at_s, filled_s)

    # --- by counting frames -------------------------------------------------------------------------------------------

    def _framed_parts(self, first_pos: int, zero_s: float, begin_s: float) -> Iterator[Placed]:
        from_s = begin_s + zero_s - PREROLL_S
        if self._source.is_remote and self._end > MOST_FETCHED_BYTES:
            places, (at, at_s) = None, self._estimate_place(first_pos, from_s)
        elif places := find_places(self._source, first_pos, self._end):
            frame_s = places.kind.n_samples / places.kind.rate_hz
            found = places.find(self._source, max(0, int(from_s / frame_s)))
            if found is None and places.is_lost:
                self.is_certain = False
                return self._join(self._sought_frames(zero_s, begin_s))
            if found is None:
                return iter(())
            at, at_s = found[1], found[0] * frame_s
        else:
            self.is_certain = False
            return self._join(self._sought_frames(zero_s, begin_s))
        self.is_certain = places is not None and places.is_whole
        return self._join(self._frames_behind(at, at_s - zero_s))

    def _estimate_place(self, first_pos: int, at_s: float) -> tuple[int, float]:
        """About where a frame lies in the file, if all of them take as many bytes, and when it begins."""
        kind = read_kind(self._source.peek(first_pos, 16))
        frame_s = kind.n_samples / kind.rate_hz if kind else 0.025
        n_frames = max(1.0, (self._container.duration or 0) / av.time_base / frame_s)
        number = max(0, min(int(at_s / frame_s), int(n_frames) - 1))
        # A little earlier, so that the next header is that of this frame.
        place = first_pos + int((self._end - first_pos) * number / n_frames) - 16
        return max(first_pos, place), number * frame_s

    def _frames_behind(self, at: int, at_s: float) -> Iterator[tuple[float, Any]]:
        """The frames from a place in the file on, which is at ``at_s``."""
        name, rate_hz = self._container.format.name, self.info.sample_rate_hz
        with open_container(View(self._source, at, self._end - at), RawFormat(name, name, rate_hz)) as container:
            for packet in container.demux(container.streams.best("audio")):
                for frame in _decode(packet):
                    if frame.time is not None:
                        yield at_s + frame.time, frame

    # --- by the times of packets --------------------------------------------------------------------------------------

    def _sought_frames(self, zero_s: float, begin_s: float) -> Iterator[tuple[float, Any]]:
        """The frames from the second before ``begin_s`` on, where the container can go there."""
        from_s = begin_s + zero_s - PREROLL_S
        for packet in self._seek(from_s, begin_s + zero_s) if self._goes_anywhere else self._packets:
            if _ends_before(packet, from_s):  # a container may have gone too far back
                continue
            for frame in _decode(packet):
                if frame.time is not None:
                    yield frame.time - zero_s, frame

    @property
    def _goes_anywhere(self) -> bool:
        """Whether times are right behind a place that the container was asked to go to.

        In Ogg, FFmpeg knows how long packets of these codecs are; the others get times of the page that they lie in.
        """
        return self._container.format.name != "ogg" or self.info.codec in ("vorbis", "opus")

    def _seek(self, from_s: float, begin_s: float) -> Iterator[Any]:
        """The packets from a place at or before ``from_s`` on; if the container cannot go there, all that follow."""
        packets: list[Any] = []
        demuxed: Iterator[Any] = iter(())
        for back_s in _SEEKS_S:
            try:
                to_s = max(0.0, from_s + PREROLL_S - back_s)
                self._container.seek(int(to_s / self._stream.time_base), stream=self._stream)
            except av.error.FFmpegError:
                break
            packets, demuxed = [], self._demux()
            for packet in demuxed:
                packets.append(packet)
                if packet.pts is not None:
                    break
            if packets and packets[-1].pts is not None and packets[-1].pts * packets[-1].time_base <= begin_s:
                break
        yield from packets
        yield from demuxed if packets else self._demux()

    def _demux(self) -> Iterator[Any]:
        packets = self._container.demux(self._stream)
        while True:
            try:
                packet = next(packets, None)
            except av.error.FFmpegError:
                return
            if packet is None:
                return
            yield packet

    # --- frames to parts ----------------------------------------------------------------------------------------------

    def _join(self, frames: Iterator[tuple[float, Any]]) -> Iterator[Placed]:
        """Frames with their times as parts. Small differences of the clock do not count; the end is without padding."""
        held: list[Any] = []
        begin_s = due_s = 0.0
        n_values = 0
        for time_s, frame in frames:
            rate_hz, channels, _ = kind_of(frame)
            is_apart = bool(held) and (time_s - due_s > GAP_S or kind_of(frame) != kind_of(held[0]))
            is_full = n_values >= min(PIECE_VALUES, PIECE_S * rate_hz * channels)
            if held and (is_apart or is_full):
                n_ready = len(held) if is_apart else max(1, len(held) - _LAST_FRAMES)
                yield begin_s, join_frames(held[:n_ready])
                begin_s += sum(each.samples for each in held[:n_ready]) / held[0].sample_rate
                held = held[n_ready:]
                n_values = sum(each.samples for each in held) * channels
            if not held:
                begin_s = due_s = time_s
            held.append(frame)
            n_values += frame.samples * channels
            due_s += frame.samples / rate_hz
        if held:
            rate_hz, values = join_frames(held)
            n_last = sum(frame.samples for frame in held[-_LAST_FRAMES:])
            n_padding = round(self._padding_s(due_s) * rate_hz)
            yield begin_s, (rate_hz, values[:, :-n_padding] if 0 < n_padding < n_last else values)


def _ends_before(packet: Any, time_s: float) -> bool:
    """Whether a packet is over by then. False if it has no time: its frames may have one."""
    if packet.pts is None or not packet.size:
        return False
    return float((packet.pts + (packet.duration or 0)) * packet.time_base) <= time_s


def _decode(packet: Any) -> list[Any]:
    try:
        return list(packet.decode())
    except av.error.FFmpegError:  # the times of the next ones tell how much is missing
        return []
