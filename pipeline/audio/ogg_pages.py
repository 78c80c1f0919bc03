"""The pages of an Ogg file: how it ends, and where the sound of a film ends in it.

Source: RFC 3533, section 6.
"""

from collections.abc import Iterator

from pipeline.audio.source import Bytes

_HEAD_BYTES = 27
_LONGEST = _HEAD_BYTES + 255 + 255 * 255
_BEGINS = 2
_MARK = b"OggS"

_MOST_BEHIND_BYTES = 16 << 20
"""How much of a picture is passed over, from the end of the file, to find the last page of the sound."""


def read_ogg_end(source: Bytes) -> tuple[bool, bool]:
    """Whether the last page of an Ogg file is complete, and whether its stream is one that the file begins with."""
    tail = source.peek(max(0, source.size_bytes - 2 * _LONGEST), 2 * _LONGEST)
    page = tail[max(0, tail.rfind(_MARK)) :]
    n_segments = page[26] if len(page) > 26 else 255
    whole = len(page) >= _HEAD_BYTES + n_segments + sum(page[_HEAD_BYTES : _HEAD_BYTES + n_segments])
    return whole, page[14:18] in _first_serials(source)


def find_last_granule(source: Bytes, index: int) -> int | None:
    """The granule position of the last page of a stream on which a packet ends; None if there is none near the end.

    Args:
        index: of the stream, in the order in which they begin.
    """
    serial = next((serial for number, serial in enumerate(_first_serials(source)) if number == index), None)
    end, least = source.size_bytes, max(0, source.size_bytes - _MOST_BEHIND_BYTES)
    while serial is not None and end > least:
        begin = max(least, end - _LONGEST)
        block = source.peek(begin, end - begin + _HEAD_BYTES)  # a page that begins before ``end``
        at = block.rfind(_MARK, 0, end - begin + len(_MARK) - 1)
        while at >= 0:
            granule = int.from_bytes(block[at + 6 : at + 14], "little", signed=True)
            if block[at + 14 : at + 18] == serial and granule >= 0:
                return granule
            at = block.rfind(_MARK, 0, at)
        end = begin
    return None


def _first_serials(source: Bytes) -> Iterator[bytes]:
    """The serial numbers of the streams that begin at the beginning of an Ogg file."""
    head, at = source.peek(0, _LONGEST), 0
    while head[at : at + 4] == _MARK and head[at + 5] & _BEGINS and len(head) > at + 26:
        yield head[at + 14 : at + 18]
        n_segments = head[at + 26]
        at += _HEAD_BYTES + n_segments + sum(head[at + _HEAD_BYTES : at + _HEAD_BYTES + n_segments])
