"""Counts the files that a listing finds and ignores, by extension, so that a person can be told.

Most of them are expected: notes, pictures, sidecars. But a folder of sounds with an extension that nobody thought of
must not go unnoticed.
"""

import threading
from array import array
from collections.abc import Iterator, Mapping
from itertools import chain

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.corpus.shards import extension_of
from pipeline.corpus.time_ranges import recording_of
from pipeline.schema import LISTED

MOST_KINDS = 20
"""The most frequent extensions are named; the others are summed up."""

HIDDEN, LINKS = "hidden", "links to folders"
NO_EXTENSION, OTHERS = "without an extension", "others"

_LONGEST = 12
"""Letters of an extension; a longer one, or one with blanks, is rather the end of a sentence."""

_MOST_NAMES = 10_000
"""Extensions that are counted separately."""

_URIS_AT_ONCE = 100_000
"""Listed files that are Python strings at the same time."""


class IgnoredFiles:
    """Takes the uris of ignored files, in any order and from any thread. Each counts once.

    There may be as many as there are audio files, so only 12 bytes of each are kept.
    """

    def __init__(self) -> None:
        self._kinds: dict[str, int] = {}
        self._uris, self._of_kind = array("q"), array("i")
        self._used = set[int]()
        self._lock = threading.Lock()

    def add(self, uri: str, kind: str) -> None:
        """Note a file under a kind: its extension (``kind_of``), ``HIDDEN`` or ``LINKS``."""
        with self._lock:
            if kind not in self._kinds and len(self._kinds) >= _MOST_NAMES:
                kind = OTHERS
            self._uris.append(hash(uri))
            self._of_kind.append(self._kinds.setdefault(kind, len(self._kinds)))

    def add_file(self, uri: str) -> None:
        """Note a file under its extension."""
        self.add(uri, kind_of(extension_of(uri)))

    def take_back(self, uri: str) -> None:
        """Note that a file is used after all: another source names it."""
        self._used.add(hash(uri))

    @property
    def n_noted(self) -> int:
        """How many times a file was noted."""
        return len(self._uris)

    def count(self, listed: pa.Table, since: int = 0) -> dict[str, int]:
        """How many files of each kind: the most frequent extensions first, then hidden files, then links.

        Args:
            listed: a LISTED table: its files are not ignored, even if they were noted.
            since: leave out this many of the first notes (``n_noted``).
        """
        uris, first = np.unique(np.array(self._uris[since:], np.int64), return_index=True)
        if not len(uris):
            return {}
        used = np.fromiter(chain(map(hash, _recordings(listed)), self._used), np.int64)
        numbers = np.array(self._of_kind[since:], np.int64)[first[~np.isin(uris, used)]]
        counts = np.bincount(numbers, minlength=len(self._kinds)).tolist()
        return _order({kind: counts[number] for kind, number in self._kinds.items() if counts[number]})

    def summarize_since(self, n_noted: int) -> str:
        """The end of a message that no file was found: the files ignored since the first ``n_noted`` notes."""
        said = summarize(self.count(LISTED.empty_table(), n_noted))
        return f"; not looked at: {said}" if said else ""


def _recordings(listed: pa.Table) -> Iterator[str]:
    """The uris of the recordings in a LISTED table, those of ranges too: only some are strings at the same time."""
    for first in range(0, len(listed), _URIS_AT_ONCE):
        some = listed.slice(first, _URIS_AT_ONCE)
        is_range = pc.or_(pc.is_valid(some["start_s"]), pc.is_valid(some["end_s"]))
        yield from map(recording_of, some.filter(is_range).select(["uri", "start_s", "end_s"]).to_pylist())
        yield from some["uri"].filter(pc.invert(is_range)).to_numpy()


def _order(counts: dict[str, int]) -> dict[str, int]:
    last = {kind: counts.pop(kind) for kind in (HIDDEN, LINKS) if kind in counts}
    n_others = counts.pop(OTHERS, 0)
    by_count = sorted(counts.items(), key=lambda each: (-each[1], each[0]))
    n_others += sum(count for _, count in by_count[MOST_KINDS:])
    return {**dict(by_count[:MOST_KINDS]), **({OTHERS: n_others} if n_others else {}), **last}


def kind_of(extension: str) -> str:
    """The kind that a file counts as.

    Args:
        extension: in lower case and without its dot (``shards.extension_of``).
    """
    is_one = 0 < len(extension) <= _LONGEST and extension.isprintable() and " " not in extension
    return f".{extension}" if is_one else NO_EXTENSION


def summarize(counts: Mapping[str, int]) -> str:
    """One line on the files that were ignored and the settings that decide; empty if there were none.

    ``12 .txt, 3 .jpg, 2 without an extension (corpus.extensions chooses), 1 hidden (corpus.hidden)``
    """
    said = ", ".join(f"{count} {kind}" for kind, count in counts.items() if kind not in (HIDDEN, LINKS))
    found = [f"{said} (corpus.extensions chooses)"] if said else []
    if n_hidden := counts.get(HIDDEN, 0):
        found.append(f"{n_hidden} hidden (corpus.hidden)")
    if n_links := counts.get(LINKS, 0):
        found.append(f"{n_links} {LINKS if n_links > 1 else 'link to a folder'} (corpus.follow_symlinks)")
    return ", ".join(found)
