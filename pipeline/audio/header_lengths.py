"""Where the samples lie in files made of chunks, even if their headers are wrong: wav and AIFF, CAF, fragmented MP4.

A size of 32 bits cannot state the length of a wav of more than 4 GiB. A wav that was written to a pipe, or whose
recorder crashed, does not state its length at all. libsndfile believes such headers and silently loses the rest.
Therefore this module walks the chunks, and gives libsndfile a ``View`` of the file with a correct header. It does so,
too, if a chunk of odd size lacks its padding byte, which libsndfile cannot read.
"""

import io
import math
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Literal

from pipeline.audio.source import Bytes

_Order = Literal["little", "big"]

_WAVE, _AIFF = (b"RIFF", b"RIFX", b"RF64", b"BW64"), (b"FORM",)
_WRAP = 1 << 32
_MOST_CHUNKS, _MOST_BOXES = 1_000, 1_000_000
_LONGEST_HEAD_BYTES = 1 << 24
_PADDING_BYTES = 1 << 20
"""Up to this many zeros at the end count as padding: recordings contain silence, too."""

_UNKNOWN = ((0, 0), (0x7FFF_0000, 0x8001_0000), (0xFFFF_0000, 0xFFFF_FFFF), (1 << 62, (1 << 64) - 1))
"""Sizes that mean "unknown": zero, left by a recorder that crashed, and about the largest possible size, written to a
pipe."""

_PLAIN = (b"\x01\0", b"\x03\0", b"\x06\0", b"\x07\0", b"\xfe\xff")
"""Format tags of wav: integers, floats, A-law, mu-law, and the one that refers to an extended header."""

_CHUNK = re.compile(rb"[ -~]{4}")
_SOUND = (b"RIFF", b"RIFX", b"RF64", b"BW64", b"FORM", b"data", b"SSND")
_TAGS = (b"TAG", b"ID3", b"APE")
_BEHIND = frozenset(
    (
        b"LIST|id3 |ID3 |bext|iXML|axml|aXML|cue |JUNK|junk|PAD |FLLR|fact|PEAK|smpl|inst|plst|_PMX|umid|DISP|afsp"
        b"|NAME|ANNO|MARK|guan|wamd|cart|acid|strc|LGWV|minf|elm1|regn|ovwf|chna|AFAn|XMP "
    ).split(b"|")
)
"""Chunks that may follow the samples. If one of them is cut off, no sound is missing."""


@dataclass(frozen=True, slots=True)
class Sound:
    """Where the samples of a wav or AIFF lie: ``size_bytes`` from ``begin`` on."""

    begin: int
    size_bytes: int
    promised_bytes: int | None
    """More than ``size_bytes`` if the file is cut off, or goes on behind the samples with bytes outside any chunk. None
    if the header does not state a size and the samples reach to the end of the file."""
    head: bytes | None
    """A replacement header; None if libsndfile finds exactly these samples by the file's own."""
    counted: tuple[int, int] | None = None
    """For coders that fill up a last block of samples: their number by the chunk ``fact``, and that in a block."""


class View:
    """A part of a file, preceded by another header: ``read``, ``seek``, ``tell``."""

    def __init__(self, source: Bytes, begin: int, size_bytes: int, head: bytes = b"") -> None:
        self._source, self._begin, self._head = source, begin, head
        self._size_bytes = len(head) + size_bytes
        self._at = 0

    def read(self, size: int = -1) -> bytes:
        left = max(0, self._size_bytes - self._at)
        size = left if size < 0 else min(size, left)
        data = self._head[self._at : self._at + size]
        if len(data) < size:
            data += self._source.peek(self._begin + self._at + len(data) - len(self._head), size - len(data))
        self._at += len(data)
        return data

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size_bytes}[whence]
        if at < 0:
            return -1
        self._at = at
        return at

    def tell(self) -> int:
        return self._at


def is_unknown(size_bytes: int) -> bool:
    """Whether the size in a header means that the writer did not know it."""
    return any(first <= size_bytes <= last for first, last in _UNKNOWN)


# --- wav and AIFF -----------------------------------------------------------------------------------------------------


