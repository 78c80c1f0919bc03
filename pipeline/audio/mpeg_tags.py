"""The tags around the frames of an mp3 or ADTS file, and the header in the first frame that states the duration.

FFmpeg takes a tag behind the last frame for damaged frames. A picture in it may even contain something like a frame.

Sources: ID3v2.4 (section 3.1 header, 3.4 footer), APEv2 (hydrogenaudio wiki, "APE Tags Header"), Lyrics3 v2.00.
"""

from pipeline.audio.source import Bytes

_MOST_TAGS = 8
"""Some taggers put another tag before or behind an existing one."""

_MOST_APE_ITEMS = 1_000


def find_tag_end(source: Bytes, at: int) -> int:
    """Where the ID3v2 tag that begins at ``at`` ends; ``at`` if none begins there."""
    head = source.peek(at, 10)
    if head[:3] != b"ID3" or len(head) < 10 or 0xFF in head[3:5] or max(head[6:]) > 0x7F:
        return at
    return at + 10 + _synchsafe(head[6:]) + (10 if head[5] & 0x10 else 0)  # bit 4: a footer


def skip_tags(source: Bytes, at: int = 0) -> int:
    """Where the ID3v2 tags that begin at ``at``, one behind the other, end."""
    for _ in range(_MOST_TAGS):
        end = find_tag_end(source, at)
        if end == at:
            break
        at = end
    return at


def find_frames_end(source: Bytes) -> int:
    """Where the tags at the end of an mp3 or ADTS file begin: ID3v1, Lyrics3, APE, ID3v2 with a footer."""
    end = source.size_bytes
    head = source.peek(0, 3)
    if head != b"ID3" and not (head[:1] == b"\xff" and head[1:2] >= b"\xe0"):
        return end
    for _ in range(_MOST_TAGS):
        begin = end - _last_tag_bytes(source, end)
        if not 0 < begin < end:
            break
        end = begin
    return end


def _last_tag_bytes(source: Bytes, end: int) -> int:
    """The size of the tag that ends at ``end``; 0 if none ends there."""
    tail = source.peek(max(0, end - 128), min(end, 128))
    if tail[:3] == b"TAG" and len(tail) == 128:
        return 128
    size, mark = 0, b""
    if tail[-9:] == b"LYRICS200" and tail[-15:-9].isdigit():
        size, mark = int(tail[-15:-9]) + 15, b"LYRICSBEGIN"
    elif tail[-32:-24] == b"APETAGEX":
        size = int.from_bytes(tail[-20:-16], "little")
        if not tail[-9] & 0x80:  # bit 31 of the flags: there is a header, which the stated size leaves out
            return size if _are_ape_items(source, end, size, int.from_bytes(tail[-16:-12], "little")) else 0
        size, mark = size + 32, b"APETAGEX"
    elif tail[-10:-7] == b"3DI" and max(tail[-4:]) <= 0x7F:
        size, mark = _synchsafe(tail[-4:]) + 20, b"ID3"
    # A wrong size would cut off the sound.
    return size if 0 < size <= end and source.peek(end - size, len(mark)) == mark else 0


def _are_ape_items(source: Bytes, end: int, size: int, n_items: int) -> bool:
    """Whether so many items fill an APE tag without a header up to its footer."""
    at, stop = end - size, end - 32
    if not 0 <= at <= stop or n_items > _MOST_APE_ITEMS:
        return False
    for _ in range(n_items):
        head = source.peek(at, 8 + 256)
        n_key = head.find(b"\0", 8) - 8
        if n_key < 2 or at >= stop:
            return False
        at += 8 + n_key + 1 + int.from_bytes(head[:4], "little")
    return at == stop


def _synchsafe(size: bytes) -> int:
    """A number in four times seven bits."""
    return sum(byte << shift for byte, shift in zip(size, (21, 14, 7, 0), strict=True))


def read_mp3_duration(source: Bytes) -> float | None:
    """The duration in the Xing, Info or VBRI header in the first frame of an mp3; None without such a header.

    Source: the MPEG frame header, and the layouts of Xing (with LAME's delay and padding) and VBRI.
    """
    frame = source.peek(skip_tags(source), 1024)
    if len(frame) < 4 or frame[0] != 0xFF or frame[1] & 0xE6 != 0xE2:  # sync, layer III
        return None
    version, rate = frame[1] >> 3 & 3, frame[2] >> 2 & 3  # versions 2.5, reserved, 2, 1
    if version == 1 or rate == 3:
        return None
    rate_hz = (44_100, 48_000, 32_000)[rate] >> (2, 0, 1, 0)[version]
    n_frames, n_padding = 0, 0
    if (at := max(frame.find(b"Xing"), frame.find(b"Info"))) >= 0 and frame[at + 7] & 1:
        n_frames = int.from_bytes(frame[at + 8 : at + 12])
        if frame[at + 120 : at + 124] in (b"LAME", b"Lavf", b"Lavc"):
            delays = int.from_bytes(frame[at + 141 : at + 144])
            n_padding = (delays >> 12) + (delays & 0xFFF)
    elif (at := frame.find(b"VBRI")) >= 0:
        n_frames = int.from_bytes(frame[at + 14 : at + 18])
    n_samples = n_frames * (1152 if version == 3 else 576) - n_padding
    return n_samples / rate_hz if n_samples > 0 else None
