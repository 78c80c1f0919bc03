"""The recordings that are cut: opened only if they still have the bytes that were indexed."""

from typing import Any

from pipeline import storage
from pipeline.audio.excerpt import Excerpt, open_excerpt
from pipeline.audio.source import hash_file, resolve_uri
from pipeline.corpus.shards import Place
from pipeline.errors import FileFailure
from pipeline.export.labels import Label, quote
from pipeline.schema import Row
from pipeline.search.client import Index

CHANGED = FileFailure("read", "vanished", "has other bytes than when it was indexed; run `earshot reindex`")

MOST_KEPT = 10_000
"""Files of which it is kept whether they have changed."""


def open_as_is(label: Label, start_s: float, end_s: float | None) -> Excerpt:
    """Open a span of a label's file, whatever its bytes are now. Raises as ``open_excerpt``."""
    return open_excerpt(label.uri, start_s, end_s)


class Recordings:
    """The recordings of an index. Files that it does not have are opened as they are."""

    def __init__(self, index: Index) -> None:
        self._index = index
        self._has_changed: dict[str, bool] = {}

    def open(self, label: Label, start_s: float, end_s: float | None) -> Excerpt:
        """Open a span of a label's file.

        Raises:
            FileFailure: as ``open_excerpt``; ``vanished``, too, where its bytes are others now.
        """
        if label.file_id is not None:
            if label.file_id not in self._has_changed:
                if len(self._has_changed) >= MOST_KEPT:
                    self._has_changed.clear()
                self._has_changed[label.file_id] = self._look(label.uri, label.file_id)
            if self._has_changed[label.file_id]:
                raise CHANGED
        return open_as_is(label, start_s, end_s)

    def _look(self, uri: str, file_id: str) -> bool:
        columns = ["size_bytes", "modified_ns", "content_hash"]
        rows = self._index.to_arrow("files", columns, f"file_id = {quote(file_id)}").to_pylist()
        return bool(rows) and has_changed(uri, rows[0])


def has_changed(uri: str, row: Row) -> bool:
    """Whether a file has other bytes than its row in the ledger says. They are hashed only if its time is another.

    Raises:
        FileFailure: it is gone, or cannot be read.
    """
    place, _, _ = resolve_uri(uri)
    if row["content_hash"] is None or _stat(place) == (row["size_bytes"], row["modified_ns"]):
        return False
    return bool(hash_file(place) != row["content_hash"])


def _stat(place: str | Place) -> Any:
    """Size and time as the ledger has them; a member has its own size, and the time of its shard."""
    try:
        if isinstance(place, Place):
            return place.size_bytes, storage.stat_file(place.shard)[1]
        return storage.stat_file(place)
    except Exception:  # each store has errors of its own; reading will tell
        return None