def find_sound(source: Bytes) -> Sound | None:
    """Where the samples of a wav or AIFF lie; None for other files, and for files without a chunk of samples.

    Source: the chunks of RIFF and AIFF; EBU Tech 3306 (RF64) and ITU-R BS.2088 (BW64) for sizes of 64 bits.
    """
    head = source.peek(0, 12)
    magic, kind = head[:4], head[8:]
    if not (magic in _WAVE and kind == b"WAVE") and not (magic in _AIFF and kind in (b"AIFF", b"AIFC")):
        return None
    header = _Header(magic, "big" if magic in (b"RIFX", b"FORM") else "little")
    end = 12
    for name, begin, size in _walk(source, 12, header.order):
        if begin - 8 < end:
            header.unpadded.append(begin - 8)
        end = begin + size + size % 2
        if name == b"ds64" and magic in (b"RF64", b"BW64"):
            header.wide_bytes = int.from_bytes(source.peek(begin + 8, 8), "little")
        elif name == b"fmt ":
            header.layout = source.peek(begin, min(size, 4_096))
        elif name == b"fact":
            header.n_samples = int.from_bytes(source.peek(begin, 4), header.order)
        elif name in (b"data", b"SSND"):
            is_wide = header.wide_bytes is not None and size == _WRAP - 1
            sound = _locate(source, header, begin, header.wide_bytes or 0 if is_wide else size)
            if sound.head is None and header.unpadded and begin <= _LONGEST_HEAD_BYTES:
                head = _pad(source.peek(0, begin), header.unpadded)
                sound = replace(sound, head=_make_head(header.layout, sound.size_bytes) if header.is_plain else head)
            return replace(sound, counted=header.count_blocks())
    return None


@dataclass(slots=True)
class _Header:
    """The content of the chunks before the samples."""

    magic: bytes
    order: _Order
    layout: bytes = b""
    wide_bytes: int | None = None
    n_samples: int | None = None
    unpadded: list[int] = field(default_factory=list)
    """Where chunks begin whose predecessor lacks its padding byte."""

    @property
    def is_plain(self) -> bool:
        """Whether a header of 64 bits can describe the samples."""
        return self.order == "little" and self.layout[:2] in _PLAIN

    def count_blocks(self) -> tuple[int, int] | None:
        if not self.n_samples or self.layout[:2] in _PLAIN or len(self.layout) < 20:
            return None
        return self.n_samples, int.from_bytes(self.layout[18:20], self.order)


def _locate(source: Bytes, header: _Header, begin: int, claimed: int) -> Sound:
    """The samples that begin at ``begin``, of which the header claims so many bytes."""
    found, promised = _measure(source, begin, claimed, header.order)
    rest = source.size_bytes - begin
    if header.magic != b"BW64" and (found == promised == claimed or (claimed > rest and header.wide_bytes is None)):
        return Sound(begin, found, promised, None)
    if header.order == "big":  # no header of 64 bits has this order; libsndfile takes a size of 0 for the whole rest
        return Sound(begin, min(claimed, rest) or rest, max(found, promised or 0), None)
    # With a header of 64 bits, libsndfile opens plain samples only. Others keep their header and its size.
    is_own = found == claimed and header.layout[:2] not in _PLAIN
    return Sound(begin, found, promised, None if is_own else _make_head(header.layout, found))


def _pad(head: bytes, unpadded: list[int]) -> bytes:
    """The bytes before the samples, with the padding that chunks lack."""
    cuts = [0, *unpadded, len(head)]
    return b"\0".join(head[begin:stop] for begin, stop in pairwise(cuts))


def _measure(source: Bytes, begin: int, claimed: int, order: _Order) -> tuple[int, int | None]:
    """How many bytes of samples the file has, and how many its header promises."""
    rest = source.size_bytes - begin
    if claimed > rest:
        return rest, None if is_unknown(claimed) else claimed
    if _ends(source, begin, claimed, order):
        return claimed, claimed
    if is_unknown(claimed):
        return rest, None
    if rest < _WRAP:
        return claimed, rest
    wrapped = claimed + (rest - claimed) // _WRAP * _WRAP
    if wrapped > claimed and _ends(source, begin, wrapped, order):
        return wrapped, wrapped
    return rest, wrapped + _WRAP


def _ends(source: Bytes, begin: int, size: int, order: _Order) -> bool:
    """Whether the samples may end here: only other chunks, tags or padding follow. Not every writer pads odd sizes."""
    return any(_is_behind(source, begin + size + pad, order, bool(size)) for pad in range(1 + size % 2))


def _is_behind(source: Bytes, at: int, order: _Order, may_be_zeros: bool) -> bool:
    for name, begin, size in _walk(source, at, order):
        if name in _SOUND:
            return False
        if name[:3] in _TAGS:
            return True
        if not _CHUNK.fullmatch(name):
            return may_be_zeros and _is_padding(source, begin - 8)
        if begin + size > source.size_bytes + 1:
            return name in _BEHIND
    return True


def _is_padding(source: Bytes, at: int) -> bool:
    return source.size_bytes - at <= _PADDING_BYTES and not source.peek(at, _PADDING_BYTES).strip(b"\0")


def _walk(source: Bytes, at: int, order: _Order) -> Iterator[tuple[bytes, int, int]]:
    """Yield for each chunk its name, where its content begins, and the size that it states."""
    for _ in range(_MOST_CHUNKS):
        head = source.peek(at, 8)
        if len(head) < 8:
            return
        size = int.from_bytes(head[4:], order)
        yield head[:4], at + 8, size
        at += 8 + size
        if size % 2 and _is_padded(source.peek(at, 5)):
            at += 1


