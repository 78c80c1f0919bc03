"""Receipts in, complete batches out: rows that workers have written and that are ready to be published.

Receipts arrive in any order. A batch is complete when its rows 0 .. last have all been reported. Then its files are
checked against their windows, and the clip rows are made.
"""

from collections import defaultdict
from collections.abc import Set
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline import schema
from pipeline.errors import FileFailure
from pipeline.grid import Grid, window_starts
from pipeline.index.checksum import add_up, sum_rows
from pipeline.index.clip_rows import clip_rows
from pipeline.index.writer import Batch
from pipeline.planning.file_rows import failed_row, files_table, with_checksums
from pipeline.schema import Row


class IncompleteBatch(Exception):
    """A batch contradicts itself or its plan: its files changed between two tries of its task.

    It is not published. Its files stay as the ledger has them, and the next run plans them again.
    """


class Estimate(NamedTuple):
    """What the plan says of the audio in a batch, in seconds."""

    to_encode_s: float
    to_examine_s: float
    """Audio that is examined first, and encoded only if it decodes differently now."""
    examined: frozenset[str]
    """The uris of files with such audio."""


class _Planned(NamedTuple):
    number: int
    """The row of the batch in the plan."""
    n_files: int


class Collector:
    """Holds receipts until their batch is complete.

    Args:
        planned: the PLANNED rows of the run: a batch must report as many files as were planned.
    """

    def __init__(self, grid: Grid, clip_dimension: int, *, with_frames: bool, planned: pa.Table | None = None) -> None:
        self._grid, self._with_frames = grid, with_frames
        self._clips_schema = schema.without(schema.clips_schema(clip_dimension), "batch_id")
        self._pending: dict[str, list[Row]] = defaultdict(list)
        self._reported: set[str] = set()
        self._batches = schema.PLANNED.empty_table() if planned is None else planned
        self._planned = _sum_up(self._batches)

    @property
    def missing(self) -> set[str]:
        """Ids of batches that were planned or begun, and are not complete."""
        return (self._planned.keys() | self._pending.keys()) - self._reported

    def estimate(self, batch_id: str) -> Estimate:
        """What the plan says of the audio in a batch."""
        number = self._planned[batch_id].number
        audios = self._batches["audios"][number].as_py()
        examined = [audio for audio in audios if audio["look"] is not None]
        return Estimate(
            sum(audio["estimated_s"] for audio in audios if audio["look"] is None),
            sum(audio["estimated_s"] for audio in examined),
            frozenset(uri for audio in examined for uri in audio["uris"]),
        )

    def add(self, receipt: Row) -> Batch | None:
        """Take one RECEIPTS row; returns its batch if the batch is complete now.

        Raises:
            IncompleteBatch: all of the batch is there, and its parts contradict each other.
        """
        receipts = self._pending[receipt["batch_id"]]
        receipts.append(receipt)
        receipts.sort(key=lambda receipt: receipt["first_seq"])
        begins = [0, *(receipt["stop_seq"] for receipt in receipts[:-1])]
        if [receipt["first_seq"] for receipt in receipts] != begins or not receipts[-1]["last"]:
            return None
        del self._pending[receipt["batch_id"]]
        self._reported.add(receipt["batch_id"])
        return self._assemble(receipt["batch_id"], receipts)

    def _assemble(self, batch_id: str, receipts: list[Row]) -> Batch:
        vectors: dict[str, dict[int, bytes | None]] = {}
        frame_sums: dict[str, list[int]] = {}
        for receipt in receipts:
            for window in receipt["windows"]:
                windows = vectors.setdefault(window["audio_id"], {})
                if window["first_frame"] in windows:  # two tries of its task overlap
                    raise IncompleteBatch(f"batch {batch_id}: its files changed while they were read")
                windows[window["first_frame"]] = window["clip_vector"]
                frame_sums.setdefault(window["audio_id"], []).append(window["frames_checksum"])
        files = [row for receipt in receipts for row in receipt["files"]]
        self._check_files(batch_id, files, vectors.keys())
        files = [self._settle(row, vectors, frame_sums) for row in files]
        indexed = [row for row in files if row["status"] == "indexed"]
        orphaned = vectors.keys() - {row["audio_id"] for row in indexed}
        return Batch(
            batch_id,
            files_table(files),
            self._clips(indexed, vectors),
            [text for receipt in receipts for text in receipt["frame_fragments"]],
            orphaned=frozenset(orphaned) if self._with_frames else frozenset(),
            precision=receipts[0]["precision"],
            pool_fragments=[text for receipt in receipts for text in receipt["pool_fragments"]],
        )

    def _check_files(self, batch_id: str, files: list[Row], audio_ids: Set[str]) -> None:
        """Check that each planned file is reported once, and each content that has windows is reported."""
        uris = {row["uri"] for row in files}
        n_planned = self._planned[batch_id].n_files if batch_id in self._planned else len(files)
        if not len(uris) == len(files) == n_planned:
            raise IncompleteBatch(f"{min(uris)} and others: the files of its batch changed while they were read")
        if unknown := audio_ids - {row["audio_id"] for row in files}:
            raise IncompleteBatch(f"{min(uris)} and others: {len(unknown)} contents changed while they were read")

    def _settle(self, row: Row, vectors: dict[str, dict[int, bytes | None]], frame_sums: dict[str, list[int]]) -> Row:
        """Check a file against its windows, and add checksums. A file without finite embeddings fails."""
        if row["status"] != "indexed":
            return row
        windows = vectors.get(row["audio_id"], {})
        if sorted(windows) != window_starts(row["n_frames"], self._grid):
            raise IncompleteBatch(f"{row['uri']}: changed while it was read")
        if any(vector is None for vector in windows.values()):
            message = "the model gives no finite embedding for this sound"
            return failed_row(row, FileFailure("encode", "not_finite", message))
        frames_checksum = add_up(frame_sums[row["audio_id"]]) if self._with_frames else None
        return with_checksums(row, _sum_clips(windows), frames_checksum)

    def _clips(self, files: list[Row], vectors: dict[str, dict[int, bytes | None]]) -> pa.Table:
        rows = [row for file in files for row in clip_rows(file, self._grid)]
        table = pa.Table.from_pylist(rows, schema=schema.without(self._clips_schema, "vector"))
        flat = b"".join(
            vectors[file["audio_id"]][first] or b"" for file in files for first in sorted(vectors[file["audio_id"]])
        )
        vector_field = self._clips_schema.field("vector")
        column = pa.FixedSizeListArray.from_arrays(
            pa.array(np.frombuffer(flat, np.float16), pa.float16()), vector_field.type.list_size
        )
        return table.append_column(vector_field, column.cast(vector_field.type))


def _sum_clips(vectors: dict[int, bytes | None]) -> int:
    """The checksum of the clips of a file, whose vectors are given by their first frames."""
    rows = [np.frombuffer(vector or b"", np.float16) for vector in vectors.values()]
    return sum_rows(list(vectors), np.stack(rows))


def _sum_up(planned: pa.Table) -> dict[str, _Planned]:
    """By id, what is held in memory of each PLANNED batch."""
    sums: dict[str, _Planned] = {}
    for piece in planned.to_batches():
        n_files = pc.list_value_length(pc.struct_field(pc.list_flatten(piece["audios"]), "uris"))
        batch_of = np.repeat(np.arange(piece.num_rows), pc.list_value_length(piece["audios"]))
        counts = np.bincount(batch_of, weights=n_files, minlength=piece.num_rows).astype(int)
        rows = map(_Planned, range(len(sums), len(sums) + piece.num_rows), counts.tolist())
        sums |= zip(piece["batch_id"].to_pylist(), rows, strict=True)
    return sums
