"""The packets of the sound in a container, and when the streams beside it begin."""

from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import av
import av.error

from pipeline.audio.containers import SPLICED_FORMATS
from pipeline.audio.mpeg_tags import find_tag_end, skip_tags
from pipeline.audio.source import Bytes
from pipeline.audio.timeline import Neighbour
from pipeline.errors import one_line

PAUSING_CODECS = {"amr_nb": (8, 14, 15), "amr_wb": (9, 14, 15)}
"""Codecs that send next to nothing during a pause, which FFmpeg does not decode. Such a packet keeps its time.

The types of these frames are comfort noise, lost, and no data (3GPP TS 26.101 and TS 26.201, table 1a)."""

_PLACED_AT_ZERO = frozenset(["flac"])
"""Codecs whose first page in Ogg FFmpeg places at zero, whatever its granule position says."""

_ID3_MARK = ord("I")

_HEAD_S = 1.0
_HEAD_PACKETS, _HEAD_BYTES = 1_000, 1 << 22
"""So much of the sound is read ahead, to meet the first packets of the other streams."""


class Packets:
    """The packets of one stream. ``failed`` tells why they end early, once they are exhausted.

    They also do before a link of chained Ogg that is of another kind than the one before: FFmpeg does not read on.
    """

    def __init__(self, container: Any, stream: Any, source: Bytes) -> None:
        self.failed: str | None = None
        self.newest_pos = 0
        """Where the newest packet lies in the file."""
        self._container, self._stream, self._source = container, stream, source
        self._others = [other for other in container.streams if other.index != stream.index]
        beside = [other for other in self._others if _is_beside(other)]
        self._neighbours: dict[int, Neighbour | None] = {other.index: None for other in beside}
        for other in self._others:
            if other not in beside:
                other.discard = av.stream.Discard.all
        self._packets = self._demux([stream, *beside])
        is_untimed = container.format.name == "ogg" and stream.codec_context.name in _PLACED_AT_ZERO
        self._head = deque(self._read_head(to_next_page=is_untimed))
        self.late_s = self._place_first_page() if is_untimed else 0.0
        """How much later than FFmpeg has it the sound begins."""

    @property
    def neighbours(self) -> list[Neighbour]:
        """The other streams of sound and picture, as far as they have been read."""
        return [other for other in self._neighbours.values() if other is not None]

    @property
    def has_neighbours(self) -> bool:
        """Whether there are other streams of sound and picture, covers aside."""
        return bool(self._neighbours)

    @property
    def first_s(self) -> float | None:
        """The time of the first packet, if it has one."""
        return next((time_s for packet in self._head if (time_s := _time_s(packet)) is not None), None)

    @property
    def first_pos(self) -> int | None:
        """Where the first packet lies in the file, before any is taken."""
        return next((packet.pos for packet in self._head if packet.pos is not None), None)

    def __iter__(self) -> Iterator[Any]:
        may_splice = self._container.format.name in SPLICED_FORMATS
        for other in self._others:
            if not (may_splice and other.type == "video"):
                other.discard = av.stream.Discard.all
        while self._head:
            yield self._head.popleft()
        # Not ``yield from``, which would end them where this is not iterated to the end.
        for packet in self._packets:  # noqa: UP028
            yield packet

    def _place_first_page(self) -> float:
        """Move the packets of the first page of Ogg to where they end: FFmpeg has them begin at zero. Returns by how
        much."""
        page = [packet for packet in self._head if packet.pos == self._head[0].pos]
        behind = self._head[len(page)] if len(page) < len(self._head) else None
        if behind is None or behind.pts is None or any(packet.pts is None for packet in page):
            return 0.0
        late = behind.pts - page[-1].pts - page[-1].duration
        if late <= 0 or not page[-1].duration:
            return 0.0
        for packet in page:
            packet.pts += late
            packet.dts = packet.pts
        return float(late * page[0].time_base)

    def _read_head(self, *, to_next_page: bool) -> Iterator[Any]:
        begin_s: float | None = None
        first_pos: int | None = None
        n_bytes = 0
        for number, packet in enumerate(self._packets, 1):
            yield packet
            n_bytes += packet.size
            time_s = _time_s(packet)
            begin_s = time_s if begin_s is None else begin_s
            is_enough = time_s is not None and begin_s is not None and time_s - begin_s >= _HEAD_S
            first_pos = packet.pos if number == 1 else first_pos
            if number >= _HEAD_PACKETS or n_bytes >= _HEAD_BYTES:
                return
            if (not self._neighbours or is_enough) and not (to_next_page and packet.pos == first_pos):
                return

    def _demux(self, streams: list[Any]) -> Iterator[Any]:
        packets, index = self._container.demux(streams), self._stream.index
        is_mp3, is_ogg = (self._container.format.name == name for name in ("mp3", "ogg"))
        tag_end = 0
        while True:
            try:
                packet = next(packets, None)
            except IndexError:  # PyAV does not know a stream that begins in the middle, as damage may look like
                packets = self._container.demux(streams)
                continue
            except av.error.FFmpegError as error:
                self.failed = one_line(error)
                return
            if packet is None:
                return
            if is_ogg and packet.pos is not None:
                self.newest_pos = packet.pos
            if len(streams) > 1 and packet.stream_index != index:
                self._see(packet)
                continue
            if is_mp3 and packet.size > 10 and memoryview(packet)[0] == _ID3_MARK:
                tag_end = max(tag_end, self._find_tag_end(packet.pos))
            if tag_end and packet.pos is not None and packet.pos < tag_end:
                continue
            yield packet

    def _see(self, packet: Any) -> None:
        time_s = _time_s(packet)
        if time_s is None:
            return
        neighbour = self._neighbours.get(packet.stream_index)
        if neighbour is None:
            self._neighbours[packet.stream_index] = Neighbour(time_s, time_s)
        else:
            neighbour.see(time_s)

    def _find_tag_end(self, at: int | None) -> int:
        return 0 if at is None else self._look(find_tag_end, at)

    def skip_tags(self, at: int) -> int:
        """Where the ID3v2 tags that begin at a place in the file end; that place, if none does."""
        return self._look(skip_tags, at)

    def _look(self, find: Callable[[Bytes, int], int], at: int) -> int:
        """Ask something about the file, which FFmpeg reads on where it was."""
        position = self._source.tell()
        found = find(self._source, at)
        self._source.seek(position)
        return found


def is_pause(packet: Any, codec: str) -> bool:
    """Whether a packet stands for a pause, and not for sound."""
    if codec not in PAUSING_CODECS or not packet.size:
        return False
    kind: int = memoryview(packet)[0] >> 3 & 15
    return kind in PAUSING_CODECS[codec]


def _is_beside(stream: Any) -> bool:
    """Whether a stream has a time of its own: picture or sound, but no cover."""
    is_cover = bool(stream.disposition & av.stream.Disposition.attached_pic)
    return stream.type in ("audio", "video") and not is_cover


def _time_s(packet: Any) -> float | None:
    time = packet.dts if packet.pts is None else packet.pts
    return None if time is None else float(time * packet.time_base)
