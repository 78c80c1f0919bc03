"""What a person says of a sound, and a mark as it is read: values alone, no tables."""

import datetime as dt
import getpass
import math
import os
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

from pipeline.errors import UsageError, suggest
from pipeline.grid import LONGEST_S

T = TypeVar("T")
R = TypeVar("R")

VERDICTS = ("right", "wrong", "unsure")
TAKEN_BACK = "none"
"""The verdict of a row that takes a mark back."""

_AUDIO_ID = re.compile("[0-9a-f]{32}")

Status = Literal["here", "gone"]


@dataclass(frozen=True)
class Judgement:
    """What a person says: whether ``text`` describes a file from ``start_s`` to ``end_s``.

    Without times, the whole file is meant. ``audio_id`` names the content that was heard, so that the mark is right
    even if the file has changed since; without it, the content is that of the file in the index.
    """

    uri: str
    text: str
    verdict: str
    start_s: float = 0.0
    end_s: float | None = None
    score: float | None = None
    who: str | None = None
    """By default the user of this process."""
    audio_id: str | None = None
    marked_at: dt.datetime | None = None
    """By default now. A time of its own is kept, so that an older mark does not replace a newer one."""
    replaces: dt.datetime | None = None
    """The ``marked_at`` of the mark that this one corrects, as undo does. It counts against that one alone: a mark of
    someone else in between, or at the same moment, stays the newest."""
    where: str = ""
    """Where it was read, for messages: ``marks.csv: line 7``."""

    def error(self, message: str) -> UsageError:
        return UsageError(f"{self.where}: {message}" if self.where else message)


@dataclass(frozen=True)
class Mark:
    """A mark that counts, with times in seconds of the file, as hits have them.

    ``uri`` is the file that was marked, or another one that holds its content now. Where none does, it is the one that
    was marked.
    """

    uri: str
    start_s: float
    end_s: float
    text: str
    verdict: str
    score: float | None
    who: str
    marked_at: dt.datetime
    status: Status
    """Whether an indexed file still holds the content that was marked."""
    uris: tuple[str, ...]
    """All indexed files that hold it."""
    audio_id: str
    first_frame: int
    stop_frame: int
    """The frame behind the last one."""


class Marked(list[Mark]):
    """Marks that were made, in the order of the judgements. ``n_new`` of them had not been made before."""

    def __init__(self, marks: Iterable[Mark], n_new: int) -> None:
        super().__init__(marks)
        self.n_new = n_new


def check(judgement: Judgement) -> None:
    """Check what can be checked without an index.

    Raises:
        UsageError: naming the value and what is expected.
    """
    said = judgement
    if not (said.uri or said.audio_id):
        raise said.error("uri: is empty; give the file that was heard")
    if not said.text.strip():
        raise said.error("text: is empty; say what the sound was taken for")
    try:
        check_verdict(said.verdict)
    except UsageError as error:
        raise said.error(str(error)) from None
    for name, seconds in (("start", said.start_s), ("end", said.end_s)):
        if seconds is not None and not 0.0 <= seconds < LONGEST_S:
            raise said.error(f"{name} {seconds} s: is no time in a file")
    if said.end_s is not None and said.end_s <= said.start_s:
        raise said.error(f"end {said.end_s} s: is not after the start ({said.start_s} s)")
    if said.score is not None and not math.isfinite(said.score):
        raise said.error(f"score {said.score}: is not a finite number")
    if said.audio_id is not None and not _AUDIO_ID.fullmatch(said.audio_id):
        raise said.error(f"audio_id {said.audio_id!r}: is no id: expected 32 hexadecimal digits")
    if said.marked_at is not None and said.marked_at.tzinfo is None:
        raise said.error(f"marked_at {said.marked_at}: has no time zone")
    if said.replaces is not None and (said.replaces.tzinfo is None or said.marked_at is not None):
        raise said.error(f"replaces {said.replaces}: give a time with its zone, and no time of its own (marked_at)")
    if said.who is not None and not said.who.strip():
        raise said.error("who: is empty; give a name, or leave it out")


def collect(items: Sequence[T], make: Callable[[T], R]) -> list[R]:
    """What ``make`` makes of each item.

    Raises:
        UsageError: of the first one that it refuses, and how many others it refuses.
    """
    made, wrong = list[R](), list[UsageError]()
    for item in items:
        try:
            made.append(make(item))
        except UsageError as error:
            wrong.append(error)
    if wrong:
        others = f"; {len(wrong) - 1:,} more of {len(items):,} marks are wrong" if len(wrong) > 1 else ""
        raise UsageError(f"{wrong[0]}{others}" + ("; nothing is stored" if len(items) > 1 else ""))
    return made


def check_verdict(verdict: str, dashes: str = "") -> None:
    """Check that a verdict is known.

    Args:
        dashes: for messages, those of the option that gave it.

    Raises:
        UsageError: it is not.
    """
    known = (*VERDICTS, TAKEN_BACK)
    if verdict not in known:
        expected = f"expected {', '.join(VERDICTS)}, or none to take a mark back"
        raise UsageError(f"{dashes}verdict {verdict!r}: {expected}{suggest(verdict, known)}")


def name_user() -> str:
    """The user of this process; in a container its number may have no name."""
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):
        return f"uid {os.getuid()}"
