"""Where the frames of a stream lie in time: which jumps of its clock are gaps, to be filled with silence.

Zero is the beginning of the container: of its picture, if the sound begins later. A frame whose time is ahead of the
samples so far follows a gap, with these exceptions, in which the sound goes on without silence:

- The gap would reach beyond the duration that the container states.
- All gaps together would be an hour longer than the sound so far: the clock is broken. A container that states its
  duration may have longer ones, up to a second for each hundred bytes of the file.
- The clock belongs to a stream that may be spliced (MPEG-TS, MPEG-PS): it jumps by more than ten seconds or backwards,
  and the picture does not go on in between. FFmpeg's command line has the same limit (``-dts_delta_threshold``).
"""

import math
from dataclasses import dataclass

GAP_S = 0.1
"""A longer gap between packets becomes silence, so that later times are right, and counts as damage ..."""

OPUS_GAP_S = 1.0
"""... except in opus, which sends nothing for 0.4 s at a time during silence (discontinuous transmission)."""

JUMPS_NOTE = "its clock jumps ahead"
"""How the remark on jumps that are no gaps begins. It is complete only when all of a file is decoded."""

TRACKS_NOTE = "sound tracks; number"
"""A part of the remark on several tracks, by which corrections find stored rows: it must stay as it is."""

_GAP_BYTES_PER_S = 100
"""A large file may have long gaps. Sound itself may take fewer bytes: opus sends 25 a second in pauses."""

_HOUR_S = 3_600.0
_SPLICE_S = 10.0
_BACK_S = 1.0
_MOST_STRETCHES = 16
_ROUNDING_S = 0.005
"""Containers round times, some to milliseconds."""


class Neighbour:
    """Another stream of picture or sound in the container, as far as it has been read."""

    def __init__(self, first_s: float, last_s: float) -> None:
        self.first_s, self.last_s = first_s, last_s
        self.landed_s: float | None = None
        """Where its clock last jumped to."""
        self._stretches = [(first_s, last_s)]
        """The first ones between jumps of its clock: where they begin and end."""

    def see(self, time_s: float) -> None:
        if abs(time_s - self.last_s) > _SPLICE_S:
            self.landed_s = time_s
            if len(self._stretches) <= _MOST_STRETCHES:
                self._stretches.append((time_s, time_s))
        if len(self._stretches) <= _MOST_STRETCHES:
            first_s, last_s = self._stretches[-1]
            self._stretches[-1] = min(first_s, time_s), max(last_s, time_s)
        self.first_s, self.last_s = min(self.first_s, time_s), time_s

    def begins_before(self, time_s: float) -> float | None:
        """Where the stretch without a jump begins that lies around this time; None if there is none."""
        near = (first_s for first_s, last_s in self._stretches if first_s - _SPLICE_S <= time_s <= last_s + _SPLICE_S)
        return min(near, default=None)

    def goes_on_to(self, time_s: float) -> bool:
        """Whether it has reached about this time without a jump to there."""
        is_there = abs(time_s - self.last_s) <= _SPLICE_S
        return is_there and (self.landed_s is None or abs(time_s - self.landed_s) > _SPLICE_S)


def find_zero(sound_s: float, neighbours: list[Neighbour], duration_s: float | None) -> float | None:
    """When the first of the other streams begins, if the sound begins at ``sound_s``; None if there are none.

    Args:
        neighbours: the other streams. Those with another clock are left out: they end long before the sound begins,
            though they are near it in the file.
        duration_s: what the container states, if it does.
    """
    begins_s = []
    for other in neighbours:
        begin_s = max(0.0, other.first_s)
        is_near = sound_s - other.last_s <= _SPLICE_S
        if is_near or (duration_s is not None and sound_s - begin_s < duration_s):
            begins_s.append(begin_s)
    return min(begins_s, default=None)


def find_spliced_zero(sound_s: float, neighbours: list[Neighbour]) -> float | None:
    """As ``find_zero``, where clocks may be spliced: what a stream plays before a jump of its clock does not count."""
    begins_s = (other.begins_before(sound_s) for other in neighbours)
    return min((begin_s for begin_s in begins_s if begin_s is not None), default=None)


@dataclass(frozen=True, slots=True)
class Container:
    """What a container tells about the clock of its sound.

    ``zero_s`` is when the first other stream begins, ``first_s`` when the sound does, whether that decodes or not.
    ``duration_s`` is what the container states. ``may_splice`` tells whether the clock may be set anew in the middle.
    """

    size_bytes: int
    duration_s: float | None
    zero_s: float | None = None
    may_splice: bool = False
    first_s: float | None = None


