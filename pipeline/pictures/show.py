"""Pictures of an index: a file with the curves of texts, or the events that were found.

A file that is gone, or cannot be decoded, still has its curves; a note says why there is no sound to show.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pipeline.errors import FileFailure, UsageError
from pipeline.pictures.figure import Panel
from pipeline.pictures.spectrogram import Spectrogram, View, read_spectrogram
from pipeline.pictures.times import show_tick
from pipeline.search.curves import FileFrames
from pipeline.search.events import Rules
from pipeline.search.found import Event
from pipeline.search.presence import Presences
from pipeline.words import show_path

if TYPE_CHECKING:
    from pipeline.search.client import Index

MOST_TEXTS = 5
"""Curves in one figure."""

MOST_EVENTS = 6
"""Events in one figure: the best."""

_FILE_VIEW, _EVENT_VIEW = View(1_240, 384), View(672, 204)
_AROUND_S, _LEAST_S = 1.0, 4.0
"""What is shown at either side of an event, and at least in all."""


def show_file(
    index: "Index", uri: str, texts: Sequence[str], span_s: tuple[float, float | None], rules: Rules
) -> Panel:
    """A span of a file, the curve of each text in it, and its events.

    Args:
        span_s: from when to when, in seconds; None stands for the end.

    Raises:
        UsageError: the index has no such file or no frames, the span ends before it begins or begins behind the file,
            or there are too many texts.
    """
    if len(texts) > MOST_TEXTS:
        raise UsageError(f"--text: {len(texts)} texts are more than the {MOST_TEXTS} that one figure has room for")
    file = index.find_file(uri)
    (start_s, end_s), duration_s = span_s, file.holder.duration_s
    stop_s = duration_s if end_s is None else min(end_s, duration_s)
    if not 0.0 <= start_s < stop_s:
        asked = f"from {start_s:g} s" + ("" if end_s is None else f" to {end_s:g} s")
        raise UsageError(f"{uri}: nothing {asked}: the file lasts {duration_s:.2f} s")
    curves = [index.curve(text, file.holder.uri, start_s, stop_s) for text in texts]
    spectrogram, notes = _look_at(file, (start_s, stop_s), _FILE_VIEW, Presences())
    return Panel(show_path(file.holder.uri), start_s, stop_s, spectrogram, curves, rules, notes)


def show_event(index: "Index", text: str, event: Event, rules: Rules, presences: Presences) -> Panel:
    """An event and what is around it, with the curve of its text.

    Args:
        presences: shared by the events of a figure, which may lie in one file.
    """
    file = index.find_file(event.uri)
    middle_s, duration_s = (event.start_s + event.end_s) / 2, file.holder.duration_s
    half_s = max(_LEAST_S, event.end_s - event.start_s + 2 * _AROUND_S) / 2
    start_s = max(0.0, min(middle_s - half_s, duration_s - 2 * half_s))
    end_s = min(start_s + 2 * half_s, duration_s)
    curve = index.curve(text, event.uri, start_s, end_s)
    spectrogram, notes = _look_at(file, (start_s, end_s), _EVENT_VIEW, presences)
    title = f"{event.rank}   {show_path(event.uri)}"
    times = f"{show_tick(event.start_s, 0.01)} to {show_tick(event.end_s, 0.01)}"
    caption = f"{times}   {event.probability:.3f}"
    return Panel(title, start_s, end_s, spectrogram, [curve], rules, notes, (event.start_s, event.end_s), caption)


def _look_at(
    file: FileFrames, span_s: tuple[float, float], view: View, presences: Presences
) -> tuple[Spectrogram | None, list[str]]:
    """The spectrogram of a span of a file, and remarks on it; None if the file cannot be read."""
    uri = file.holder.uri
    try:
        found = read_spectrogram(uri, *span_s, view)
    except FileFailure as failure:
        if failure.reason == "vanished":
            return None, ["the file is gone; its scores are those stored in the index"]
        return None, [f"the file cannot be read ({failure.reason}: {failure.message}); its scores are stored"]
    notes = ["times may be off by some hundredths of a second"] if found.is_approximate else []
    if _has_changed(file, presences):
        notes.insert(0, "the file has changed since it was indexed: the scores are those of its former content")
    return found, notes


def _has_changed(file: FileFrames, presences: Presences) -> bool:
    """Whether a file has other bytes than the indexed one. One of another time and the same size is hashed."""
    row = {name: getattr(file, name) for name in ("size_bytes", "modified_ns", "content_hash")}
    try:
        return presences.find({"uri": file.holder.uri, **row}).is_changed
    except Exception:  # each store has errors of its own; that it could be read is known
        return False
