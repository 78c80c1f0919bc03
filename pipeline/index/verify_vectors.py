"""The clips of an index against the ledger and the time grid, file by file, and its frames, audio by audio."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline import schema
from pipeline.grid import FRAME_S, Grid
from pipeline.index.checksum import add_up, hash_rows
from pipeline.index.clip_rows import clip_rows
from pipeline.index.findings import (
    FILES_AT_ONCE,
    ROTTEN,
    Finding,
    Spans,
    are_finite,
    ids_of,
    is_duration,
    select_unknown,
    to_numbers,
)
from pipeline.index.salvage import Fragments
from pipeline.index.tables import to_matrix
from pipeline.planning.ledger import Places
from pipeline.schema import Row
from pipeline.words import count

CLIPS_AT_ONCE = 8_192
"""Clips that are Python objects at a time: each value takes some hundred bytes."""

_CLIP_IDS = ("clip_id", "audio_id", "start_s", "end_s")
_ABOUT_CLIPS = ("uri", "duration_s", "sample_rate_hz", "channels", "codec")


@dataclass
class _Unfinished:
    """The clips read so far of a file that may have more."""

    clips: list[tuple[Any, ...]]
    sums: list[int]
    is_broken: bool = False


class ClipsCheck:
    """Compares the clips with what the ledger demands, file by file.

    Args:
        known: the ids of the batches in the journal.
    """

    def __init__(self, ledger: pa.Table, clips: Fragments, grid: Grid, known: pa.Array) -> None:
        self._ledger, self._clips, self._grid, self._known = ledger, clips, grid, known
        self._places = Places(pa.chunked_array([ledger["file_id"].combine_chunks()]))
        self._is_done = np.zeros(ledger.num_rows, bool)
        self._unfinished: dict[int, _Unfinished] = {}
        self._surplus: Counter[int] = Counter()
        self._without_file: Counter[str] = Counter()
        self._unknown_batch: set[str] = set()
        self._metadata = schema.metadata_columns(ledger.schema)
        self._about = (*_ABOUT_CLIPS, *self._metadata.names)

    def run(self) -> Iterator[Finding]:
        if not self._metadata.equals(schema.metadata_columns(self._clips.schema)):
            said = "its metadata columns are not those of `files`: only a copy of the index can repair that"
            yield Finding("clips", said)
            self._about = _ABOUT_CLIPS
        columns = ["file_id", *_CLIP_IDS, *self._about, "batch_id", "vector"]
        for piece in self._clips.read(columns, CLIPS_AT_ONCE):
            yield from self._take(piece)
        for number, found in self._unfinished.items():
            yield from self._compare(self._row(number), found)
        is_indexed = np.asarray(pc.equal(self._ledger["status"], "indexed"), bool)
        for number in np.flatnonzero(is_indexed & ~self._is_done).tolist():
            if number not in self._unfinished:
                yield from self._compare(self._row(number), _Unfinished([], []))
        for number, n_rows in self._surplus.items():
            row = self._row(number)
            yield Finding("clips", f"{count(n_rows, 'row')} more than its duration demands", **ids_of(row))
        for file_id, n_rows in self._without_file.items():
            yield Finding("clips", f"{count(n_rows, 'row')} without a file", file_id)
        for file_id in sorted(self._unknown_batch):
            yield Finding("clips", "its batch is not in the journal", file_id=file_id)

    def _row(self, number: int) -> Row:
        [row] = self._ledger.slice(number, 1).to_pylist()
        return dict(row)

    def _take(self, piece: pa.RecordBatch) -> Iterator[Finding]:
        self._unknown_batch |= select_unknown(piece, "file_id", self._known)
        file_ids = piece["file_id"].to_pylist()
        ids = list(dict.fromkeys(file_ids))
        found_at = self._places.find_last(ids)
        numbers = dict(zip(ids, found_at.tolist(), strict=True))
        there = found_at[found_at >= 0]
        rows = dict(zip(there.tolist(), self._ledger.take(pa.array(there)).to_pylist(), strict=True))
        values = zip(*(piece[name].to_pylist() for name in _CLIP_IDS), strict=True)
        about = zip(*(piece[name].to_pylist() for name in self._about), strict=True)
        vectors = to_matrix(piece["vector"])
        sums = hash_rows(np.rint(to_numbers(piece, "start_s") / FRAME_S), vectors).tolist()
        is_finite = are_finite(vectors).tolist()
        for at, (file_id, value, other) in enumerate(zip(file_ids, values, about, strict=True)):
            number = numbers[file_id]
            if number < 0:
                self._without_file[file_id] += 1
                continue
            if self._is_done[number]:
                self._surplus[number] += 1
                continue
            found = self._unfinished.setdefault(number, _Unfinished([], []))
            found.clips.append((*value, hash(other)))
            found.sums.append(sums[at])
            found.is_broken |= not is_finite[at]
            if len(found.clips) == rows[number]["n_clips"]:
                self._is_done[number] = True
                yield from self._compare(rows[number], self._unfinished.pop(number))

    def _compare(self, row: Row, found: _Unfinished) -> Iterator[Finding]:
        """What is wrong with the clips of one file."""
        own, is_indexed = ids_of(row), row["status"] == "indexed"
        if is_indexed and not is_duration(row["duration_s"]):
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
            yield Finding(
                "clips", f"{count(len(clips), 'row')} where its duration demands {len(wanted)} certain ones", **own
            )
        elif row["n_clips"] != len(clips):
            yield Finding("files", f"n_clips is {row['n_clips']}, there are {len(clips)}", **own)
        elif row["clips_checksum"] not in (None, add_up(np.array(found.sums, np.uint64))):
            yield Finding("clips", ROTTEN, **own)
        if found.is_broken:
            yield Finding("clips", "a vector is not finite", **own)


# --- frames -----------------------------------------------------------------------------------------------------------


FRAMES_AT_ONCE = 65_536


class FramesCheck:
    """Compares the frames with what the ledger demands, audio by audio.

    Args:
        known: the ids of the batches in the journal.
    """

    def __init__(self, ledger: pa.Table, frames: Fragments, known: pa.Array) -> None:
        self._ledger, self._frames, self._known = ledger, frames, known
        is_indexed = np.asarray(pc.equal(ledger["status"], "indexed"), bool)
        self._has_frames = is_indexed & (to_numbers(ledger, "n_frames") > 0)
        column = pa.chunked_array([ledger["audio_id"].combine_chunks()])
        self._places = Places(column, np.flatnonzero(self._has_frames))
        # Per audio, stored at the row of its last file.
        self._spans = Spans(ledger.num_rows)
        self._sums = np.zeros(ledger.num_rows, np.uint64)
        self._is_broken = np.zeros(ledger.num_rows, bool)
        self._without_file: dict[str, list[tuple[int, int]]] = {}
        self._unknown_batch: set[str] = set()

    def run(self) -> Iterator[Finding]:
        for piece in self._frames.read(self._frames.schema.names, FRAMES_AT_ONCE):
            if piece.num_rows:
                self._take(piece)
        seen: set[int] = set()
        columns = ["file_id", "audio_id", "uri", "n_frames", "frames_checksum"]
        holders = self._ledger.select(columns).filter(pa.array(self._has_frames))
        for piece in holders.to_batches(max_chunksize=FILES_AT_ONCE):
            numbers = self._places.find_last(piece["audio_id"].to_pylist()).tolist()
            for row, number in zip(piece.to_pylist(), numbers, strict=True):
                yield from self._compare(row, number, is_first=number not in seen)
                if self._is_broken[number] or self._spans.of(number) != [(0, row["n_frames"])]:
                    seen.add(number)
        for audio_id, spans in self._without_file.items():
            yield Finding("frames", f"frames {_show(spans)} without a file", audio_id=audio_id)
        for audio_id in sorted(self._unknown_batch):
            yield Finding("frames", "its batch is not in the journal", audio_id=audio_id)

    def _take(self, piece: pa.RecordBatch) -> None:
        self._unknown_batch |= select_unknown(piece, "audio_id", self._known)
        frame, vectors = to_numbers(piece, "frame").astype(np.int64), to_matrix(piece["vector"])
        codes = pc.dictionary_encode(piece["audio_id"]).indices.to_numpy()
        # Rows of one audio whose frames count on by one are one span.
        begins = np.concatenate([[0], np.flatnonzero((np.diff(codes) != 0) | (np.diff(frame) != 1)) + 1])
        ends = np.concatenate([begins[1:], [piece.num_rows]])
        audio_ids = piece["audio_id"].take(pa.array(begins)).to_pylist()
        numbers = self._places.find_last(audio_ids).tolist()
        sums = np.add.reduceat(hash_rows(frame, vectors), begins)
        is_wrong = ~are_finite(vectors)
        is_wrong |= np.abs(to_numbers(piece, "start_s") - frame * FRAME_S) > 1e-9
        if schema.has_pools(piece.schema):
            expected = pc.if_else(pc.equal(piece["frame"], 0), piece["audio_id"], pa.scalar(None, schema.ID))
            is_wrong |= ~np.asarray(pc.equal(piece[schema.BEGINS].fill_null(""), expected.fill_null("")))
        is_wrong = np.logical_or.reduceat(is_wrong, begins)
        for at, (audio_id, number) in enumerate(zip(audio_ids, numbers, strict=True)):
            first, stop = int(frame[begins[at]]), int(frame[ends[at] - 1]) + 1
            if number < 0:
                self._without_file.setdefault(audio_id, []).append((first, stop))
                continue
            self._spans.add(number, first, stop)
            self._sums[number : number + 1] += sums[at]  # of arrays, numpy lets sums wrap around
            self._is_broken[number] |= is_wrong[at]

    def _compare(self, row: Row, number: int, *, is_first: bool) -> Iterator[Finding]:
        """What is wrong with the frames of a file's audio, whose counts are stored at the ledger row ``number``. Files
        with the same audio share a finding, which names the first of them."""
        own, spans = ids_of(row), self._spans.of(number)
        if spans != [(0, row["n_frames"])]:
            if is_first:
                yield Finding("frames", f"frames {_show(spans)} where 0 to {row['n_frames'] - 1} are due, once", **own)
        elif self._is_broken[number]:
            if is_first:
                yield Finding("frames", "a vector is not finite, or a time or `begins` is wrong", **own)
        elif row["frames_checksum"] not in (None, add_up(self._sums[number])):
            yield Finding("frames", ROTTEN, **own)


def _show(spans: list[tuple[int, int]]) -> str:
    shown = ", ".join(f"{first} to {stop - 1}" for first, stop in spans[:3])
    return (shown or "none") + (", ..." if len(spans) > 3 else "")
