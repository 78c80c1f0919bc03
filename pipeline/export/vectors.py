"""Stored vectors with their times, for other programs: those of hits, or of the whole index.

Rows come from Lance batch by batch, so memory does not grow with what is exported. A column ``vector`` is a list of
fixed size, float32 by default, since not every reader of Parquet knows float16.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline import schema
from pipeline.errors import UsageError
from pipeline.export.labels import Label
from pipeline.grid import HOP_SAMPLES, SAMPLE_RATE_HZ, span_to_frames
from pipeline.index import tables
from pipeline.index.journal import Published
from pipeline.index.tables import indexed_files, quote, to_matrix
from pipeline.search.stopping import until_stopped

Table = Literal["clips", "frames"]
Precision = Literal["float32", "float16"]

READ: dict[str, Any] = {"batch_size": 4_096, "batch_readahead": 2, "io_buffer_size": 32 * 2**20}
"""How rows are read: 8 MB of 1,024 numbers together. By itself, Lance reads a whole fragment ahead."""

COLUMNS: dict[Table, tuple[str, ...]] = {
    "clips": ("clip_id", "file_id", "audio_id", "uri", "start_s", "end_s"),
    "frames": ("audio_id", "frame", "start_s", "end_s"),
}
"""What a row has besides its vector; rows of clips of the whole index also have the user's columns."""

OF_LABEL = pa.schema(
    [
        pa.field("text", pa.string(), nullable=False),
        pa.field("rank", pa.int32()),
        pa.field("label_start_s", pa.float64(), nullable=False),
        pa.field("label_end_s", pa.float64(), nullable=False),
    ]
)
"""What a row of the vectors of hits has of the hit that it belongs to, first."""

FILE_COLUMNS = ("file_id", "audio_id", "uri", "duration_s", "n_frames")
"""The columns of ``files.parquet``, before the user's: it says which files hold the audio of a frame."""


@dataclass(frozen=True)
class State:
    """The published tables that vectors are read from. ``path`` is the folder of their generation."""

    path: str
    seq: int
    versions: dict[str, int]
    settings: dict[str, Any]

    def open(self, name: str) -> Any:
        """A table as it was published, a ``lance.LanceDataset``.

        Raises:
            UsageError: it has been superseded for so long that it was deleted.
        """
        try:
            return tables.open_published(self.path, name, Published(self.seq, "", self.versions))
        except (ValueError, OSError) as error:
            raise UsageError(
                f"{self.path}: its state {self.seq}, which this export began with, can no longer be read"
                f" ({' '.join(str(error).split())[:200]}): delete the folder, and export again"
            ) from None

    def read_files(self, where: str | None = None) -> pa.Table:
        """``FILE_COLUMNS`` and the user's columns of the indexed files, by uri.

        Args:
            where: SQL over the columns of ``files``.
        """
        files = self.open("files")
        columns = [*FILE_COLUMNS, *schema.metadata_columns(files.schema).names]
        return files.to_table(columns=columns, filter=indexed_files(where)).sort_by("uri").combine_chunks()

    @property
    def has_frames(self) -> bool:
        return bool(self.settings["frames"] != "none")


