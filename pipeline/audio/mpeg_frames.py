"""Where the frames of an mp3 or ADTS file lie: each header tells the size of its frame.

These files have no index, or one too rough to find a sound by: the table in a Xing header is off by up to a 256th of
the file, minutes in a long one. Reading the headers alone takes about half a second for twelve hours. Places that were
found are kept for the next question.

Sources: the frame headers of ISO/IEC 11172-3 and 13818-3 (MPEG audio) and 14496-3 (ADTS).
"""

import os
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from threading import Lock

from pipeline.audio.mpeg_tags import find_tag_end
from pipeline.audio.source import Bytes

EVERY = 64
"""The place of every so many frames is kept."""

MOST_KEPT = 64
"""Files whose places are kept."""

_BLOCK_BYTES = 1 << 20
_HEAD_BYTES = 7
_LOST_BYTES = 1 << 18
"""So much is searched for the next frame, where none begins behind the one before."""

_MARK = b"\xff"
"""The first byte of a frame of any kind."""

MOST_LOST_BYTES = 1 << 26
"""So much between frames is passed over in all; a healthy file has nothing there but tags."""

_KBIT = {
    (1, 1): [32 * step for step in range(15)],
    (1, 2): [0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384],
    (1, 3): [0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320],
    (2, 1): [0, 32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256],
    (2, 2): [0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160],
}
"""Bit rates by version and layer; the layers 2 and 3 of version 2 share one list."""

_RATES_HZ = (44_100, 48_000, 32_000)
_ADTS_RATES_HZ = (96_000, 88_200, 64_000, 48_000, 44_100, 32_000, 24_000, 22_050, 16_000, 12_000, 11_025, 8_000, 7_350)

_SizeAt = Callable[[bytes, int], int]
"""The size of the frame whose header lies at a place; 0 if none of the same kind begins there."""


@dataclass(frozen=True)
class FrameKind:
    """What all frames of a file have in common."""

    rate_hz: int
    n_samples: int
    """In each frame, at this rate."""
    size_at: _SizeAt


def read_kind(head: bytes) -> FrameKind | None:
    """The kind of the frame that begins with ``head``, 7 bytes or more; None if it is none, or a rare one."""
    if len(head) < _HEAD_BYTES or head[0] != 0xFF:
        return None
    return _read_adts(head) if head[1] & 0xF6 == 0xF0 else _read_mpeg(head)


