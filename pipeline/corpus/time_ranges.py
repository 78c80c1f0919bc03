"""Time ranges of recordings: each is a file of the corpus by itself, named ``file.wav#t=10,20``.

W3C's Media Fragments (section 4.2.1) write seconds 10 to 20 of a recording like this, and leave out an open side:
``#t=10``, ``#t=,20``. A range has exactly one name: seconds are written as their shortest exact decimal.
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
    """From ``start_s`` to ``end_s`` of a recording; None stands for its beginning or its end.

    ``str`` gives the suffix of the uri: empty if the range is the whole recording.
    """

    start_s: float | None = None
    end_s: float | None = None

    def __str__(self) -> str:
        if not self:
            return ""
        return f"{_MARK}{_number(self.start_s)}" + (f",{_number(self.end_s)}" if self.end_s is not None else "")

    def __bool__(self) -> bool:
        """False for the whole recording."""
        return bool(self.start_s) or self.end_s is not None

    @property
    def samples(self) -> tuple[int, int | None]:
        """The first sample at 48 kHz, and the one behind the last; None stands for the end."""
        return seconds_to_samples(self.start_s or 0.0), None if self.end_s is None else seconds_to_samples(self.end_s)

    def narrow(self, start_s: float, end_s: float | None) -> "TimeRange":
        """A range of this range."""
        begin_s = self.start_s or 0.0
        ends_s = [end for end in (self.end_s, None if end_s is None else begin_s + end_s) if end is not None]
        return TimeRange(begin_s + start_s, min(ends_s, default=None))

    def within(self, duration_s: float | None) -> float | None:
        """Duration of the range in a recording of this duration; None if that cannot be told."""
        if self.end_s is None and duration_s is None:
            return None
        return max(0.0, (duration_s or 0.0 if self.end_s is None else self.end_s) - (self.start_s or 0.0))


def _number(seconds: float | None) -> str:
    if not seconds:
        return ""
    text = repr(seconds)
    return format(Decimal(text), "f") if "e" in text else text.removesuffix(".0")


def range_of(row: Mapping[str, Any]) -> TimeRange:
    """The time range of a row of LISTED or AUDIO."""
    return TimeRange(row.get("start_s"), row.get("end_s"))


def recording_of(row: Mapping[str, Any]) -> str:
    """The uri of the recording of a LISTED row, which is the file itself or contains it as a range."""
    return without_time_range(str(row["uri"])) if range_of(row) else str(row["uri"])


def without_time_range(uri: str) -> str:
    """The uri of a time range without its suffix. Fast: it is called several times for each of a million ranges."""
    return uri[: uri.rindex(_MARK)]


def split_uri(uri: str) -> tuple[str, TimeRange]:
    """Split a uri that reads as that of a time range into recording and range. A file may have such a name, too."""
    found = _WRITTEN.search(uri)
    if found is None or not any(found.groups()):
        return uri, TimeRange()
    start_s, end_s = (None if text is None else float(text) for text in found.groups())
    if end_s is not None and end_s <= (start_s or 0.0):
        return uri, TimeRange()
    return uri[: found.start()], TimeRange(start_s or None, end_s)
