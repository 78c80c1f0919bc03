"""The duration that the header of a file states, for estimates: no decoder is opened, so that no file can do harm.

A few small reads tell. Nothing here is exact about odd headers: ``header_lengths`` and the readers are.
"""

import math
import struct
from collections.abc import Callable, Iterator

from pipeline.audio import matroska
from pipeline.audio.mpeg_tags import read_mp3_duration
from pipeline.audio.opus import RATE_HZ
from pipeline.audio.source import Bytes, file_boundary
from pipeline.corpus.shards import Place
from pipeline.errors import FileFailure

_MOST_PARTS = 200
"""Chunks or boxes that are looked at in one file."""

_LONGEST_PAGE = 27 + 255 + 255 * 255

_AU_BYTES = {1: 1, 2: 1, 3: 2, 4: 3, 5: 4, 6: 4, 7: 8, 27: 1}
"""Bytes of a sample by the encoding of an AU file."""

_Part = tuple[bytes, int, int]
"""The name of a part of a file, where its content begins, and the size that it states."""


def measure_length(place: str | Place) -> float | None:
    """The duration of a file or a member of a shard in seconds; None where its header does not tell, or is broken."""
    try:
        with Bytes(place) as source:
            return read_length(source)
    except FileFailure:
        return None


def read_length(source: Bytes) -> float | None:
    """The duration in seconds by the header of a file; None where that does not tell.

    Raises:
        FileFailure: the header is broken, or cannot be read.
    """
    with file_boundary(source):
        return _read(source)


def _read(source: Bytes) -> float | None:
    head = source.peek(0, 16)
    for begins, read in _READERS:
        if head.startswith(begins):
            return read(source)
    if head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip"):
        return _read_mp4(source)
    return read_mp3_duration(source)


def _walk(source: Bytes, at: int, layout: str, *, aligned: int = 1, counts_head: bool = False) -> Iterator[_Part]:
    """The parts of a file from ``at`` on.

    Args:
        layout: that of the head of a part: a name and a size, as ``struct`` has it.
        aligned: where parts begin. counts_head: whether a size includes the head.
    """
    n_head = struct.calcsize(layout)
    for _ in range(_MOST_PARTS):
        if len(head := source.peek(at, n_head)) < n_head:
            return
        name, size = struct.unpack(layout, head)
        size -= n_head if counts_head else 0
        yield name[:4], at + n_head, size
        if size < 0:
            return
        at += n_head + -(-size // aligned) * aligned


def _read_wave(source: Bytes, parts: Iterator[_Part], order: str = "<") -> float | None:
    bytes_per_s = 0
    for name, begin, size in parts:
        if name == b"fmt ":
            [bytes_per_s] = struct.unpack(f"{order}I", source.peek(begin + 8, 4))
        elif name == b"data":
            rest = source.size_bytes - begin
            return min(size or rest, rest) / bytes_per_s if bytes_per_s else None
    return None


def _read_wav(source: Bytes) -> float | None:
    return _read_wave(source, _walk(source, 12, "<4sI", aligned=2))


def _read_rifx(source: Bytes) -> float | None:
    return _read_wave(source, _walk(source, 12, ">4sI", aligned=2), ">")


def _read_w64(source: Bytes) -> float | None:
    return _read_wave(source, _walk(source, 40, "<16sq", aligned=8, counts_head=True))


def _read_aiff(source: Bytes) -> float | None:
    for name, begin, _ in _walk(source, 12, ">4sI", aligned=2):
        if name == b"COMM":
            n_samples, exponent, mantissa = struct.unpack(">2xI2xHQ", source.peek(begin, 18))
            rate_hz = math.ldexp(mantissa, (exponent & 0x7FFF) - 16_383 - 63)
            return float(n_samples / rate_hz) if rate_hz else None
    return None


def _read_caf(source: Bytes) -> float | None:
    rate_hz, n_bytes, n_samples = 0.0, 0, 0
    for name, begin, size in _walk(source, 8, ">4sq"):
        if name == b"desc":
            rate_hz, n_bytes, n_samples = struct.unpack(">d8xII", source.peek(begin, 24))
        elif name == b"pakt" and rate_hz > 0:
            return float(int.from_bytes(source.peek(begin + 8, 8)) / rate_hz)
        elif name == b"data" and n_bytes and rate_hz > 0:
            rest = source.size_bytes - begin
            return float((min(size, rest) if size >= 0 else rest) / n_bytes * n_samples / rate_hz)
    return None


def _read_au(source: Bytes) -> float | None:
    begin, size, encoding, rate_hz, channels = struct.unpack(">5I", source.peek(4, 20))
    bytes_per_s = _AU_BYTES.get(encoding, 0) * rate_hz * channels
    return min(size, source.size_bytes - begin) / bytes_per_s if bytes_per_s else None


def _read_flac(source: Bytes) -> float | None:
    """Source: RFC 9639, section 8.2."""
    [numbers] = struct.unpack(">Q", source.peek(18, 8))
    rate_hz, n_samples = numbers >> 44, numbers & (1 << 36) - 1
    return n_samples / rate_hz if rate_hz and n_samples else None


def _read_ogg(source: Bytes) -> float | None:
    """By the last page. Sources: RFC 3533, RFC 7845 and the specification of Vorbis."""
    head = source.peek(0, 80)[28:]
    if head.startswith(b"OpusHead"):
        rate_hz = RATE_HZ
    elif head.startswith(b"\x01vorbis"):
        [rate_hz] = struct.unpack("<I", head[12:16])
    elif head.startswith(b"Speex   "):
        [rate_hz] = struct.unpack("<I", head[36:40])
    elif head.startswith(b"\x7fFLAC"):
        rate_hz = int.from_bytes(head[27:30]) >> 4
    else:
        return None
    tail = source.peek(max(0, source.size_bytes - 2 * _LONGEST_PAGE), 2 * _LONGEST_PAGE)
    at = tail.rfind(b"OggS")
    [n_samples] = struct.unpack("<q", tail[at + 6 : at + 14])
    return n_samples / rate_hz if rate_hz and n_samples > 0 else None


def _read_mp4(source: Bytes) -> float | None:
    """Source: ISO/IEC 14496-12, the box ``mvhd``."""
    at, end = 0, source.size_bytes
    for _ in range(_MOST_PARTS):
        size, name, wide = struct.unpack(">I4sQ", source.peek(at, 16))
        n_head, size = (16, wide) if size == 1 else (8, size or end - at)
        if name == b"mvhd":
            is_wide = source.peek(at + n_head, 1) == b"\1"
            layout, skipped = (">IQ", 20) if is_wide else (">II", 12)
            scale, duration = struct.unpack(layout, source.peek(at + n_head + skipped, struct.calcsize(layout)))
            return float(duration / scale) if scale and duration else None
        if size < n_head:
            return None
        at += n_head if name == b"moov" else size
    return None


_READERS: tuple[tuple[tuple[bytes, ...], Callable[[Bytes], float | None]], ...] = (
    ((b"RIFF", b"RF64", b"BW64"), _read_wav),
    ((b"RIFX",), _read_rifx),
    ((b"riff\x2e\x91\xcf\x11",), _read_w64),
    ((b"FORM",), _read_aiff),
    ((b"caff",), _read_caf),
    ((b".snd",), _read_au),
    ((b"fLaC",), _read_flac),
    ((b"OggS",), _read_ogg),
    ((b"\x1a\x45\xdf\xa3",), matroska.read_duration),
)
"""How to read a file, by its first bytes."""
