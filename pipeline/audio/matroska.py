"""What the header of a Matroska file states, where FFmpeg does not tell a statement from its own guess.

Source: RFC 8794 (EBML) and RFC 9559 (Matroska).
"""

import re
import struct
from collections.abc import Iterator, Mapping

from pipeline.audio.source import Bytes

_EBML, _SEGMENT, _INFO, _CLUSTER = 0x1A45_DFA3, 0x1853_8067, 0x1549_A966, 0x1F43_B675
_DURATION, _SCALE = 0x4489, 0x2A_D7B1
_LAYOUTS = {4: ">f", 8: ">d"}
_MOST_ELEMENTS = 1_000


def lacks_duration(source: Bytes) -> bool:
    """Whether this is a Matroska file whose header states no duration, as live streams do not.

    FFmpeg then gives the one that follows from the bit rate of mp3, ac3 or pcm.
    """
    return source.peek(0, 4) == _EBML.to_bytes(4) and read_duration(source) is None


def read_duration(source: Bytes) -> float | None:
    """The duration in seconds that the header of a Matroska file states; None if it states none."""
    scale_ns, duration = 1_000_000, 0.0
    for name, at, size in _walk_info(source):
        if name == _SCALE:
            scale_ns = int.from_bytes(source.peek(at, min(size, 8)))
        elif name == _DURATION and size in _LAYOUTS and len(number := source.peek(at, size)) == size:
            [duration] = struct.unpack(_LAYOUTS[size], number)
    return duration * scale_ns / 1e9 if duration > 0 else None


def _walk_info(source: Bytes) -> Iterator[tuple[int, int, int]]:
    """The elements of the description of the file, which comes before its sound."""
    for name, begin, size in _walk(source, 0, source.size_bytes):
        if name == _SEGMENT:
            for child, at, child_size in _walk(source, begin, begin + size):
                if child == _INFO:
                    yield from _walk(source, at, at + child_size)
                if child in (_INFO, _CLUSTER):
                    return
            return  # FFmpeg reads the first one only; a thousand of a thousand elements each would take minutes


def _walk(source: Bytes, at: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Yield the name of each element, where its content begins, and its size, up to the end of the one around it."""
    for _ in range(_MOST_ELEMENTS):
        head = source.peek(at, 12)
        n_name = 9 - head[0].bit_length() if head else 9
        n_size = 9 - head[n_name].bit_length() if len(head) > n_name else 9
        begin = at + n_name + n_size
        if at >= end or n_name > 4 or n_size > 8 or len(head) < n_name + n_size:
            return
        number = int.from_bytes(head[n_name : n_name + n_size])
        unknown = (1 << 7 * n_size) - 1
        size = number & unknown
        size = end - begin if size == unknown else size
        yield int.from_bytes(head[:n_name]), begin, size
        at = begin + size


def read_track_duration(track: Mapping[str, str], file: Mapping[str, str]) -> tuple[float, bool] | None:
    """The duration of a track in seconds, and whether it counts from the beginning of the file; None if unstated.

    FFmpeg counts from there, mkvmerge from the beginning of the track. Older versions of mkvmerge give the tag a
    language.

    Args:
        track, file: their tags.
    """
    key = next((key for key in ("DURATION", *sorted(track)) if key in track and _TAG.fullmatch(key)), None)
    match = None if key is None else _TIME.fullmatch(track[key].strip("\0 "))
    if match is None:
        return None
    by_ffmpeg = any(value.startswith("Lavf") for name, value in file.items() if name.lower() == "encoder")
    duration_s = int(match[1]) * 3_600 + int(match[2]) * 60 + float(match[3])
    return duration_s, key == "DURATION" and by_ffmpeg


_TAG = re.compile(r"DURATION(?:-\w+)?")
_TIME = re.compile(r"(\d+):(\d\d):(\d\d(?:\.\d+)?)")
