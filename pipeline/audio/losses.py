"""How many bytes of a sound do not decode, where packets have no times that would show it: mp3, ADTS, AC-3 and DTS.

FFmpeg joins damaged bytes to one large packet, which fails or decodes to a single frame, or leaves them out. Packets
before the first and behind the last ones that decode do not count: many healthy files have half a frame there, and a
few of any bytes look like a frame. Tags are no sound, wherever they are.
"""

import math
from collections.abc import Callable

_LARGE = 8
"""A packet of so many usual ones, and of ``_LARGE_BYTES``, holds more than one frame."""

_LARGE_BYTES = 8_192
_FEW = 4
"""As many usual packets may be lost: a healthy file may have a small tag in the middle."""

_SURE = 8
"""So many packets that decode one after the other are sound."""


class Losses:
    """Counts the bytes of packets as they are decoded.

    Args:
        skip_tags: where the tags that begin at a place in the file end; that place, if none does.
    """

    def __init__(self, skip_tags: Callable[[int], int]) -> None:
        self._skip_tags = skip_tags
        self._n_good = self._n_since = 0
        self._good_bytes = self._bad_bytes = self._lost_bytes = 0
        self._all_bytes = self._tag_bytes = 0
        self._begin: int | None = None
        self._next: int | None = None
        """Where the next packet lies in the file if nothing is left out before it."""

    def note(self, size_bytes: int, at: int | None, *, decodes: bool) -> None:
        """Count a packet. Args: ``at``: where it lies in the file, if that is known."""
        self._begin = at if self._begin is None else self._begin
        self._all_bytes += size_bytes
        if at is not None:
            self._tag_bytes += self._find_tag_bytes(at)
            self._next = at + size_bytes
        if not self._n_good and not decodes:
            return
        usual_bytes = self._usual_bytes if self._n_good else size_bytes
        is_large = size_bytes > max(_LARGE * usual_bytes, _LARGE_BYTES)
        if not decodes or is_large:
            self._bad_bytes += size_bytes - (round(usual_bytes) if decodes else 0)
            self._n_since = 0
            return
        self._good_bytes += size_bytes
        self._n_good += 1
        self._n_since += 1
        if self._n_since == _SURE:
            self._lost_bytes += self._bad_bytes
            self._bad_bytes = 0

    def describe(self, end: int) -> str | None:
        """One line, if much is lost. Args: ``end``: where the sound ends in the file."""
        lost_bytes = self.count(end)
        return f"{lost_bytes:,} bytes of the sound do not decode" if lost_bytes > self.few_bytes else None

    def count(self, end: int | None = None) -> int:
        """How many bytes are lost. Args: ``end``: up to where in the file; by default up to the newest packet."""
        end = self._next if end is None else end
        if self._begin is None or end is None:
            return self._lost_bytes
        left_out = end - self._begin - self._all_bytes - self._tag_bytes - self._find_tag_bytes(end)
        return self._lost_bytes + (left_out if left_out > _LARGE_BYTES else 0)

    @property
    def few_bytes(self) -> float:
        """So many may be lost in a healthy file; any number if nothing decodes, which is another failure."""
        return _FEW * self._usual_bytes if self._n_good else math.inf

    def _find_tag_bytes(self, until: int) -> int:
        """Bytes of tags in what is left out since the last packet."""
        if self._next is None or until <= self._next:
            return 0
        return min(until, self._skip_tags(self._next)) - self._next

    @property
    def _usual_bytes(self) -> float:
        return self._good_bytes / self._n_good
