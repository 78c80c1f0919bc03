"""The tables of an index in, what is wrong with them out. Nothing is changed here.

What is published is compared with what the time grid, the ledger and the journal demand, and vectors with the
checksums that were noted when they were written. Clips and frames are read as a stream. What is held in memory is the
ledger, some bytes for each of its files, and the clips of the file that is being read.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline import schema
from pipeline.config import WindowConfig
from pipeline.corpus.corpus_file import identify_audio
from pipeline.corpus.time_ranges import TimeRange, split_uri
from pipeline.grid import FRAME_S, Grid, count_frames, seconds_to_samples
from pipeline.index import journal
from pipeline.index.checksum import add_up, hash_rows
from pipeline.index.handle import Generation, open_index
from pipeline.index.lease import is_held
from pipeline.index.maintenance import SCALAR_INDEXES, unreadable_indexes
from pipeline.index.rows import clip_rows
from pipeline.index.salvage import Fragments, read_all
from pipeline.index.tables import latest_version
from pipeline.index.vectors import to_matrix
from pipeline.planning.ledger import Places
from pipeline.schema import Row

FILES_AT_ONCE, CLIPS_AT_ONCE, FRAMES_AT_ONCE = 10_000, 8_192, 65_536
"""Rows that are looked at together. Of files and clips, Python objects are made, some hundred bytes for each value."""

MAX_DURATION_S = 1e9


@dataclass(frozen=True)
class Finding:
    """Something wrong: in which table, what, and whose rows must be made anew to mend it.

    ``file_id`` and ``audio_id`` name rows of a file or of an audio. ``fragment`` is the number of a fragment of the
    table that cannot be read, and has to be given up. All are None for what only a copy of the index can mend.
    """

    table: str
    what: str
    file_id: str | None = None
    audio_id: str | None = None
    uri: str | None = None
    fragment: int | None = None


@dataclass(frozen=True)
class VerifyReport:
    """What was found in an index, and in how many indexed files rot cannot be found: they have no checksum."""

    findings: list[Finding]
    n_without_checksum: int


def verify_index(path: str) -> list[Finding]:
    """Everything that is wrong with the index at ``path`` as it is published: see ``report_on_index``."""
    return report_on_index(path).findings


def report_on_index(path: str) -> VerifyReport:
    """Look at everything in the index at ``path`` as it is published.

    A run extends the indexes when it ends: while one writes, it is not asked which rows they cover.

    Raises:
        IndexMissing: there is no index.
    """
    live = open_index(path).live
    is_written = is_held(path)
    with_frames = live.settings["frames"] == "all"
    grid = WindowConfig(**live.settings["window"]).grid
    files, clips, frames = (Fragments(live.open(name), name) for name in journal.DATA_TABLES)
    ledger = read_all(files, lambda: [_read_ledger(files)])[0]
    batches = journal.read_journal(live.path)
    known = batches["batch_id"].combine_chunks()
    findings = [*_check_files(ledger, with_frames=with_frames), *_check_journal(live, ledger, batches)]
    findings += read_all(clips, lambda: list(_Clips(ledger, clips, grid, known).check()))
    findings += read_all(frames, lambda: list(_Frames(ledger, frames, known).check()))
    findings += [
        Finding(table.name, f"{why}; the rows in it are lost", fragment=number)
        for table in (files, clips, frames)
        for number, why in table.lost.items()
    ]
    if not is_written:
        findings += _check_indexes(live)
    return VerifyReport(findings, _count_without_checksum(ledger, with_frames=with_frames))


def _count_without_checksum(ledger: pa.Table, *, with_frames: bool) -> int:
    """Indexed files that an older version of Earshot wrote."""
    is_without = pc.is_null(ledger["clips_checksum"])
    if with_frames:
        is_without = pc.or_(is_without, pc.is_null(ledger["frames_checksum"]))
    return int(pc.sum(pc.and_(is_without, pc.equal(ledger["status"], "indexed"))).as_py() or 0)


def _read_ledger(files: Fragments) -> pa.Table:
    """The ledger, as far as it can be read, with all of its columns."""
    rows = pa.Table.from_batches(files.read(files.schema.names, FILES_AT_ONCE), schema=files.schema)
    for column in schema.FILES:
        if column.name not in rows.column_names:
            rows = rows.append_column(column, pa.nulls(rows.num_rows, column.type))
    return rows.combine_chunks()


def _in_pieces(ledger: pa.Table, columns: list[str]) -> Iterator[Row]:
    """Rows of the ledger, made a few at a time."""
    for piece in ledger.select(columns).to_batches(max_chunksize=FILES_AT_ONCE):
        yield from piece.to_pylist()


# --- the ledger and the journal ---------------------------------------------------------------------------------------


def _check_files(ledger: pa.Table, *, with_frames: bool) -> Iterator[Finding]:
    for row in _doubled(ledger):
        yield Finding("files", "a second row for one uri", **_own(row))
    for row in _in_pieces(ledger, schema.FILES.names):
        own = _own(row)
        if row["file_id"] != schema.make_file_id(row["uri"], row["audio_id"]):
            yield Finding("files", "file_id is not that of uri and audio_id", **own)
        if row["status"] not in ("indexed", "failed", "deleted"):
            yield Finding("files", f"status {row['status']!r} is unknown", **own)
        elif row["status"] == "indexed":
            if row["audio_id"] not in _audio_ids(row):
                yield Finding("files", "audio_id is not that of the content hash", **own)
            if not _is_duration(row["duration_s"]):
                yield Finding("files", f"duration_s is {row['duration_s']}", **own)
                continue
            n_frames = count_frames(seconds_to_samples(row["duration_s"]))
            if with_frames and row["n_frames"] != n_frames:
                yield Finding("files", f"n_frames is {row['n_frames']}, its duration demands {n_frames}", **own)
        elif (row["n_clips"], row["n_frames"]) != (0, 0):
            yield Finding("files", f"{row['status']}, and counts clips or frames", **own)
        elif row["status"] == "failed" and not (row["stage"] and row["reason"]):
            yield Finding("files", "failed without a stage or a reason", **own)


def _own(row: Row) -> Any:
    return {name: row[name] for name in ("file_id", "audio_id", "uri")}


def _doubled(ledger: pa.Table) -> list[Row]:
    """The rows whose uri an earlier row has."""
    order = pc.sort_indices(ledger["uri"])
    uris = ledger["uri"].take(order)
    if len(uris) < 2:
        return []
    again = pc.equal(uris.slice(1), uris.slice(0, len(uris) - 1))
    rows: list[Row] = ledger.take(order.slice(1).filter(again.combine_chunks())).to_pylist()
    return rows


def _audio_ids(row: Row) -> set[str]:
    """What the id of an indexed content may be: a file may have the name of a range."""
    if not row["content_hash"]:
        return set()
    readings = [(row["uri"], TimeRange()), split_uri(row["uri"])]
    return {identify_audio(recording, part, row["content_hash"]) for recording, part in readings}


def _is_duration(value: float | None) -> bool:
    return value is not None and 0 < value < MAX_DURATION_S


def _check_journal(live: Generation, ledger: pa.Table, batches: pa.Table) -> Iterator[Finding]:
    seqs = batches["seq"].to_pylist()
    if seqs != list(range(len(seqs))):
        yield Finding("batches", "seq does not count from 0 without a gap: only a copy of the index can mend that")
    strange = ledger.filter(pc.invert(pc.is_in(ledger["batch_id"], batches["batch_id"].combine_chunks())))
    for row in strange.to_pylist():
        yield Finding("files", "its batch is not in the journal", **_own(row))
    for name, version in live.versions.items():
        latest = latest_version(live.path, name)
        if latest < version:
            yield Finding(name, f"its newest version is {latest}, the journal names {version}")


# --- clips ------------------------------------------------------------------------------------------------------------

_CLIP_IDS = ("clip_id", "audio_id", "start_s", "end_s")
_ABOUT_CLIPS = ("uri", "duration_s", "sample_rate_hz", "channels", "codec")


@dataclass
class _Open:
    """What has been read of the clips of a file that may have more."""

    clips: list[tuple[Any, ...]]
    sums: list[int]
    is_broken: bool = False


class _Clips:
    """Compares the clips with what the ledger demands, file by file."""

    def __init__(self, ledger: pa.Table, clips: Fragments, grid: Grid, known: pa.Array) -> None:
        self._ledger, self._clips, self._grid, self._known = ledger, clips, grid, known
        self._places = Places(pa.chunked_array([ledger["file_id"].combine_chunks()]))
        self._is_done = np.zeros(ledger.num_rows, bool)
        self._open: dict[int, _Open] = {}
        self._beyond: Counter[int] = Counter()
        self._of_no_file: Counter[str] = Counter()
        self._strange: set[str] = set()
        self._metadata = schema.metadata_columns(ledger.schema)
        self._about = (*_ABOUT_CLIPS, *self._metadata.names)

    def check(self) -> Iterator[Finding]:
        if not self._metadata.equals(schema.metadata_columns(self._clips.schema)):
            said = "its metadata columns are not those of `files`: only a copy of the index can mend that"
            yield Finding("clips", said)
            self._about = _ABOUT_CLIPS
        columns = ["file_id", *_CLIP_IDS, *self._about, "batch_id", "vector"]
        for batch in self._clips.read(columns, CLIPS_AT_ONCE):
            yield from self._take(batch)
        for number, found in self._open.items():
            yield from self._compare(self._row(number), found)
        is_indexed = np.asarray(pc.equal(self._ledger["status"], "indexed"), bool)
        for number in np.flatnonzero(is_indexed & ~self._is_done).tolist():
            if number not in self._open:
                yield from self._compare(self._row(number), _Open([], []))
        for number, n_rows in self._beyond.items():
            row = self._row(number)
            yield Finding("clips", f"{n_rows} rows more than its duration demands", **_own(row))
        for file_id, n_rows in self._of_no_file.items():
            yield Finding("clips", f"{n_rows} rows of no file", file_id)
        for file_id in sorted(self._strange):
            yield Finding("clips", "its batch is not in the journal", file_id=file_id)

    def _row(self, number: int) -> Row:
        [row] = self._ledger.slice(number, 1).to_pylist()
        return dict(row)

    def _take(self, batch: pa.RecordBatch) -> Iterator[Finding]:
        self._strange |= set(batch["file_id"].filter(pc.invert(pc.is_in(batch["batch_id"], self._known))).to_pylist())
        file_ids = batch["file_id"].to_pylist()
        ids = list(dict.fromkeys(file_ids))
        found_at = self._places.find_last(ids)
        numbers = dict(zip(ids, found_at.tolist(), strict=True))
        there = found_at[found_at >= 0]
        rows = dict(zip(there.tolist(), self._ledger.take(pa.array(there)).to_pylist(), strict=True))
        values = zip(*(batch[name].to_pylist() for name in _CLIP_IDS), strict=True)
        about = zip(*(batch[name].to_pylist() for name in self._about), strict=True)
        vectors = to_matrix(batch["vector"])
        sums = hash_rows(np.rint(_numbers(batch, "start_s") / FRAME_S), vectors).tolist()
        is_finite = _finite(vectors).tolist()
        for at, (file_id, value, other) in enumerate(zip(file_ids, values, about, strict=True)):
            number = numbers[file_id]
            if number < 0:
                self._of_no_file[file_id] += 1
                continue
            if self._is_done[number]:
                self._beyond[number] += 1
                continue
            found = self._open.setdefault(number, _Open([], []))
            found.clips.append((*value, hash(other)))
            found.sums.append(sums[at])
            found.is_broken |= not is_finite[at]
            if len(found.clips) == rows[number]["n_clips"]:
                self._is_done[number] = True
                yield from self._compare(rows[number], self._open.pop(number))

    def _compare(self, row: Row, found: _Open) -> Iterator[Finding]:
        """What is wrong with the clips of one file."""
        own, is_indexed = _own(row), row["status"] == "indexed"
        if is_indexed and not _is_duration(row["duration_s"]):
            return
        clips = sorted(found.clips, key=lambda clip: clip[2])
        known = {name: row[name] for name in self._metadata.names}
        expected = [clip | known for clip in clip_rows(row, self._grid)] if is_indexed else []
        wanted = [
            (*(clip[name] for name in _CLIP_IDS), hash(tuple(clip[name] for name in self._about))) for clip in expected
        ]
        if [clip[:-1] for clip in clips] == [clip[:-1] for clip in wanted] and clips != wanted:
            yield Finding("clips", f"{', '.join(self._about)}: not all are those of its ledger row", **own)
        elif clips != wanted:
            yield Finding("clips", f"{len(clips)} rows where its duration demands {len(wanted)} certain ones", **own)
        elif row["n_clips"] != len(clips):
            yield Finding("files", f"n_clips is {row['n_clips']}, there are {len(clips)}", **own)
        elif row["clips_checksum"] not in (None, add_up(np.array(found.sums, np.uint64))):
            yield Finding("clips", _ROTTEN, **own)
        if found.is_broken:
            yield Finding("clips", "a vector is not finite", **own)


_ROTTEN = "its vectors are not those that were written: their checksum differs"


# --- frames -----------------------------------------------------------------------------------------------------------


class _Frames:
    """Compares the frames with what the ledger demands, audio by audio."""

    def __init__(self, ledger: pa.Table, frames: Fragments, known: pa.Array) -> None:
        self._ledger, self._frames, self._known = ledger, frames, known
        self._has_frames = np.asarray(pc.equal(ledger["status"], "indexed"), bool) & (_numbers(ledger, "n_frames") > 0)
        column = pa.chunked_array([ledger["audio_id"].combine_chunks()])
        self._places = Places(column, np.flatnonzero(self._has_frames))
        # Of each audio, at the row of the last file that holds it: frames 0 to ``next`` - 1 have been read, in order.
        self._next = np.zeros(ledger.num_rows, np.int64)
        self._sums = np.zeros(ledger.num_rows, np.uint64)
        self._is_broken = np.zeros(ledger.num_rows, bool)
        self._odd: dict[int, list[tuple[int, int]]] = {}
        """Stretches that do not follow on what was read before."""
        self._of_no_file: dict[str, list[tuple[int, int]]] = {}
        self._strange: set[str] = set()

    def check(self) -> Iterator[Finding]:
        for batch in self._frames.read(["audio_id", "frame", "start_s", "batch_id", "vector"], FRAMES_AT_ONCE):
            if batch.num_rows:
                self._take(batch)
        seen: set[int] = set()
        columns = ["file_id", "audio_id", "uri", "n_frames", "frames_checksum"]
        holders = self._ledger.select(columns).filter(pa.array(self._has_frames))
        for piece in holders.to_batches(max_chunksize=FILES_AT_ONCE):
            numbers = self._places.find_last(piece["audio_id"].to_pylist()).tolist()
            for row, number in zip(piece.to_pylist(), numbers, strict=True):
                yield from self._compare(row, number, is_first=number not in seen)
                if number in self._odd or self._is_broken[number] or self._next[number] != row["n_frames"]:
                    seen.add(number)
        for audio_id, spans in self._of_no_file.items():
            yield Finding("frames", f"frames {_show(spans)} of no file", audio_id=audio_id)
        for audio_id in sorted(self._strange):
            yield Finding("frames", "its batch is not in the journal", audio_id=audio_id)

    def _take(self, batch: pa.RecordBatch) -> None:
        self._strange |= set(batch["audio_id"].filter(pc.invert(pc.is_in(batch["batch_id"], self._known))).to_pylist())
        frame, vectors = _numbers(batch, "frame").astype(np.int64), to_matrix(batch["vector"])
        codes = pc.dictionary_encode(batch["audio_id"]).indices.to_numpy()
        # Rows that count on by one within an audio are one stretch.
        begins = np.concatenate([[0], np.flatnonzero((np.diff(codes) != 0) | (np.diff(frame) != 1)) + 1])
        ends = np.concatenate([begins[1:], [batch.num_rows]])
        audio_ids = batch["audio_id"].take(pa.array(begins)).to_pylist()
        numbers = self._places.find_last(audio_ids).tolist()
        sums = np.add.reduceat(hash_rows(frame, vectors), begins)
        is_wrong = ~_finite(vectors)
        is_wrong |= np.abs(_numbers(batch, "start_s") - frame * FRAME_S) > 1e-9
        is_wrong = np.logical_or.reduceat(is_wrong, begins)
        for at, (audio_id, number) in enumerate(zip(audio_ids, numbers, strict=True)):
            first, stop = int(frame[begins[at]]), int(frame[ends[at] - 1]) + 1
            if number < 0:
                self._of_no_file.setdefault(audio_id, []).append((first, stop))
                continue
            if self._next[number] == first and number not in self._odd:
                self._next[number] = stop
            else:
                self._odd.setdefault(number, []).append((first, stop))
            self._sums[number : number + 1] += sums[at]  # of arrays, numpy lets sums wrap around
            self._is_broken[number] |= is_wrong[at]

    def _compare(self, row: Row, number: int, *, is_first: bool) -> Iterator[Finding]:
        """What is wrong with the frames of a file's audio, whose state stands at the ledger row ``number``.

        Args:
            is_first: whether no file with the same audio has been compared before: one of them is told of its frames.
        """
        own, n_read = _own(row), int(self._next[number])
        if number in self._odd or n_read != row["n_frames"]:
            spans = [*([(0, n_read)] if n_read else []), *self._odd.get(number, [])]
            if is_first:
                yield Finding("frames", f"frames {_show(spans)} where 0 to {row['n_frames'] - 1} are due, once", **own)
        elif self._is_broken[number]:
            if is_first:
                yield Finding("frames", "a vector is not finite, or a time is wrong", **own)
        elif row["frames_checksum"] not in (None, add_up(self._sums[number])):
            yield Finding("frames", _ROTTEN, **own)


def _show(spans: list[tuple[int, int]]) -> str:
    shown = ", ".join(f"{first} to {stop - 1}" for first, stop in spans[:3])
    return (shown or "none") + (", ..." if len(spans) > 3 else "")


# --- indexes ----------------------------------------------------------------------------------------------------------


def _check_indexes(live: Generation) -> Iterator[Finding]:
    for name, columns in SCALAR_INDEXES.items():
        table = live.open(name)
        if table.count_rows() == 0:
            continue
        existing = {index.name for index in table.describe_indices()}
        broken = unreadable_indexes(table)
        for index in sorted(existing | {f"{column}_idx" for column in columns}):
            if index not in existing:
                yield Finding(name, f"no index on {index.removesuffix('_idx')}")
            elif index in broken:
                yield Finding(name, f"the index on {index.removesuffix('_idx')} cannot be read")
            elif n_rows := table.stats.index_stats(index).get("num_unindexed_rows", 0):
                yield Finding(name, f"the index on {index.removesuffix('_idx')} leaves out {n_rows} rows")


def _finite(vectors: npt.NDArray[np.float16]) -> npt.NDArray[np.bool_]:
    """(n,): whether all numbers of a vector are."""
    return np.asarray(np.isfinite(vectors).all(axis=1))


def _numbers(rows: Any, name: str) -> Any:
    column = rows[name]
    return column.to_numpy() if isinstance(column, pa.ChunkedArray) else column.to_numpy(zero_copy_only=False)
