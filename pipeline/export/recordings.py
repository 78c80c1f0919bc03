"""The recordings that are cut: opened only if they still have the bytes that were indexed."""

from pipeline.audio.excerpt import Excerpt, open_excerpt
from pipeline.audio.source import unreadable
from pipeline.errors import FileFailure
from pipeline.export.labels import Label
from pipeline.index.tables import quote
from pipeline.search.client import Index
from pipeline.search.presence import Presences


def open_as_is(label: Label, start_s: float, end_s: float | None) -> Excerpt:
    """Open a span of a label's file, whatever its bytes are now. Raises as ``open_excerpt``."""
    return open_excerpt(label.uri, start_s, end_s)


class Recordings:
    """The recordings of an index. Files that it does not have are opened as they are."""

    def __init__(self, index: Index) -> None:
        self._index = index
        self._presences = Presences()

    def open(self, label: Label, start_s: float, end_s: float | None) -> Excerpt:
        """Open a span of a label's file.

        Raises:
            FileFailure: as ``open_excerpt``; ``vanished``, too, where its bytes are others now.
        """
        if label.file_id is not None and self._has_changed(label.file_id):
            raise FileFailure("read", "vanished", "has other bytes than when it was indexed; run `earshot reindex`")
        return open_as_is(label, start_s, end_s)

    def _has_changed(self, file_id: str) -> bool:
        columns = ["uri", "size_bytes", "modified_ns", "content_hash"]
        rows = self._index.to_arrow("files", columns, f"file_id = {quote(file_id)}").to_pylist()
        try:
            return any(self._presences.find(row).is_changed for row in rows)
        except Exception as error:  # each store has errors of its own
            raise unreadable(error) from None
