"""The recordings that are cut: opened only if they still have the bytes that were indexed."""

from collections.abc import Sequence

from pipeline.audio.excerpt import Excerpt, open_excerpt
from pipeline.audio.source import unreadable
from pipeline.errors import FileFailure
from pipeline.export.labels import Label
from pipeline.index.tables import among
from pipeline.schema import Row
from pipeline.search.client import Index
from pipeline.search.presence import Presences
from pipeline.storage import chunked

FILES_AT_ONCE = 500
"""Files whose rows are read together."""

COLUMNS = ["file_id", "uri", "size_bytes", "modified_ns", "content_hash"]


def open_as_is(label: Label, start_s: float, end_s: float | None) -> Excerpt:
    """Open a span of a label's file, whatever its bytes are now. Raises as ``open_excerpt``."""
    return open_excerpt(label.uri, start_s, end_s)


class Recordings:
    """The recordings of labels. Files that the index does not have are opened as they are.

    Args:
        labels: all whose files will be opened. Opening them in this order reads the fewest rows ahead.
    """

    def __init__(self, index: Index, labels: Sequence[Label]) -> None:
        self._index = index
        self._presences = Presences()
        file_ids = dict.fromkeys(label.file_id for label in labels if label.file_id is not None)
        self._waiting = chunked(file_ids, FILES_AT_ONCE)
        self._rows: dict[str, Row] = {}

    def open(self, label: Label, start_s: float, end_s: float | None) -> Excerpt:
        """Open a span of a label's file.

        Raises:
            FileFailure: as ``open_excerpt``; ``vanished``, too, where its bytes are others now.
        """
        if label.file_id is not None and self._has_changed(label.file_id):
            raise FileFailure("read", "vanished", "has other bytes than when it was indexed; run `earshot reindex`")
        return open_as_is(label, start_s, end_s)

    def _has_changed(self, file_id: str) -> bool:
        row = self._find(file_id)
        try:
            return row is not None and self._presences.find(row).is_changed
        except Exception as error:  # each store has errors of its own
            raise unreadable(error) from None

    def _find(self, file_id: str) -> Row | None:
        """The row of a file; None if the index has none."""
        while file_id not in self._rows and (some := next(self._waiting, None)):
            rows = self._index.to_arrow("files", COLUMNS, among("file_id", some)).to_pylist()
            self._rows |= {row["file_id"]: row for row in rows}
        return self._rows.get(file_id)