def _is_padded(behind: bytes) -> bool:
    """Whether a chunk of odd size is padded, as it should be; ``behind`` is what follows its content."""
    if behind[:1] in (b"", b"\0"):
        return True
    is_known = behind[:4] in _SOUND or behind[:4] in _BEHIND or behind[:4] == b"fmt "
    return not is_known and _CHUNK.fullmatch(behind[1:]) is not None


def _make_head(layout: bytes, size_bytes: int) -> bytes:
    """A header of 64 bits for ``size_bytes`` of samples; ``layout`` is the content of their chunk ``fmt``."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return name + len(body).to_bytes(4, "little") + body + bytes(len(body) % 2)

    n_bytes = 12 + 36 + len(chunk(b"fmt ", layout)) + 8 + size_bytes
    sizes = (n_bytes - 8).to_bytes(8, "little") + size_bytes.to_bytes(8, "little") + bytes(12)
    begin = b"RF64\xff\xff\xff\xffWAVE" + chunk(b"ds64", sizes)
    return begin + chunk(b"fmt ", layout) + b"data\xff\xff\xff\xff"


# --- CAF and MP4 ------------------------------------------------------------------------------------------------------


def is_cut_caf(source: Bytes) -> bool:
    """Whether a CAF ends before its samples do. Source: Apple's Core Audio Format Specification."""
    at = 8
    for _ in range(_MOST_CHUNKS):
        head = source.peek(at, 12)
        if len(head) < 12:
            return False
        size = int.from_bytes(head[4:], "big", signed=True)
        if head[:4] == b"data" or size < 0:  # -1: to the end of the file
            return at + 12 + size > source.size_bytes
        at += 12 + size
    return False


_ASF_PROPERTIES = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")


def is_cut_asf(source: Bytes) -> bool:
    """Whether an ASF file is much shorter than its header says. Source: Microsoft's ASF Specification, section 3.2.

    FFmpeg then gives no duration. Like FFmpeg, this allows a twentieth: some taggers leave the old size.
    """
    head = source.peek(0, 1 << 16)
    at = head.find(_ASF_PROPERTIES)
    is_live = at < 0 or len(head) < at + 92 or head[at + 88] & 1
    stated_bytes = 0 if is_live else int.from_bytes(head[at + 40 : at + 48], "little")
    return stated_bytes - source.size_bytes > source.size_bytes / 20


_FLV_DURATION = b"\x00\x08duration\x00"


def read_flv_duration(source: Bytes) -> float | None:
    """The duration in seconds that the header of an FLV states; None if it states none, as live streams do not.

    FFmpeg then gives one that follows from the bit rate. Source: Adobe's Flash Video File Format Specification 10.1,
    annex E.5 (``onMetaData``).
    """
    head = source.peek(0, 1 << 16)
    at = head.find(_FLV_DURATION)
    number = head[at + len(_FLV_DURATION) :][:8]
    if at < 0 or len(number) < 8:
        return None
    [duration_s] = struct.unpack(">d", number)
    return duration_s if 0 < duration_s < math.inf else None


def read_dsf_duration(source: Bytes) -> float | None:
    """The duration in seconds by the samples that the header of a DSF counts. FFmpeg gives that of a file that is cut
    off. Source: Sony's DSF File Format Specification 1.01."""
    head = source.peek(0, 72)
    rate_hz, n_samples = int.from_bytes(head[56:60], "little"), int.from_bytes(head[64:72], "little")
    return n_samples / rate_hz if head[:4] == b"DSD " and head[28:32] == b"fmt " and rate_hz and n_samples else None


def find_cut(source: Bytes) -> tuple[bytes, int] | None:
    """The name and the place of the box in which a fragmented MP4 is cut off; None for whole files and other formats.

    Other MP4 files have an index that states their length. Source: ISO/IEC 14496-12.
    """
    at, fragmented = 0, False
    if source.peek(4, 4) not in (b"ftyp", b"styp"):
        return None
    for _ in range(_MOST_BOXES):
        head = source.peek(at, 16)
        size, name = int.from_bytes(head[:4]), head[4:8]
        if size == 1:
            size = int.from_bytes(head[8:])
        fragmented |= name == b"moof"
        # The end, or data that other programs append.
        if len(head) < 8 or not _CHUNK.fullmatch(name) or head[:3] in _TAGS:
            return None
        if at + max(size, 8) > source.size_bytes:
            return (name, at) if fragmented else None
        if size < 8:  # invalid, or 0: a box up to the end of the file
            return None
        at += size
    return None
