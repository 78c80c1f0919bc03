"""What is exported: labels. Hits, events and marks all say that a span of a file sounds like a text."""

import datetime as dt
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import lru_cache
from typing import Any

from pipeline import storage
from pipeline.corpus.shards import is_member
from pipeline.corpus.time_ranges import split_uri


@dataclass(frozen=True)
class Label:
    """From ``start_s`` to ``end_s`` of the file ``uri``, in seconds from its start; what is None is not known.

    The names of the fields are those of the hits that ``earshot query``, ``locate`` and ``similar`` print.
    """

    uri: str
    start_s: float
    end_s: float
    text: str = ""
    rank: int | None = None
    score: float | None = None
    probability: float | None = None
    peak_s: float | None = None
    verdict: str | None = None
    """Of a mark: ``right``, ``wrong`` or ``unsure``."""
    who: str | None = None
    marked_at: str | None = None
    status: str | None = None
    """``gone`` where the file has another content now than what was found or marked; ``here`` of other marks."""
    low_hz: float | None = None
    """The lowest frequency that the label is about, and the highest. Earshot itself knows of none."""
    high_hz: float | None = None
    file_id: str | None = None
    audio_id: str | None = None
    clip_id: str | None = None
    sample_rate_hz: int | None = None
    """Of the file."""
    metadata: dict[str, Any] = field(default_factory=dict)
    """The user's columns."""


MAX_KEPT_URIS = 10_000
"""Uris whose recordings are kept in memory, so that a store is not asked again for each label of a time range."""

FIELDS: tuple[str, ...] = tuple(each.name for each in fields(Label) if each.name != "metadata")


def label_found(found: Iterable[Any], text: str = "") -> list[Label]:
    """Labels of hits or events, in their order.

    Args:
        found: what ``Index.search``, ``similar`` or ``locate`` returned. text: what was asked for.
    """
    return [Label(**{"text": text} | _known(each, FIELDS), metadata=dict(each.metadata)) for each in found]


def label_marks(marks: Iterable[Any], verdicts: Sequence[str] = ()) -> list[Label]:
    """Labels of marks, by file and time.

    Args:
        marks: from ``Index.marks``. verdicts: only marks with one of these; all if empty.
    """
    chosen = (mark for mark in marks if not verdicts or mark.verdict in verdicts)
    labels = [Label(**_known(mark, FIELDS)) for mark in chosen]
    return sorted(labels, key=lambda label: (label.uri, label.start_s, label.end_s, label.text))


def _known(each: Any, names: Iterable[str]) -> dict[str, Any]:
    values = {name: getattr(each, name, None) for name in names}
    return {name: _plain(value) for name, value in values.items() if value is not None}


def _plain(value: Any) -> Any:
    return value.isoformat() if isinstance(value, dt.date) else value


# --- the recordings that labels lie in --------------------------------------------------------------------------------


def group_by_recording(labels: Iterable[Label]) -> dict[str, list[Label]]:
    """The labels of each recording, in order of time, by the recordings' uris in order.

    A time range is part of its recording: its labels get the times and the uri that they have there.
    """
    groups: dict[str, list[Label]] = {}
    for label in map(place_in_recording, labels):
        groups.setdefault(label.uri, []).append(label)
    return {
        uri: sorted(groups[uri], key=lambda label: (label.start_s, label.end_s, label.text)) for uri in sorted(groups)
    }


def place_in_recording(label: Label) -> Label:
    """The label with the uri and the times of the recording, where its file is a time range of one."""
    recording, begin_s = find_recording(label.uri)
    if recording == label.uri:
        return label
    peak_s = None if label.peak_s is None else label.peak_s + begin_s
    return replace(label, uri=recording, start_s=label.start_s + begin_s, end_s=label.end_s + begin_s, peak_s=peak_s)


@lru_cache(MAX_KEPT_URIS)
def find_recording(uri: str) -> tuple[str, float]:
    """The recording that a file is or that it is a time range of, and where it begins there, in seconds."""
    recording, time_range = split_uri(uri)
    if not time_range or (not is_member(uri) and _is_file(uri)):
        return uri, 0.0
    return recording, time_range.start_s or 0.0


def _is_file(uri: str) -> bool:
    """Whether there is a file of exactly this name, which takes precedence."""
    try:
        return storage.exists(uri)
    except Exception:  # each store has errors of its own
        return False
