"""What questions find: clips and events. Imports nothing heavy, so that a command can print what a server has found."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Hit:
    """A window that was found, or several merged ones of a file; ``start_s`` and ``end_s`` in seconds of the file.

    ``score`` is a dot product for a text, a cosine for a sound. ``probability`` is None for a sound.
    """

    rank: int
    uri: str
    start_s: float
    end_s: float
    score: float
    probability: float | None
    clip_id: str
    metadata: dict[str, Any] = field(default_factory=dict)
    """The user's columns."""
    audio_id: str | None = None
    """The content that was found. A mark or an export of this says so if the file has another one by then."""


@dataclass(frozen=True)
class Event:
    """A part of a file that sounds like the query. Score and probability are those of its peak frame."""

    rank: int
    uri: str
    start_s: float
    end_s: float
    score: float
    probability: float
    peak_s: float
    metadata: dict[str, Any] = field(default_factory=dict)
    """The user's columns."""
    audio_id: str | None = None
    """The content that was found. A mark or an export of this says so if the file has another one by then."""


class Events(list[Event]):
    """Events, best first.

    ``is_cut``: there were too few candidates to be as sure as usual that these are the best: very long events or files
    that ``where`` leaves out took most of them. A search with ``exact=True`` may find more.
    """

    def __init__(self, events: Iterable[Event] = (), *, is_cut: bool = False) -> None:
        super().__init__(events)
        self.is_cut = is_cut
