"""Recordings of the index to be heard: the file of a uri, checked, and the WAV file that a span of it is."""

import contextlib
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from jobs.serve.errors import FileChanged, NotFound
from jobs.serve.wave import MAX_BYTES, Excerpt, Wave, make_wave
from pipeline.errors import UsageError
from pipeline.schema import Row
from pipeline.search.presence import Presence
from pipeline.search.recent import Recent

Open = Callable[[str, float, float | None], Any]
"""``pipeline.audio.excerpt.open_excerpt``."""


@dataclass(frozen=True)
class Sound:
    """What has to be known of a recording before its bytes can be counted."""

    sample_rate_hz: int
    channels: int
    duration_s: float


@dataclass(frozen=True)
class Span:
    """A part of a file, in seconds; ``end_s`` is None for its end."""

    start_s: float = 0.0
    end_s: float | None = None


class Sounds:
    """Opens files of the index, and keeps what it learns of them."""

    def __init__(self, open_excerpt: Open) -> None:
        self._open = open_excerpt
        self._known: Recent[tuple[Any, ...], Sound] = Recent(20_000)

    def find(self, file: Row) -> Sound:
        """The rate and the channels that the file is decoded with.

        Raises:
            UsageError: nothing of it can be decoded. FileFailure: as ``open_excerpt``.
        """
        key = (file["uri"], file["size_bytes"], file["modified_ns"], file["content_hash"])
        if known := self._known.find([key]):
            return known[key]
        with contextlib.closing(self._open(file["uri"], 0.0, None)) as excerpt:
            rate_hz, n_samples = excerpt.sample_rate_hz, excerpt.n_samples
            stated_s = None if n_samples is None else n_samples / rate_hz
            duration_s = file["duration_s"] if file["duration_s"] is not None else stated_s
            if not duration_s:
                raise UsageError(f"{file['uri']}: its length is unknown, so it cannot be played")
            sound = Sound(rate_hz, excerpt.channels, float(duration_s))
        self._known.keep({key: sound})
        return sound

    def open(self, file: Row) -> Callable[[float, float | None], Excerpt]:
        """Opens spans of a file."""
        return lambda start_s, end_s: self._open(file["uri"], start_s, end_s)


def make_span_wave(uri: str, sound: Sound, span: Span, expand: int) -> Wave:
    """The WAV file of a span, which ends with the recording at the latest.

    Raises:
        UsageError: there is nothing in the span, or more than a WAV file can hold.
    """
    end_s = sound.duration_s if span.end_s is None else min(span.end_s, sound.duration_s)
    check_span(uri, span, sound.duration_s)
    wave = make_wave(sound.sample_rate_hz, sound.channels, span.start_s, end_s, expand)
    if wave.n_bytes > MAX_BYTES:
        most_s = (MAX_BYTES - 44) // wave.sample_bytes * wave.step // sound.sample_rate_hz
        raise UsageError(
            f"end_s: from {span.start_s:g} to {end_s:g} s is a WAV file of {wave.n_bytes / 1e9:.1f} GB, and one can"
            f" hold {MAX_BYTES / 1e9:.1f} GB: ask for at most {most_s:,} s at once"
        )
    return wave


def check_span(uri: str, span: Span, duration_s: float | None) -> None:
    """Refuse a span without anything in it.

    Raises:
        UsageError: it ends before it begins, or begins after the end of the recording.
    """
    if span.end_s is not None and span.end_s <= span.start_s:
        raise UsageError(f"end_s: {span.end_s:g} s is not after start_s ({span.start_s:g} s)")
    if duration_s is not None and span.start_s >= duration_s:
        raise UsageError(f"start_s: {span.start_s:g} s, and {uri} lasts {duration_s:.3f} s")


def require_whole(file: Row, presence: Presence) -> None:
    """Refuse to play what is not the indexed file.

    Raises:
        NotFound: it has gone. FileChanged: another file is at its place.
    """
    if presence.is_gone:
        raise NotFound(f"{file['uri']}: has gone since it was indexed; its scores are still there")
    if presence.is_changed:
        raise FileChanged(
            f"{file['uri']}: has changed since it was indexed; `earshot reindex` brings the index up to date"
        )


def make_key(*parts: object) -> str:
    """One name for everything that decides a picture."""
    return hashlib.sha256("\0".join(map(repr, parts)).encode("utf-8", "surrogatepass")).hexdigest()


def make_content_key(file: Row) -> str:
    """One name for the content of a file, wherever it lies."""
    if file["audio_id"] is not None:
        return str(file["audio_id"])
    return make_key(file["uri"], file["size_bytes"], file["modified_ns"])
