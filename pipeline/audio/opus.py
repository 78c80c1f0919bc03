"""Opus streams: the samples of a packet, and those at the beginning of a stream that are not to be heard."""

RATE_HZ = 48_000

_SAMPLES = (480, 960, 1_920, 2_880) * 3 + (480, 960) * 2 + (120, 240, 480, 960) * 4
"""Samples in a frame, by the 32 configurations of RFC 6716, section 3.1: SILK, hybrid, CELT."""


def read_pre_skip(head: bytes | None) -> int:
    """How many samples to leave out, by the header of a stream (RFC 7845, section 5.1)."""
    return int.from_bytes(head[10:12], "little") if head and head[:8] == b"OpusHead" else 0


def count_samples(packet: bytes) -> int:
    """How many samples at 48 kHz a packet holds (RFC 6716, section 3.2); ``packet`` may end after two bytes."""
    if not packet:
        return 0
    n_frames = (1, 2, 2, packet[1] & 0x3F if len(packet) > 1 else 0)[packet[0] & 3]
    return n_frames * _SAMPLES[packet[0] >> 3]
