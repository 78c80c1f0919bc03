"""Where labels come from: questions to an index, its marks, or hits that were found before."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from pipeline.errors import UsageError, suggest
from pipeline.export.labels import Label, label_found, label_marks
from pipeline.index.tables import among, indexed_files
from pipeline.marks.mark import VERDICTS
from pipeline.schema import Row
from pipeline.search.client import Index
from pipeline.storage import chunked

URIS_AT_ONCE = 500
"""Files that are looked up together."""

LOOKED_UP = ("file_id", "audio_id", "sample_rate_hz")
"""The columns of ``files`` that labels have, too."""


@dataclass(frozen=True)
class Questions:
    """Texts to ask: ``queries`` for clips, ``locates`` for events. The rest as for ``Index.search`` and ``locate``."""

    queries: tuple[str, ...] = ()
    locates: tuple[str, ...] = ()
    k: int = 100
    where: str | None = None
    threshold: float = 0.3
    min_duration_s: float = 0.0
    merge_gap_s: float = 0.2
    all_windows: bool = False
    exact: bool = False


@dataclass(frozen=True)
class Answer:
    """Labels that were found, text by text, best first. ``is_cut``: exact scans might find better events."""

    labels: list[Label] = field(default_factory=list)
    is_cut: bool = False


def ask(index: Index, questions: Questions) -> Answer:
    """The hits of each text, then the events of each, as labels with what the index knows of their files.

    Raises:
        UsageError: as ``Index.search`` and ``Index.locate``.
    """
    asked = questions
    labels: list[Label] = []
    for text in asked.queries:
        hits = index.search(text, asked.k, where=asked.where, all_windows=asked.all_windows, exact=asked.exact)
        labels += label_found(hits, text)
    found = []
    if asked.locates:
        found = index.locate(
            list(asked.locates),
            asked.k,
            threshold=asked.threshold,
            min_duration_s=asked.min_duration_s,
            merge_gap_s=asked.merge_gap_s,
            where=asked.where,
            exact=asked.exact,
        )
    for text, events in zip(asked.locates, found, strict=True):
        labels += label_found(events, text)
    return Answer(complete_labels(index, labels), any(events.is_cut for events in found))


def read_marks(index: Index, verdicts: Sequence[str] = ()) -> list[Label]:
    """The marks of an index as labels, by file and time.

    Args:
        verdicts: only these; all if empty.
    """
    return complete_labels(index, label_marks(index.marks(), verdicts))


def check_verdicts(verdicts: Iterable[str]) -> None:
    """Refuse verdicts that no mark has.

    Raises:
        UsageError: naming the first one.
    """
    for verdict in verdicts:
        if verdict not in VERDICTS:
            raise UsageError(f"--verdict {verdict}: expected {', '.join(VERDICTS)}{suggest(verdict, VERDICTS)}")


def complete_labels(index: Index, labels: Iterable[Label]) -> list[Label]:
    """The labels with the ids and the sample rate of their files, as far as the index has these files.

    A label with the ``audio_id`` of another content than its file has now gets the status ``gone``.
    """
    labels = list(labels)
    rows: dict[str, Row] = {}
    for uris in chunked(dict.fromkeys(label.uri for label in labels), URIS_AT_ONCE):
        found = index.to_arrow("files", ["uri", *LOOKED_UP], indexed_files(among("uri", uris)))
        rows |= {row["uri"]: row for row in found.to_pylist()}
    return [_complete(label, rows[label.uri]) if label.uri in rows else label for label in labels]


def _complete(label: Label, row: dict[str, Any]) -> Label:
    """The label with what a row of ``files`` knows; what it has already, it keeps.

    Where the file has another content than the one that the label is about, that content is gone.
    """
    if label.audio_id is not None and label.audio_id != row["audio_id"]:
        return replace(label, status="gone")
    return replace(label, **{name: row[name] for name in LOOKED_UP if getattr(label, name) is None})
