"""The pools of an index against the ledger: those of each audio must hold each of its frames once."""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.index.findings import FILES_AT_ONCE, Finding, Spans, are_finite, ids_of, select_unknown, to_numbers
from pipeline.index.salvage import Fragments
from pipeline.index.tables import to_matrix
from pipeline.planning.ledger import Places

POOLS_AT_ONCE = 65_536


class PoolsCheck:
    """Compares the pools with what the ledger demands, audio by audio.

    Args:
        known: the ids of the batches in the journal.
    """

    def __init__(self, ledger: pa.Table, pools: Fragments, known: pa.Array) -> None:
        self._ledger, self._pools, self._known = ledger, pools, known
        is_indexed = np.asarray(pc.equal(ledger["status"], "indexed"), bool)
        self._has_frames = is_indexed & (to_numbers(ledger, "n_frames") > 0)
        self._places = Places(pa.chunked_array([ledger["audio_id"].combine_chunks()]), np.flatnonzero(self._has_frames))
        # Per audio, stored at the row of its last file.
        self._spans = Spans(ledger.num_rows)
        self._is_wrong = np.zeros(ledger.num_rows, bool)
        self._without_file: set[str] = set()
        self._unknown_batch: set[str] = set()

    def run(self) -> Iterator[Finding]:
        for piece in self._pools.read(["audio_id", "first_frame", "n_frames", "batch_id", "vector"], POOLS_AT_ONCE):
            if piece.num_rows:
                self._take(piece)
        seen: set[int] = set()
        holders = self._ledger.select(["file_id", "audio_id", "uri", "n_frames"]).filter(pa.array(self._has_frames))
        for piece in holders.to_batches(max_chunksize=FILES_AT_ONCE):
            numbers = self._places.find_last(piece["audio_id"].to_pylist()).tolist()
            for row, number in zip(piece.to_pylist(), numbers, strict=True):
                if number in seen:
                    continue
                if self._is_wrong[number] or self._spans.of(number) != [(0, row["n_frames"])]:
                    seen.add(number)
                    said = f"they do not hold each of the frames 0 to {row['n_frames'] - 1} once, or are not finite"
                    yield Finding("pools", said, **ids_of(row))
        for audio_id in sorted(self._without_file):
            yield Finding("pools", "pools without a file", audio_id=audio_id)
        for audio_id in sorted(self._unknown_batch):
            yield Finding("pools", "their batch is not in the journal", audio_id=audio_id)

    def _take(self, piece: pa.RecordBatch) -> None:
        self._unknown_batch |= select_unknown(piece, "audio_id", self._known)
        first, size = (to_numbers(piece, name).astype(np.int64) for name in ("first_frame", "n_frames"))
        is_wrong = ~are_finite(to_matrix(piece["vector"])) | (size < 1)
        codes = pc.dictionary_encode(piece["audio_id"]).indices.to_numpy()
        # Rows of one audio, each of which begins where the one before it ends, are one span.
        begins = np.concatenate([[0], np.flatnonzero((np.diff(codes) != 0) | (first[1:] != (first + size)[:-1])) + 1])
        ends = np.concatenate([begins[1:], [piece.num_rows]]) - 1
        is_wrong = np.logical_or.reduceat(is_wrong, begins)
        audio_ids = piece["audio_id"].take(pa.array(begins)).to_pylist()
        numbers = self._places.find_last(audio_ids).tolist()
        for at, (audio_id, number) in enumerate(zip(audio_ids, numbers, strict=True)):
            if number < 0:
                self._without_file.add(audio_id)
                continue
            self._is_wrong[number] |= is_wrong[at]
            self._spans.add(number, int(first[begins[at]]), int((first + size)[ends[at]]))
