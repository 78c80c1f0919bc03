"""Sounds that are made to take time or memory, for the measurement ``hostile`` and for tests."""

import io
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

LONGEST = 65_535
"""Samples in a frame of FLAC, at most."""


def make_sound(container: str = "WAV") -> bytes:
    """A harmless second at 48 kHz, in a format of libsndfile."""
    import soundfile

    buffer, times_s = io.BytesIO(), np.arange(48_000) / 48_000
    soundfile.write(buffer, (0.5 * np.sin(2 * np.pi * 440 * times_s)).astype(np.float32), 48_000, format=container)
    return buffer.getvalue()


# --- covers -----------------------------------------------------------------------------------------------------------


def with_cover(mp3: bytes, size: int = 300_000, side: int = 16) -> bytes:
    """An mp3 behind an ID3v2 tag with a picture of ``side`` x ``side``, filled up by ``size`` bytes."""
    return with_pictures(mp3, [make_png(side) + bytes(size)])


def with_pictures(mp3: bytes, pictures: Sequence[bytes]) -> bytes:
    """An mp3 behind an ID3v2 tag with PNG pictures."""
    framed = [b"\0image/png\0" + bytes([3 + number]) + b"\0" + picture for number, picture in enumerate(pictures)]
    body = b"".join(b"APIC" + struct.pack(">IH", len(frame), 0) + frame for frame in framed)
    return b"ID3\x03\0\0" + bytes(len(body) >> shift & 0x7F for shift in (21, 14, 7, 0)) + body + mp3


def make_png(side: int = 16) -> bytes:
    """A black picture of ``side`` x ``side``."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    packer = zlib.compressobj(1)  # row by row: a large picture is a gigabyte
    rows = b"".join(packer.compress(bytes(1 + 3 * side)) for _ in range(side)) + packer.flush()
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


# --- FLAC -------------------------------------------------------------------------------------------------------------


def make_silent_flac(duration_s: int, rate_hz: int = 1_000, *, states_length: bool = True) -> bytes:
    """Silence in as few bytes as possible: 14 for 65,535 samples (RFC 9639)."""
    n_frames = duration_s * rate_hz // LONGEST
    layout = rate_hz << 44 | 15 << 36 | (n_frames * LONGEST if states_length else 0)
    info = 2 * LONGEST.to_bytes(2) + bytes(6) + layout.to_bytes(8) + bytes(16)
    frames = []
    for number in range(n_frames):
        head = b"\xff\xf8\x70\x08" + chr(number).encode("utf-8", "surrogatepass") + (LONGEST - 1).to_bytes(2)
        body = head + _crc(head, 8, 0x07) + bytes(3)
        frames.append(body + _crc(body, 16, 0x8005))
    return b"fLaC\x80" + len(info).to_bytes(3) + info + b"".join(frames)


def _crc(data: bytes, bits: int, polynomial: int) -> bytes:
    total = 0
    for byte in data:
        total ^= byte << (bits - 8)
        for _ in range(8):
            total = (total << 1 ^ (polynomial if total >> (bits - 1) else 0)) & ((1 << bits) - 1)
    return total.to_bytes(bits // 8)


def claim_samples(flac: bytes) -> bytes:
    """A FLAC whose header counts 2^36 - 1 samples, the most that fit."""
    return flac[:21] + bytes([flac[21] | 0x0F]) + b"\xff" * 4 + flac[26:]


def write_silence(path: Path, hours: float, rate_hz: int = 16_000) -> None:
    """A recording of silence, in FLAC as libsndfile writes it."""
    import soundfile

    minute = np.zeros(60 * rate_hz, np.int16)
    with soundfile.SoundFile(path, "w", rate_hz, 1, format="FLAC") as file:
        for _ in range(round(60 * hours)):
            file.write(minute)
