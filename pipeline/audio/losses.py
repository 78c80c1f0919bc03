"""How many bytes of a sound do not decode, where packets have no times that would show it: mp3, ADTS, AC-3 and DTS.

FFmpeg joins damaged bytes to one large packet, which fails or decodes to a single frame, or leaves them out. Bytes
before the first and behind the last packets that decode do not count: many healthy files have tags or half a frame
there, and a few of any bytes look like a frame.
"""

_LARGE = 8
"""A packet of so many usual ones, and of ``_LARGE_BYTES``, holds more than one frame."""

_LARGE_BYTES = 8_192
_FEW = 4
"""As many usual packets may be lost: a healthy file may have a small tag in the middle."""

_SURE = 8
"""So many packets that decode one after the other are sound."""


class Losses:
    """Counts the bytes of packets as they are decoded."""

    def __init__(self) -> None:
        self._n_good = self._n_since = 0
        self._good_bytes = self._bad_bytes = self._lost_bytes = 0
        self._all_bytes = 0
        self._begin: int | None = None

    def note(self, size_bytes: int, at: int | None, *, decodes: bool) -> None:
        """Count a packet. Args: ``at``: where it lies in the file, if that is known."""
        self._begin = at if self._begin is None else self._begin
        self._all_bytes += size_bytes
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
        left_out = 0 if self._begin is None else end - self._begin - self._all_bytes
        lost_bytes = self._lost_bytes + (left_out if left_out > _LARGE_BYTES else 0)
        if not self._n_good or lost_bytes <= _FEW * self._usual_bytes:
            return None
        return f"{lost_bytes:,} bytes of the sound do not decode"

    @property
    def _usual_bytes(self) -> float:
        return self._good_bytes / self._n_good
