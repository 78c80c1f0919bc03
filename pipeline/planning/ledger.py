"""The published ``files`` in, the row of each file out, kept up to date as batches are committed.

The table stays in Arrow. For each file, 16 bytes tell where in it to find a uri or a content. Rows that batches write
are held beside the table, and merged into it once there are many.
"""

from collections.abc import Iterable, Set

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.schema import Row

MOST_LENGTHS = 20_000
"""Files whose lengths tell those of others."""

LEAST_BESIDE = 20_000
"""Up to this many new rows, or a quarter of the table if that is more, are held beside it. Each takes 100 times the
memory of a row in the table."""


class Places:
    """Finds texts in a column by their hashes."""

    def __init__(self, column: pa.ChunkedArray, chosen: npt.NDArray[np.int64] | None = None) -> None:
        """Args: ``chosen``: the rows of the column to find texts in; by default all."""
        hashes = np.fromiter((hash(text) for chunk in column.chunks for text in chunk.to_pylist()), np.int64)
        rows = np.arange(len(hashes)) if chosen is None else chosen
        order = np.argsort(hashes[rows], kind="stable")
        self._column, self._rows, self._hashes = column, rows[order], hashes[rows][order]

    def find(self, text: str) -> list[int]:
        """The rows that hold a text."""
        wanted = np.int64(hash(text))
        first, stop = (np.searchsorted(self._hashes, wanted, side) for side in ("left", "right"))
        return [int(row) for row in self._rows[first:stop] if self._column[int(row)].as_py() == text]

    def find_all(self, texts: list[str]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """All rows that hold one of the texts, as two arrays: the number of the text, and the row. Both ascend."""
        wanted = np.fromiter(map(hash, texts), np.int64, len(texts))
        first, stop = (np.searchsorted(self._hashes, wanted, side) for side in ("left", "right"))
        counts = stop - first
        numbers = np.repeat(np.arange(len(texts)), counts)
        rows = self._rows[np.arange(len(numbers)) - np.repeat(np.cumsum(counts) - counts - first, counts)]
        held = self._column.take(pa.array(rows)).to_pylist()
        same = np.fromiter((texts[k] == text for k, text in zip(numbers, held, strict=True)), bool, len(held))
        return numbers[same], rows[same]

    def find_last(self, texts: list[str]) -> npt.NDArray[np.int64]:
        """The last row that holds each text; -1 where there is none."""
        found = np.full(len(texts), -1, np.int64)
        np.maximum.at(found, *self.find_all(texts))
        return found


class Ledger:
    """The rows of ``files`` by uri, and the files that hold each content.

    Args:
        files: the published ``files`` table.
    """

    def __init__(self, files: pa.Table) -> None:
        self._set(files)

    def _set(self, files: pa.Table) -> None:
        self._files = files.combine_chunks()
        is_indexed = np.asarray(pc.equal(self._files["status"], "indexed"), bool)
        self._by_uri = Places(self._files["uri"])
        self._by_audio = Places(self._files["audio_id"], np.flatnonzero(is_indexed))
        self._newer: dict[str, Row] = {}
        self._holders: dict[str, tuple[str, ...]] = {}
        """By audio id, the files that hold a content now, for contents whose holders have changed."""

    def _merge(self) -> None:
        """Merge the new rows into the table."""
        if self._newer:
            replaced = self._by_uri.find_last(list(self._newer))
            stay = np.ones(self._files.num_rows, bool)
            stay[replaced[replaced >= 0]] = False
            nullable = pa.schema([column.with_nullable(True) for column in self._files.schema])
            newer = pa.Table.from_pylist(list(self._newer.values()), schema=nullable)
            kept = self._files.filter(pa.array(stay)).cast(newer.schema)
            self._set(pa.concat_tables([kept, newer]))

    @property
    def rows(self) -> dict[str, Row]:
        """All rows, by uri: takes much memory."""
        return {row["uri"]: row for row in self._files.to_pylist()} | self._newer

    def look_up(self, uris: list[str], columns: list[str] | None = None) -> list[Row | None]:
        """The rows of files, or some of their columns and ``status``; None for a file that is unknown or deleted."""
        self._merge()
        if not self._files.num_rows:
            return [None] * len(uris)
        at = self._by_uri.find_last(uris)
        known = np.flatnonzero(at >= 0)
        files = self._files if columns is None else self._files.select(["status", *columns])
        rows: list[Row | None] = [None] * len(uris)
        for number, row in zip(known, files.take(pa.array(at[known])).to_pylist(), strict=True):
            rows[number] = None if row["status"] == "deleted" else row
        return rows

    def _row(self, uri: str) -> Row | None:
        if uri in self._newer:
            return self._newer[uri]
        at = self._by_uri.find(uri)
        return self._at(max(at)) if at else None

    def _at(self, number: int) -> Row:
        [row] = self._files.slice(number, 1).to_pylist()
        return dict(row)

    def knows(self, uri: str) -> bool:
        """Whether the file has a row, even as deleted."""
        return uri in self._newer or bool(self._by_uri.find(uri))

    def live(self, uri: str) -> Row | None:
        """The row of a file; None if it is unknown or deleted."""
        row = self._row(uri)
        return None if row is None or row["status"] == "deleted" else row

    def find_deleted(self, listed: pa.ChunkedArray) -> list[Row]:
        """The rows of files that the newest run saw, and that are not among the ``listed`` uris."""
        self._merge()
        was_there = pc.not_equal(self._files["status"], "deleted")
        is_deleted = pc.and_(was_there, pc.invert(pc.is_in(self._files["uri"], value_set=listed)))
        return list(self._files.filter(is_deleted).to_pylist())

    def indexed(self) -> pa.ChunkedArray:
        """The uris of all indexed files."""
        self._merge()
        return self._files["uri"].filter(pc.equal(self._files["status"], "indexed"))

    def lengths(self) -> pa.Table:
        """``uri``, ``size_bytes`` and ``duration_s`` of indexed files that are whole: of ``MOST_LENGTHS`` at most, from
        everywhere in the table."""
        self._merge()
        is_whole = pc.and_(pc.equal(self._files["status"], "indexed"), pc.is_null(self._files["reason"]))
        chosen = np.flatnonzero(pc.and_(is_whole, pc.is_valid(self._files["size_bytes"])))
        chosen = chosen[:: max(1, -(-len(chosen) // MOST_LENGTHS))]
        return self._files.select(["uri", "size_bytes", "duration_s"]).take(pa.array(chosen))

    def sizes(self) -> set[int]:
        """The sizes of all contents whose hash is known, in bytes."""
        self._merge()
        known = pc.and_(pc.not_equal(self._files["status"], "deleted"), pc.is_valid(self._files["content_hash"]))
        return set(pc.unique(self._files["size_bytes"].filter(known)).drop_null().to_pylist())

    def _held_by(self, audio_id: str) -> tuple[str, ...]:
        """The uris of the indexed files with this content."""
        if audio_id in self._holders:
            return self._holders[audio_id]
        return tuple(self._files["uri"][at].as_py() for at in self._by_audio.find(audio_id))

    def holder(self, audio_id: str, prefer: Set[str] = frozenset()) -> Row | None:
        """The row of the first indexed file with this content, one of ``prefer`` if possible; None if there is none."""
        uris = set(self._held_by(audio_id))
        return self._row(min(uris & prefer or uris)) if uris else None

    def holders(self, audio_id: str) -> list[Row]:
        """The rows of all indexed files with this content."""
        return [row for uri in self._held_by(audio_id) if (row := self._row(uri)) is not None]

    def holds(self, audio_id: str) -> bool:
        """Whether an indexed file has this content, so that its frames are in the index."""
        return bool(self._held_by(audio_id))

    def shared_before(self, version: int, columns: list[str]) -> list[Row]:
        """Columns of the rows of contents that several files have or had, of those that an older version decoded."""
        self._merge()
        is_older = pc.less(pc.fill_null(self._files["decoder"], 1), version)
        is_older = pc.and_(is_older, pc.not_equal(self._files["status"], "deleted"))
        if not pc.any(is_older).as_py():
            return []
        counts = pc.value_counts(self._files["audio_id"])
        several = pc.struct_field(counts, "values").filter(pc.greater(pc.struct_field(counts, "counts"), 1))
        is_shared = pc.is_in(self._files["audio_id"], value_set=several.drop_null())
        return list(self._files.filter(pc.and_(is_older, is_shared)).select(columns).to_pylist())

    def _find_replaced(self, uris: list[str]) -> dict[str, Row]:
        """By uri, the ids and the status of these files' rows in the table."""
        at = self._by_uri.find_last(uris)
        some = self._files.select(["uri", "file_id", "status", "audio_id"]).take(pa.array(at[at >= 0]))
        return {row["uri"]: row for row in some.to_pylist()}

    def _note_holders(self, audio_ids: Set[str]) -> None:
        """Look up the holders of many contents at once."""
        sought = [audio_id for audio_id in audio_ids if audio_id not in self._holders]
        numbers, rows = self._by_audio.find_all(sought)
        holders: dict[str, list[str]] = {audio_id: [] for audio_id in sought}
        for number, uri in zip(numbers, self._files["uri"].take(pa.array(rows)).to_pylist(), strict=True):
            holders[sought[number]].append(uri)
        self._holders |= {audio_id: tuple(uris) for audio_id, uris in holders.items()}

    def apply(self, files: Iterable[Row]) -> tuple[frozenset[str], frozenset[str]]:
        """Replace the rows of these files.

        Returns:
            The ids of the files whose clips must be removed, and of the audios whose frames must be: no file holds them
            any more.
        """
        rows = list(files)
        was = self._find_replaced([row["uri"] for row in rows if row["uri"] not in self._newer])
        self._note_holders({row["audio_id"] for row in (*rows, *was.values()) if row["status"] == "indexed"})
        drop_files: set[str] = set()
        left: set[str] = set()
        for row in rows:
            uri = row["uri"]
            old = self._newer.get(uri, was.get(uri))
            if old is not None:
                drop_files.add(old["file_id"])
                if old["status"] == "indexed":
                    audio_id = old["audio_id"]
                    self._holders[audio_id] = tuple(other for other in self._held_by(audio_id) if other != uri)
                    left.add(audio_id)
            if row["status"] == "indexed":
                audio_id = row["audio_id"]
                self._holders[audio_id] = (*(other for other in self._held_by(audio_id) if other != uri), uri)
            self._newer[uri] = row
        dropped = frozenset(drop_files), frozenset(audio_id for audio_id in left if not self.holds(audio_id))
        if len(self._newer) > max(LEAST_BESIDE, self._files.num_rows // 4):
            self._merge()
        return dropped