class Timeline:
    """The clock of a stream. ``at_s`` is the time at which the next frame is due, counted from the beginning.

    Args:
        neighbours: the other streams, as far as they have been read; needed only if the clock may be spliced.
        damage_s: silence that is longer counts as ``filled_s``.
    """

    def __init__(self, container: Container, neighbours: list[Neighbour], damage_s: float = GAP_S) -> None:
        self.at_s = 0.0
        self.filled_s = 0.0
        self.n_refused = 0
        """How many jumps ahead are not filled ..."""
        self.longest_refused_s = 0.0
        """... and the longest of them."""
        self._skipped_s = 0.0
        self._container, self._neighbours, self._damage_s = container, neighbours, damage_s
        self._zero_s: float | None = None
        self._newest_s = 0.0
        self._may_splice = container.may_splice
        self._end_s = math.inf if container.duration_s is None else container.duration_s + GAP_S
        self._by_size_s = container.size_bytes / _GAP_BYTES_PER_S

    @property
    def zero_s(self) -> float | None:
        """What the clock shows at the beginning; None before the first frame."""
        return self._zero_s

    def silence_before(self, time_s: float) -> float:
        """How much silence comes before a frame of this time."""
        if self._zero_s is None:
            silence_s = self._begin(time_s)
        elif not self._may_splice and time_s - self._zero_s - self.at_s <= GAP_S:
            return 0.0  # what nearly all frames have
        else:
            silence_s = self._go_on(time_s, self._zero_s)
        self._newest_s = time_s
        self.at_s += silence_s
        return silence_s

    def _begin(self, time_s: float) -> float:
        begin_s = time_s - self.at_s  # after a pause
        heard_s = begin_s  # by the clock before a splice
        lost_s = 0.0 if self._container.first_s is None else begin_s - self._container.first_s
        if self._may_splice and (lost_s < -_BACK_S or (lost_s > _SPLICE_S and not self._go_on_to(time_s))):
            if lost_s > 0:
                self._refuse(lost_s)
            heard_s, lost_s = begin_s - lost_s, 0.0
        lost_s = lost_s if lost_s > GAP_S else 0.0  # decoders leave out an encoder's delay
        lead_s = max(lost_s, 0.0 if self._container.zero_s is None else heard_s - self._container.zero_s)
        may_be_long = self._may_splice or self._container.duration_s is not None
        if lead_s >= min(self._end_s, max(_HOUR_S, self._by_size_s if may_be_long else 0.0)):
            self._refuse(lead_s)
            lead_s = lost_s = 0.0
        self.filled_s += lost_s if lost_s > self._damage_s else 0.0
        lead_s = lead_s if lead_s > _ROUNDING_S else 0.0
        self._zero_s = begin_s - lead_s
        return lead_s

    def _go_on(self, time_s: float, zero_s: float) -> float:
        ahead_s = time_s - zero_s - self.at_s
        if ahead_s > self._skipped_s - GAP_S:  # the clock goes on behind a jump that was refused
            ahead_s -= self._skipped_s
        is_back = self._may_splice and time_s < self._newest_s - _BACK_S
        if not is_back and ahead_s <= GAP_S:
            return 0.0
        if not is_back and self._is_gap(time_s, ahead_s):
            self.filled_s += ahead_s if ahead_s > self._damage_s else 0.0
            return ahead_s
        if not is_back:
            self._refuse(ahead_s)
        if self._may_splice:
            self._zero_s = zero_s + ahead_s
        else:
            self._skipped_s += ahead_s
        return 0.0

    def _refuse(self, ahead_s: float) -> None:
        self.n_refused += 1
        self.longest_refused_s = max(self.longest_refused_s, ahead_s)

    def has_room(self, ahead_s: float, at_s: float, filled_s: float) -> bool:
        """Whether a gap may be so long.

        Args:
            at_s: where it begins. filled_s: of the sound before, how much is gaps.
        """
        if at_s + ahead_s >= self._end_s:
            return False
        most_s = at_s - filled_s + _HOUR_S
        if self._container.duration_s is not None:
            most_s = max(most_s, self._by_size_s)
        return filled_s + ahead_s <= most_s

    def _is_gap(self, time_s: float, ahead_s: float) -> bool:
        if not self.has_room(ahead_s, self.at_s, self.filled_s):
            return False
        if not self._may_splice or ahead_s <= _SPLICE_S:
            return True
        return self._go_on_to(time_s)

    def _go_on_to(self, time_s: float) -> bool:
        """Whether the picture or another sound goes on to this time."""
        return any(other.goes_on_to(time_s) for other in self._neighbours)
