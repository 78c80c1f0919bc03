"""Ranges of recordings: each is a file of the corpus by itself, named ``file.wav#t=10,20``.

That is how W3C's Media Fragments (section 4.2.1) write the stretch from second 10 to second 20; an open side is left
out: ``#t=10``, ``#t=,20``. One range has one name: seconds are written as the shortest decimal that is exactly they.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from pipeline.grid import seconds_to_samples

_MARK = "#t="
_WRITTEN = re.compile(_MARK + r"(\d+(?:\.\d+)?)?(?:,(\d+(?:\.\d+)?))?$")


@dataclass(frozen=True)
class TimeRange:
    """From ``start_s`` to ``end_s`` of a recording; None: from its beginning, or to its end.

    ``str`` of it is what the uri of the recording is followed by: nothing, where the range is all of it.
    """

    start_s: float | None = None
    end_s: float | None = None

    def __str__(self) -> str:
        if not self:
            return ""
        return f"{_MARK}{_number(self.start_s)}" + (f",{_number(self.end_s)}" if self.end_s is not None else "")

    def __bool__(self) -> bool:
        """Whether there is any limit."""
        return bool(self.start_s) or self.end_s is not None

    @property
    def samples(self) -> tuple[int, int | None]:
        """The first sample at 48 kHz, and the one behind the last; None: to the end."""
        return seconds_to_samples(self.start_s or 0.0), None if self.end_s is None else seconds_to_samples(self.end_s)

    def narrow(self, start_s: float, end_s: float | None) -> "TimeRange":
        """A range of this range."""
        begin_s = self.start_s or 0.0
        ends_s = [end for end in (self.end_s, None if end_s is None else begin_s + end_s) if end is not None]
        return TimeRange(begin_s + start_s, min(ends_s, default=None))

    def within(self, duration_s: float | None) -> float | None:
        """How long the range is of a recording of this duration, as far as that can be told."""
        if self.end_s is None and duration_s is None:
            return None
        return max(0.0, (duration_s or 0.0 if self.end_s is None else self.end_s) - (self.start_s or 0.0))


def _number(seconds: float | None) -> str:
    if not seconds:
        return ""
    text = repr(seconds)
    return format(Decimal(text), "f") if "e" in text else text.removesuffix(".0")


def range_of(row: Mapping[str, Any]) -> TimeRange:
    """The range of a row of LISTED or AUDIO."""
    return TimeRange(row.get("start_s"), row.get("end_s"))


def recording_of(row: Mapping[str, Any]) -> str:
    """The uri of the recording that the file of a LISTED row is, or is a range of."""
    return without_time_range(str(row["uri"])) if range_of(row) else str(row["uri"])


def without_time_range(uri: str) -> str:
    """The recording that the uri of a range begins with: a million of them are asked for several times each."""
    return uri[: uri.rindex(_MARK)]


def split_uri(uri: str) -> tuple[str, TimeRange]:
    """The recording and the range that a uri is written as that of; a file may have such a name too."""
    found = _WRITTEN.search(uri)
    if found is None or not any(found.groups()):
        return uri, TimeRange()
    start_s, end_s = (None if text is None else float(text) for text in found.groups())
    if end_s is not None and end_s <= (start_s or 0.0):
        return uri, TimeRange()
    return uri[: found.start()], TimeRange(start_s or None, end_s)