def _read_mpeg(head: bytes) -> FrameKind | None:
    version_bits, layer, rate = head[1] >> 3 & 3, 4 - (head[1] >> 1 & 3), head[2] >> 2 & 3
    if head[1] & 0xE0 != 0xE0 or version_bits == 1 or layer == 4 or rate == 3:
        return None
    version = 1 if version_bits == 3 else 2
    rate_hz = _RATES_HZ[rate] >> {3: 0, 2: 1, 0: 2}[version_bits]
    n_samples = 384 if layer == 1 else 576 if (version, layer) == (2, 3) else 1_152
    slot = 4 if layer == 1 else 1
    sizes = [0] * 256
    for bits, kbit in enumerate(_KBIT[version, min(layer, 4 - version)]):
        for padding in (0, 1) if kbit else ():
            size = (n_samples // 8 // slot * kbit * 1_000 // rate_hz + padding) * slot
            for private in (0, 1):
                sizes[bits << 4 | rate << 2 | padding << 1 | private] = size
    mark = head[1] & 0xFE  # the last bit tells only whether there is a checksum

    def size_at(data: bytes, at: int) -> int:
        return sizes[data[at + 2]] if data[at] == 0xFF and data[at + 1] & 0xFE == mark else 0

    return FrameKind(rate_hz, n_samples, size_at)


def _read_adts(head: bytes) -> FrameKind | None:
    rate, mark, bits = head[2] >> 2 & 15, head[1] & 0xFE, head[2] & 0xFD
    if rate >= len(_ADTS_RATES_HZ):
        return None

    def size_at(data: bytes, at: int) -> int:
        if data[at] != 0xFF or data[at + 1] & 0xFE != mark or data[at + 2] & 0xFD != bits or data[at + 6] & 3:
            return 0
        size = (data[at + 3] & 3) << 11 | data[at + 4] << 3 | data[at + 5] >> 5
        return size if size > _HEAD_BYTES else 0

    return FrameKind(_ADTS_RATES_HZ[rate], 1_024, size_at)


class FramePlaces:
    """The places of the frames between ``begin`` and ``end``; reads on as far as it is asked."""

    def __init__(self, kind: FrameKind, begin: int, end: int) -> None:
        self.kind = kind
        self.is_whole = True
        """Whether each frame so far begins where the one before ends, tags between them aside."""
        self.is_lost = False
        """Whether there is so much between the frames that they are not counted any further."""
        self._n_lost_bytes = 0
        self._places: list[int] = []
        self._n, self._at, self._end = 0, begin, end
        self._lock = Lock()

    def find(self, source: Bytes, number: int) -> tuple[int, int] | None:
        """The number and the place of a frame: ``number``, or one shortly before. None if the frames end before."""
        with self._lock:
            while self._n <= number and self._read(source):
                pass
            if self._n <= number:
                return None
            begin = self._places[number // EVERY]
        reached, at = number // EVERY * EVERY, 0
        data = source.peek(begin, min(_BLOCK_BYTES, self._end - begin))
        while reached < number and at <= len(data) - _HEAD_BYTES and (size := self.kind.size_at(data, at)):
            reached, at = reached + 1, at + size
        return reached, begin + at

    def _read(self, source: Bytes) -> bool:
        """Count the frames of the next block. False at the end."""
        data = source.peek(self._at, max(0, min(_BLOCK_BYTES, self._end - self._at)))
        is_last, last, at = self._at + len(data) >= self._end, len(data) - _HEAD_BYTES, 0
        if last < 0 or self.is_lost:
            return False
        while (at := self._count(data, at)) <= last:
            if at > len(data) - _LOST_BYTES and at and not is_last:
                break  # the next block begins here, and has room to search in
            if (begin := self._skip(source, data, at)) is None:
                self._at += at
                return False
            at = begin
        self._at += at
        return True

    def _count(self, data: bytes, at: int) -> int:
        """Count the frames from a place in the block on. Returns where they end."""
        size_at, places, n, last = self.kind.size_at, self._places, self._n, len(data) - _HEAD_BYTES
        while at <= last and (size := size_at(data, at)):
            if not n % EVERY:
                places.append(self._at + at)
            n += 1
            at += size
        self._n = n
        return at

    def _skip(self, source: Bytes, data: bytes, at: int) -> int | None:
        """Where the next frame begins behind what is none, in the block or behind it. None if there is none nearby."""
        if (end := find_tag_end(source, self._at + at)) > self._at + at:
            return end - self._at if end < self._end else None
        self.is_whole = False
        size_at, last = self.kind.size_at, len(data) - _HEAD_BYTES
        begin, stop = at, min(last, at + _LOST_BYTES)
        while (begin := data.find(_MARK, begin + 1, stop + 1)) >= 0:
            size = size_at(data, begin)
            if size and begin + size <= last and size_at(data, begin + size):  # two in a row are no chance
                self._n_lost_bytes += begin - at
                self.is_lost = self._n_lost_bytes > MOST_LOST_BYTES
                return None if self.is_lost else begin
        return None


_kept: OrderedDict[tuple[int, ...], FramePlaces] = OrderedDict()
_lock = Lock()


def find_places(source: Bytes, begin: int, end: int) -> FramePlaces | None:
    """The places of the frames from ``begin`` to ``end``; None if no frame of a usual kind begins there."""
    kind = read_kind(source.peek(begin, _HEAD_BYTES))
    if kind is None:
        return None
    if source.descriptor is None:
        return FramePlaces(kind, begin, end)
    status = os.fstat(source.descriptor)
    key = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, begin, end)
    with _lock:
        found = _kept.pop(key, None) or FramePlaces(kind, begin, end)
        _kept[key] = found
        while len(_kept) > MOST_KEPT:
            _kept.popitem(last=False)
    return found