@dataclass(frozen=True)
class VectorTable:
    """The vectors of one table in a state of the index, as they are exported.

    Args:
        precision: of the numbers. Stored are float16.
    """

    state: State
    name: Table
    precision: Precision = "float32"

    @cached_property
    def rows(self) -> Any:
        if self.name == "frames" and not self.state.has_frames:
            raise UsageError(f"{self.state.path}: was built without frames: export the vectors of clips")
        return self.state.open(self.name)

    @property
    def metadata(self) -> list[str]:
        """The user's columns."""
        return list(schema.metadata_columns(self.rows.schema).names) if self.name == "clips" else []

    @cached_property
    def columns(self) -> pa.Schema:
        """The columns of a file of the whole table: the user's come last, before the vector.

        The file's own metadata has an entry ``earshot``, JSON: which index, which state, and which model.
        """
        return self._make_schema(of_labels=False)

    @cached_property
    def label_columns(self) -> pa.Schema:
        """The columns of a file of the vectors of hits: those of ``OF_LABEL`` come first, and the user's are left out.

        The file's own metadata is that of ``columns``.
        """
        return self._make_schema(of_labels=True)

    def _make_schema(self, *, of_labels: bool) -> pa.Schema:
        stored = self.rows.schema
        dimension = stored.field("vector").type.list_size
        end_s = pa.field("end_s", pa.float64(), nullable=False)
        own = [stored.field(name) if name in stored.names else end_s for name in COLUMNS[self.name]]
        first = [*OF_LABEL, *([] if self.name == "clips" else [pa.field("uri", pa.string(), nullable=False)])]
        vector = pa.field("vector", pa.list_(pa.from_numpy_dtype(np.dtype(self.precision)), dimension), nullable=False)
        user = [pa.field(name, stored.field(name).type) for name in self.metadata]
        columns = [*(first if of_labels else []), *own, *([] if of_labels else user), vector]
        said = {
            "index": self.state.path,
            "seq": self.state.seq,
            "table": self.name,
            "model": self.state.settings["clip_model" if self.name == "clips" else "frame_model"],
        }
        plain = [pa.field(each.name, each.type, each.nullable) for each in columns]
        return pa.schema(plain, {"earshot": json.dumps(said)})

    # --- the whole table ----------------------------------------------------------------------------------------------

    @property
    def n_parts(self) -> int:
        """The fragments of the table: each becomes a file of up to 250,000 rows."""
        return len(self.rows.get_fragments())

    def read_part(self, number: int, ids: pa.Array | None = None) -> Iterator[pa.RecordBatch]:
        """The rows of a fragment, in the order of writing.

        Args:
            ids: only rows of these files (``file_id`` of clips), or of these contents (``audio_id`` of frames).
        """
        columns = [*COLUMNS[self.name], *self.metadata, "vector"]
        key = "file_id" if self.name == "clips" else "audio_id"
        stored = [name for name in columns if name in self.rows.schema.names]
        for batch in until_stopped(self.rows.get_fragments()[number].to_batches(columns=stored, **READ)):
            kept = batch if ids is None else batch.filter(pc.is_in(batch[key], ids))
            if kept.num_rows:
                yield self._finish(kept, self.columns, {})

    # --- the vectors of labels ----------------------------------------------------------------------------------------

    def read_label(self, label: Label) -> Iterator[pa.RecordBatch]:
        """The rows whose time overlaps a label's; none if they are not stored.

        Args:
            label: with ``file_id`` for clips, ``audio_id`` for frames.
        """
        if self.name == "clips":
            where = f"file_id = {quote(str(label.file_id))}"
            where += f" AND start_s < {label.end_s!r} AND end_s > {label.start_s!r}"
        else:
            first, stop = span_to_frames(label.start_s, label.end_s)
            where = f"audio_id = {quote(str(label.audio_id))} AND frame >= {first} AND frame < {stop}"
        columns = [name for name in COLUMNS[self.name] if name in self.rows.schema.names]
        said = {
            "text": label.text,
            "rank": label.rank,
            "label_start_s": label.start_s,
            "label_end_s": label.end_s,
            "uri": label.uri,
        }
        rows = self.rows.to_batches(columns=[*columns, "vector"], filter=where, **READ)
        for batch in rows:
            if batch.num_rows:
                yield self._finish(batch, self.label_columns, said)

    def read_labels(self, labels: Iterable[Label], missing: list[Label]) -> Iterator[pa.RecordBatch]:
        """The rows of each label in turn; labels without any are added to ``missing``."""
        for label in until_stopped(labels):
            n_rows = 0
            key = label.file_id if self.name == "clips" else label.audio_id
            for batch in self.read_label(label) if key else ():
                n_rows += batch.num_rows
                yield batch
            if not n_rows:
                missing.append(label)

    def _finish(self, batch: pa.RecordBatch, columns: pa.Schema, said: dict[str, Any]) -> pa.RecordBatch:
        """The batch with these columns: from itself, from ``said``, or made: ``end_s`` of frames, and vectors."""
        arrays = []
        for column in columns:
            if column.name == "vector":
                numbers = to_matrix(batch["vector"]).astype(self.precision, copy=False).reshape(-1)
                array = pa.FixedSizeListArray.from_arrays(pa.array(numbers), column.type.list_size)
            elif column.name in batch.schema.names:
                array = batch[column.name]
            elif column.name in said:
                array = pa.array([said[column.name]] * batch.num_rows, column.type)
            else:
                array = pa.array((batch["frame"].to_numpy().astype(np.int64) + 1) * HOP_SAMPLES / SAMPLE_RATE_HZ)
            arrays.append(array)
        return pa.RecordBatch.from_arrays(arrays, schema=columns)


def select_ids(files: pa.Table, name: Table) -> pa.Array:
    """What ``read_part`` keeps: the files of these rows of ``files``, or their contents."""
    return pc.unique(files["file_id" if name == "clips" else "audio_id"])
