"""The published ``files`` in, what the index knows of each file out, kept up to date as batches are committed.

The table stays as it is in Arrow, and 16 bytes for each file tell where in it a uri or a content is found. What batches
replace is held beside it, and made part of it when it has become much.
"""

from collections.abc import Iterable, Set

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline import schema
from pipeline.corpus.corpus_file import CorpusFile
from pipeline.corpus.shards import is_sized
from pipeline.errors import FileFailure
from pipeline.schema import Row

LEAST_BESIDE = 20_000
"""Rows that are held beside the table at most, or a quarter of what it has: each costs a hundred times as much."""


class Places:
    """Where texts stand in a column, by their hashes."""

    def __init__(self, column: pa.ChunkedArray, chosen: npt.NDArray[np.int64] | None = None) -> None:
        """Args: the rows of the column that count; by default all."""
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
        """All rows that hold one of the texts: of each, the number of the text, and the row, both ascending."""
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
    """What the index knows of each uri.

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
        """Of contents of which a holder came or went: those that hold it now."""

    def _merge(self) -> None:
        """Make what is held beside the table part of it."""
        if self._newer:
            replaced = self._by_uri.find_last(list(self._newer))
            stay = np.ones(self._files.num_rows, bool)
            stay[replaced[replaced >= 0]] = False
            newer = pa.Table.from_pylist(list(self._newer.values()), schema=_nullable(self._files.schema))
            kept = self._files.filter(pa.array(stay)).cast(newer.schema)
            self._set(pa.concat_tables([kept, newer]))

    @property
    def rows(self) -> dict[str, Row]:
        """All of it, which is much."""
        return {row["uri"]: row for row in self._files.to_pylist()} | self._newer

    def look_up(self, uris: list[str], columns: list[str] | None = None) -> list[Row | None]:
        """The rows of files that were there when a run last looked, or some columns of them, ``status`` included."""
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
        """Whether the file has a row, be it deleted."""
        return uri in self._newer or bool(self._by_uri.find(uri))

    def live(self, uri: str) -> Row | None:
        """The row of a file that was there when a run last looked."""
        row = self._row(uri)
        return None if row is None or row["status"] == "deleted" else row

    def find_deleted(self, listed: pa.ChunkedArray) -> list[Row]:
        """The rows of files that were there, and are not among ``listed``, uris."""
        self._merge()
        was_there = pc.not_equal(self._files["status"], "deleted")
        is_gone = pc.and_(was_there, pc.invert(pc.is_in(self._files["uri"], value_set=listed)))
        gone: list[Row] = self._files.filter(is_gone).to_pylist()
        return gone

    def indexed(self) -> pa.ChunkedArray:
        """The uris of the files that are indexed."""
        self._merge()
        return self._files["uri"].filter(pc.equal(self._files["status"], "indexed"))

    def sizes(self) -> set[int]:
        """Bytes of the contents that are known."""
        self._merge()
        known = pc.and_(pc.not_equal(self._files["status"], "deleted"), pc.is_valid(self._files["content_hash"]))
        return set(pc.unique(self._files["size_bytes"].filter(known)).drop_null().to_pylist())

    def _held_by(self, audio_id: str) -> tuple[str, ...]:
        """The indexed files with this content."""
        if audio_id in self._holders:
            return self._holders[audio_id]
        return tuple(self._files["uri"][at].as_py() for at in self._by_audio.find(audio_id))

    def holder(self, audio_id: str, prefer: Set[str] = frozenset()) -> Row | None:
        """An indexed file with this content, if there is one; one of those to ``prefer``, if there is one."""
        uris = set(self._held_by(audio_id))
        return self._row(min(uris & prefer or uris)) if uris else None

    def holders(self, audio_id: str) -> list[Row]:
        """The rows of all indexed files with this content."""
        return [row for uri in self._held_by(audio_id) if (row := self._row(uri)) is not None]

    def holds(self, audio_id: str) -> bool:
        """Whether the index has frames of this content."""
        return bool(self._held_by(audio_id))

    def _find_replaced(self, uris: list[str]) -> dict[str, Row]:
        """By uri, what the table says of some files, as far as it knows them and it matters to those who replace it."""
        at = self._by_uri.find_last(uris)
        some = self._files.select(["uri", "file_id", "status", "audio_id"]).take(pa.array(at[at >= 0]))
        return {row["uri"]: row for row in some.to_pylist()}

    def _note_holders(self, audio_ids: Set[str]) -> None:
        """Find out who holds these contents, all at once."""
        sought = [audio_id for audio_id in audio_ids if audio_id not in self._holders]
        numbers, rows = self._by_audio.find_all(sought)
        holders: dict[str, list[str]] = {audio_id: [] for audio_id in sought}
        for number, uri in zip(numbers, self._files["uri"].take(pa.array(rows)).to_pylist(), strict=True):
            holders[sought[number]].append(uri)
        self._holders |= {audio_id: tuple(uris) for audio_id, uris in holders.items()}

    def apply(self, files: Iterable[Row]) -> tuple[frozenset[str], frozenset[str]]:
        """Replace the rows of these uris; returns the file ids and the audio ids whose rows must go.

        An audio's frames go with the last file that holds it.
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


def _nullable(files_schema: pa.Schema) -> pa.Schema:
    return pa.schema([column.with_nullable(True) for column in files_schema])


# --- rows -------------------------------------------------------------------------------------------------------------


def unreadable_row(listed: Row | CorpusFile, failure: FileFailure) -> Row:
    """The ledger row of a file whose bytes could not be read."""
    return {
        **empty_row(listed["uri"], None),
        "status": "failed",
        "stage": failure.stage,
        "reason": failure.reason,
        "message": failure.message,
        "size_bytes": listed["size_bytes"] if is_sized(listed["uri"]) else None,
        "modified_ns": listed["modified_ns"],
    }


def damaged_row(old: Row, failure: FileFailure) -> Row:
    """The ledger row of a file whose rows in the index cannot be trusted."""
    return unreadable_row(old, failure)


def deleted_row(old: Row) -> Row:
    """The ledger row of a file that is no longer there: what it was stays known."""
    gone = {"status": "deleted", "stage": None, "reason": None, "message": None, "n_clips": 0, "n_frames": 0}
    return {**old, **gone, "clips_checksum": None, "frames_checksum": None}


def empty_row(uri: str, audio_id: str | None) -> Row:
    """A ledger row with its ids and nothing else known; it has every column but ``batch_id``."""
    row: Row = {column.name: None for column in schema.FILES if column.name != "batch_id"}
    row.update(uri=uri, audio_id=audio_id, file_id=schema.make_file_id(uri, audio_id), n_clips=0, n_frames=0)
    return row


def copied_row(file: CorpusFile, holder: Row) -> Row:
    file_id = schema.make_file_id(file.uri, holder["audio_id"])
    return {**holder, "uri": file.uri, "file_id": file_id, "modified_ns": file.modified_ns}


def failed_rows(batches: pa.Table, batch_ids: Set[str], failure: FileFailure) -> list[Row]:
    """The ledger rows of the files of some of the PLANNED batches, of which nothing could be learnt."""
    return [
        unreadable_row({"uri": uri, "size_bytes": audio["size_bytes"], "modified_ns": modified_ns}, failure)
        for row in batches.to_pylist()
        if row["batch_id"] in batch_ids
        for audio in row["audios"]
        for uri, modified_ns in zip(audio["uris"], audio["modified_ns"], strict=True)
    ]
