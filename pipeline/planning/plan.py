"""What a run will do: ``decide.make_plan`` makes a plan, and the run carries it out."""

from collections.abc import Set
from dataclasses import dataclass, field

import pyarrow as pa

from pipeline import schema
from pipeline.audio.decoder_versions import Correction
from pipeline.schema import Row

ACTIONS = (
    *("new", "changed", "redecoded", "examined", "moved", "duplicate"),
    *("retried", "metadata", "failed", "deleted", "unchanged"),
)
"""What happens to a file.

- new, changed, retried: it is decoded and encoded; redecoded: likewise, since the same bytes decode differently now;
- examined: the same bytes may decode differently now: it is looked at, and encoded again only if it does;
- moved, duplicate: the rows of a file with the same bytes are copied; if a correction concerns that one, the copy is
  examined, and called so;
- metadata: its rows are written again with other values in the user's columns;
- failed: it cannot be read, or it failed before and is not tried again;
- deleted: its rows are removed; unchanged: they stay.
"""


@dataclass
class Plan:
    """What a run will do with each file. Seconds are estimates from the sizes of the files and the headers of some."""

    batches: pa.Table = field(default_factory=schema.PLANNED.empty_table)
    """PLANNED rows, longest first."""
    failed: list[Row] = field(default_factory=list)
    """Ledger rows of files that cannot be listed or read."""
    mtime_changed: list[Row] = field(default_factory=list)
    """Ledger rows, with the new time, of files whose bytes are the same. These files count as unchanged."""
    outdated: Set[str] = frozenset()
    """Uris of files in the ledger whose metadata is not what the sources say."""
    metadata_changed: list[Row] = field(default_factory=list)
    """Ledger rows, with the new time, of outdated files that need no decoding, and count as unchanged, and of those
    that are examined."""
    notes: tuple[str, ...] = ()
    """What a person should know, a line each."""
    not_looked_at: dict[str, int] = field(default_factory=dict)
    """Files in the sources that are not planned, by extension (``ignored_files.IgnoredFiles.count``)."""
    copies: list[tuple[Row, str]] = field(default_factory=list)
    """Ledger rows of files whose content is indexed already, each with the id of a file that holds it."""
    holders: dict[str, str] = field(default_factory=dict)
    """The ids of these holders, by uri."""
    examined_copies: set[str] = field(default_factory=set)
    """Uris of copies of files that a correction concerns. They are examined, too, and count then."""
    corrected: dict[str, Correction] = field(default_factory=dict)
    """By uri: the correction because of which a file of the same bytes is decoded again, or examined."""
    deleted: list[Row] = field(default_factory=list)
    """Ledger rows of files that are no longer there."""
    removed: dict[str, str] = field(default_factory=dict)
    """By id, the uris of indexed files that are deleted or cannot be read, and have not moved: the run removes them
    from the index. Unreadable files that keep their rows are not among them."""
    refused: str | None = None
    """Why the run may not remove these files; None where it may."""
    mounts: list[str] = field(default_factory=list)
    """The mount points that files of the corpus lie on."""
    unreadable: list[tuple[str, str]] = field(default_factory=list)
    """(uri, message) of indexed files that cannot be read now. They keep their rows and count as unchanged."""
    actions: list[tuple[str, str, str]] = field(default_factory=list)
    """(uri, action, reason) of every file, if ``list_actions``; the action is one of ``ACTIONS``."""
    list_actions: bool = True
    n_unchanged: int = 0
    n_failed_before: int = 0
    """Unchanged files that failed in an earlier run."""
    n_redecoded: int = 0
    """Files that are decoded again because of a correction, and files with the same bytes; ``seconds_redecoded`` of
    audio. Files that are examined first are not among them."""
    seconds_redecoded: float = 0.0
    n_examined: int = 0
    """Files that are looked at, since they may decode differently; up to ``seconds_examined`` of audio will have to be
    encoded."""
    seconds_examined: float = 0.0
    n_to_decode: int = 0
    """Files to decode and encode, those that are decoded again included, without those that are examined first."""
    seconds_to_decode: float = 0.0
    bytes_to_decode: int = 0
    bytes_to_write: int = 0
    """The vectors that the run will add to the index, by the estimated duration, without what is examined first."""
    bytes_examined: int = 0
    """The vectors that it will add besides if all that is examined decodes differently."""
    lack_of_space: str | None = None
    """A line where the disk of the index has less room than both."""

    def note(self, uri: str, action: str, reason: str) -> None:
        if self.list_actions:
            self.actions.append((uri, action, reason))
