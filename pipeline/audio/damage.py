"""Where a sound is damaged, in seconds of what its reader gives: of a range, only what lies within it counts."""

from array import array
from bisect import bisect_left

from pipeline.audio.timeline import GAP_S

_FEW_PACKETS = 2
"""As many packets of a healthy file may not decode, or one in ``_MANY``: many mp3 files begin or end with a tag or half
a frame."""

_MANY = 1_000


def are_many(n_bad: int, n_packets: float) -> bool:
    """Whether more packets do not decode than in a healthy file."""
    return n_bad > max(_FEW_PACKETS, n_packets // _MANY)


class Damage:
    """Notes what is missing while a sound is decoded. A place takes 8 or 16 bytes of memory."""

    def __init__(self) -> None:
        self.now_s = 0.0
        """Up to where the sound has been decoded."""
        self.n_packets = 0
        self.few_bytes = 0.0
        """So many may be lost in a healthy file."""
        self._gap_ends_s, self._gaps_s = array("d"), array("d")
        self._bad_s = array("d")
        self._worst: str | None = None
        self._losses_s, self._losses_bytes = array("d"), array("q")

    def note_gap(self, length_s: float) -> None:
        """What is missing up to now, and is silence."""
        self._gap_ends_s.append(self.now_s)
        self._gaps_s.append(length_s)

    def note_packet(self, why: str) -> None:
        """A packet does not decode."""
        self._bad_s.append(self.now_s)
        self._worst = why

    def note_bytes(self, n_bytes: int) -> None:
        """Bytes do not decode, in a sound whose packets have no times."""
        self._losses_s.append(self.now_s)
        self._losses_bytes.append(n_bytes)

    def describe(self, first_s: float, stop_s: float) -> str | None:
        """One line on what is missing between two times, if it is much. The sound has been decoded up to there."""
        missing_s = 0.0
        for at in range(bisect_left(self._gap_ends_s, first_s), len(self._gaps_s)):  # the first that ends behind it
            end_s, gap_s = self._gap_ends_s[at], self._gaps_s[at]
            if end_s - gap_s >= stop_s:
                break
            missing_s += min(end_s, stop_s) - max(end_s - gap_s, first_s)
        if missing_s > GAP_S:
            return f"{missing_s:.3f} s of this range are missing, and taken as silence"
        n_bad = bisect_left(self._bad_s, stop_s) - bisect_left(self._bad_s, first_s)
        share = (min(stop_s, self.now_s) - first_s) / self.now_s if self.now_s else 1.0
        if self._worst is not None and are_many(n_bad, share * self.n_packets):
            return f"{n_bad} packets of this range cannot be decoded: {self._worst}"
        begin, end = bisect_left(self._losses_s, first_s), bisect_left(self._losses_s, stop_s)
        n_bytes = sum(self._losses_bytes[begin:end])
        return f"{n_bytes:,} bytes of this range do not decode" if n_bytes > self.few_bytes else None
