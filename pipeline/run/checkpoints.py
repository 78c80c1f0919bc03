"""Complete batches wait here for the next checkpoint, where they are committed together."""

import datetime as dt
import time
from collections.abc import Mapping, Set
from dataclasses import replace
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc

from pipeline import schema
from pipeline.config import Config
from pipeline.index.clip_rows import copy_clips
from pipeline.index.maintenance import optimize
from pipeline.index.tables import no_clips
from pipeline.index.vector_upkeep import VectorUpkeep
from pipeline.index.writer import Batch, Writer
from pipeline.planning.file_rows import copied_row, files_table
from pipeline.run.background import signals_held
from pipeline.run.prepare import Inventory
from pipeline.run.progress import Progress
from pipeline.schema import Row


class Checkpoints:
    """Counts complete batches, joins their metadata, and commits them.

    Args:
        config: of the run; ``into`` is the folder of the tables.
        inventory: its ledger follows each commit.
        vectors: makes the vector indexes; by default a new one.
    """

    def __init__(
        self,
        config: Config,
        writer: Writer,
        inventory: Inventory,
        progress: Progress,
        vectors: VectorUpkeep | None = None,
    ) -> None:
        self.config, self.writer, self.inventory, self.progress = config, writer, inventory, progress
        self._vectors = vectors or VectorUpkeep()
        self.encoding_since: float | None = None
        """When the workers began on the next commit; None until they have started."""
        self._waiting: list[Batch] = []
        self._committed_at = time.monotonic()
        self._n_own = 0

    def no_clips(self) -> pa.Table:
        """Rows of ``clips``: none, with all columns."""
        return no_clips(self.config.into, self.writer.published)

    def add(self, batch: Batch, uncounted: Set[str] = frozenset()) -> None:
        """Count a complete batch, and let it wait for the next checkpoint.

        Args:
            uncounted: uris of files that do not count yet, nor do their clips, for the workers will examine them.
        """
        self._waiting.append(batch)
        if batch.kind == "metadata":  # these files count as unchanged
            return
        is_counted = pc.invert(pc.is_in(batch.clips["uri"], value_set=pa.array(uncounted, pa.string())))
        self.progress.n_clips += pc.sum(is_counted).as_py() or 0
        self.progress.n_frames += batch.n_frames
        for row in batch.files.select(["uri", "file_id", "status", "reason"]).to_pylist():
            if row["file_id"] in batch.keep_clips or row["uri"] in uncounted:  # it counts elsewhere
                continue
            self.progress.n_indexed += row["status"] == "indexed"
            self.progress.n_failed += row["status"] == "failed"
            if row["reason"]:
                self.progress.reasons[row["reason"]] += 1

    def commit_rows(
        self,
        rows: list[Row],
        clips: pa.Table | None = None,
        kind: Literal["index", "metadata"] = "index",
        keep_clips: frozenset[str] = frozenset(),
        uncounted: Set[str] = frozenset(),
    ) -> None:
        """Commit rows of ``files`` that needed no decoding, and their ``clips``, in a batch of their own."""
        if rows:
            clips = self.no_clips() if clips is None else clips
            self.add(Batch(self._make_id(), files_table(rows), clips, keep_clips=keep_clips, kind=kind), uncounted)
            self.commit()

    def count_kept(self, rows: list[Row], copies: Set[str]) -> None:
        """Count indexed files, given by their rows, whose clips and frames stay as they are.

        Args:
            copies: uris of files that are new in this run, which ``add`` left uncounted; all others are unchanged.
        """
        copied = [row for row in rows if row["uri"] in copies]
        self.progress.n_indexed += len(copied)
        self.progress.n_clips += sum(row["n_clips"] for row in copied)
        self.progress.n_unchanged += len(rows) - len(copied)

    def add_kept(self, rows: list[Row]) -> None:
        """Let new rows of indexed files whose clips and frames stay wait for the next checkpoint."""
        kept = frozenset(row["file_id"] for row in rows)
        self.add(Batch(self._make_id(), files_table(rows), self.no_clips(), keep_clips=kept))

    def commit_if_due(self) -> None:
        """Commit where enough rows wait, or the last checkpoint was long ago."""
        limits = self.config.store
        n_rows = sum(batch.n_rows for batch in self._waiting)
        if n_rows >= limits.checkpoint_rows or time.monotonic() - self._committed_at >= limits.checkpoint_s:
            self.commit()

    def commit(self) -> None:
        """Publish the waiting batches, and optimize the tables after many commits."""
        self.publish()
        limits = self.config.store
        if self.writer.n_commits >= limits.optimize_every:
            stage = self.progress.stage
            self.progress.enter("optimizing")
            optimize(self.writer, older_than=dt.timedelta(hours=limits.keep_hours), vectors=self._vectors)
            self.progress.stage = stage

    def publish(self) -> None:
        """Publish the waiting batches; Ctrl-C and SIGTERM wait until that is done."""
        self._committed_at = time.monotonic()
        if not self._waiting:
            return
        with signals_held():
            # Clear first: an interrupted commit may have succeeded; the next run recovers.
            batches, self._waiting = self._waiting, []
            # Last come rows of files that keep their frames: another file may have written the same audio again.
            self._publish(sorted(batches, key=lambda batch: bool(batch.keep_clips)))

    def _publish(self, waiting: list[Batch]) -> None:
        began, self.encoding_since = self.encoding_since, self.encoding_since and time.monotonic()
        ledger, metadata = self.inventory.ledger, self.inventory.metadata
        batches: list[Batch] = []
        written: dict[str, Row] = {}
        """By audio: the count and checksum of the frames that this commit leaves."""
        encoded: dict[str, tuple[Row, pa.Table]] = {}
        """By audio: the row of a file that was encoded, and the clips of its batch."""
        replaced, reported = set[str](), set[str]()
        for batch in waiting:
            rows = batch.files.to_pylist()
            is_encoded = bool(batch.frame_fragments) or batch.precision is not None
            indexed = {row["audio_id"] for row in rows if is_encoded and row["status"] == "indexed"}
            # Content that is encoded again replaces its former frames, if those have been published.
            again = {audio_id for audio_id in indexed - written.keys() if ledger.holds(audio_id)}
            orphaned = indexed & written.keys()
            rows = [row | written.get(row["audio_id"], {}) if row["status"] == "indexed" else row for row in rows]
            written |= {
                row["audio_id"]: {name: row[name] for name in ("n_frames", "frames_checksum")}
                for row in rows
                if row["audio_id"] in indexed
            }
            for row in rows:
                if row["audio_id"] in indexed and row["status"] == "indexed":
                    encoded.setdefault(row["audio_id"], (row, batch.clips))
            replaced |= again
            reported |= {row["uri"] for row in rows}
            drop_files, drop_frames = ledger.apply(rows)
            files = metadata.join(files_table(rows))
            clips = metadata.join_to_clips(batch.clips, files)
            n_encoded = sum(not other.keep_clips for other in waiting)
            seconds = None if began is None or batch.keep_clips else (time.monotonic() - began) / n_encoded
            batch = replace(batch, files=files, clips=clips, orphaned=batch.orphaned | orphaned, seconds=seconds)
            batches.append(replace(batch, drop_files=drop_files, drop_frames=drop_frames | again))
        holders = [row for audio_id in sorted(replaced) for row in ledger.holders(audio_id)]
        others = [row for row in holders if row["uri"] not in reported]
        if changed := [new for row in others if (new := _renewed(row, encoded[row["audio_id"]][0])) != row]:
            batches.append(self._renew(changed, encoded))
        self.writer.commit(batches)

    def _renew(self, rows: list[Row], encoded: Mapping[str, tuple[Row, pa.Table]]) -> Batch:
        """A batch with new rows and clips of files that hold an audio which was encoded again for another one.

        They may be unreadable at present, or have been found to hold it only now.
        """
        grid, clips = self.config.window.grid, list[pa.Table]()
        for row in rows:
            holder, clips_of = encoded[row["audio_id"]]
            clips.append(copy_clips(clips_of, holder["file_id"], row, grid))
        drop_files, _ = self.inventory.ledger.apply(rows)
        files = self.inventory.metadata.join(files_table(rows))
        joined = self.inventory.metadata.join_to_clips(pa.concat_tables(clips), files)
        return Batch(self._make_id(), files, joined, drop_files=drop_files)

    def _make_id(self) -> str:
        """The id of a batch that no plan numbered."""
        self._n_own += 1
        return schema.make_batch_id(self.writer.run_id, -self._n_own)


def _renewed(old: Row, encoded: Row) -> Row:
    """The row of a file whose audio was encoded again for another one with the same bytes."""
    return old | copied_row(encoded, old["uri"], old["modified_ns"])
