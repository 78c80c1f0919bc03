"""The frames of an index against the ledger and the time grid, audio by audio."""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.grid import FRAME_S
from pipeline.index.checksum import add_up, hash_rows
from pipeline.index.findings import FILES_AT_ONCE, ROTTEN, Finding, are_finite, ids_of, select_unknown, to_numbers
from pipeline.index.salvage import Fragments
from pipeline.index.tables import to_matrix
from pipeline.planning.ledger import Places
from pipeline.schema import Row

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
        # Of each audio, at the row of the last file that holds it: frames 0 to ``next`` - 1 have been read, in order.
        self._next = np.zeros(ledger.num_rows, np.int64)
        self._sums = np.zeros(ledger.num_rows, np.uint64)
        self._is_broken = np.zeros(ledger.num_rows, bool)
        self._odd: dict[int, list[tuple[int, int]]] = {}
        """Spans of frames that do not follow on those read before."""
        self._without_file: dict[str, list[tuple[int, int]]] = {}
        self._unknown_batch: set[str] = set()

    def run(self) -> Iterator[Finding]:
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
        for audio_id, spans in self._without_file.items():
            yield Finding("frames", f"frames {_show(spans)} without a file", audio_id=audio_id)
        for audio_id in sorted(self._unknown_batch):
            yield Finding("frames", "its batch is not in the journal", audio_id=audio_id)

    def _take(self, batch: pa.RecordBatch) -> None:
        self._unknown_batch |= select_unknown(batch, "audio_id", self._known)
        frame, vectors = to_numbers(batch, "frame").astype(np.int64), to_matrix(batch["vector"])
        codes = pc.dictionary_encode(batch["audio_id"]).indices.to_numpy()
        # Rows of one audio whose frames count on by one are one span.
        begins = np.concatenate([[0], np.flatnonzero((np.diff(codes) != 0) | (np.diff(frame) != 1)) + 1])
        ends = np.concatenate([begins[1:], [batch.num_rows]])
        audio_ids = batch["audio_id"].take(pa.array(begins)).to_pylist()
        numbers = self._places.find_last(audio_ids).tolist()
        sums = np.add.reduceat(hash_rows(frame, vectors), begins)
        is_wrong = ~are_finite(vectors)
        is_wrong |= np.abs(to_numbers(batch, "start_s") - frame * FRAME_S) > 1e-9
        is_wrong = np.logical_or.reduceat(is_wrong, begins)
        for at, (audio_id, number) in enumerate(zip(audio_ids, numbers, strict=True)):
            first, stop = int(frame[begins[at]]), int(frame[ends[at] - 1]) + 1
            if number < 0:
                self._without_file.setdefault(audio_id, []).append((first, stop))
                continue
            if self._next[number] == first and number not in self._odd:
                self._next[number] = stop
            else:
                self._odd.setdefault(number, []).append((first, stop))
            self._sums[number : number + 1] += sums[at]  # of arrays, numpy lets sums wrap around
            self._is_broken[number] |= is_wrong[at]

    def _compare(self, row: Row, number: int, *, is_first: bool) -> Iterator[Finding]:
        """What is wrong with the frames of a file's audio, whose state stands at the ledger row ``number``. One finding
        stands for all files with the same audio: that of the first one."""
        own, n_read = ids_of(row), int(self._next[number])
        if number in self._odd or n_read != row["n_frames"]:
            spans = [*([(0, n_read)] if n_read else []), *self._odd.get(number, [])]
            if is_first:
                yield Finding("frames", f"frames {_show(spans)} where 0 to {row['n_frames'] - 1} are due, once", **own)
        elif self._is_broken[number]:
            if is_first:
                yield Finding("frames", "a vector is not finite, or a time is wrong", **own)
        elif row["frames_checksum"] not in (None, add_up(self._sums[number])):
            yield Finding("frames", ROTTEN, **own)


def _show(spans: list[tuple[int, int]]) -> str:
    shown = ", ".join(f"{first} to {stop - 1}" for first, stop in spans[:3])
    return (shown or "none") + (", ..." if len(spans) > 3 else "")
