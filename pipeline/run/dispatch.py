"""Planned batches go to the workers, receipts come back in any order, complete batches go to the checkpoints."""

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline import schema
from pipeline.config import Config, EncodeConfig
from pipeline.errors import EarshotError, FileFailure, RayDied
from pipeline.index.vector_upkeep import Make, make_limited
from pipeline.index.writer import Batch
from pipeline.planning.batches import pack_alone
from pipeline.planning.file_rows import CONFIRMED, confirmed_row, lost_rows
from pipeline.planning.plan import Plan
from pipeline.run.background import Polled, drain
from pipeline.run.checkpoints import Checkpoints
from pipeline.run.collector import Collector, Estimate, IncompleteBatch
from pipeline.run.prepare import note_unreadable
from pipeline.run.progress import STAGES
from pipeline.run.ray_health import Deathwatch
from pipeline.run.record import Record
from pipeline.schema import Row

MAX_KILLERS = 16
"""If this many contents, each tried alone, kill their workers, and none is encoded, the cluster is at fault."""

COUNT_EVERY_S = 2.0
"""The time between two counts of the workers."""

SILENT_S = 180.0
"""If no receipt has come for so long, the progress says so."""

Receipts = Iterator[dict[str, Any]]

Stages = Callable[[pa.Table, Config, pa.Schema], Receipts]
"""PLANNED rows, the run's configuration, the schema of ``frames`` -> RECEIPTS rows, in any order:
``workers.run_stages``."""


@dataclass(frozen=True)
class Workers:
    """The workers of a run.

    ``stages`` does the work. ``count`` says how many workers each stage has at present. ``publish`` gets each record
    of the run. ``prepare`` starts what the stages need, and refuses what they cannot run, before anything is written.
    ``find_death`` names a dead part without which no work is done; None while all is well. ``make_vectors`` builds and
    extends vector indexes. ``find_causes`` says for lost batches why their workers ended, as far as that is known.
    """

    stages: Stages
    count: Callable[[EncodeConfig], Mapping[str, float]] = lambda config: dict.fromkeys(STAGES, 1.0)
    publish: Callable[[Record], None] = lambda record: None
    prepare: Callable[[Config], None] = lambda config: None
    find_death: Callable[[], str | None] = lambda: None
    make_vectors: Make = make_limited
    find_causes: Callable[[set[str]], Mapping[str, str]] = lambda batch_ids: {}


class Dispatch:
    """Gives the batches of a plan to the workers, and retries those that are lost."""

    def __init__(self, plan: Plan, workers: Workers, checkpoints: Checkpoints, death: Deathwatch) -> None:
        self._plan, self._workers, self._checkpoints, self._death = plan, workers, checkpoints, death
        self._layout = checkpoints.inventory.layout
        self._config, self._progress = checkpoints.config, checkpoints.progress
        self._unreadable: list[tuple[str, str]] = []
        """(uri, message) of indexed files that could not be read when they were to be encoded again."""
        self._n_workers: Mapping[str, float] = dict.fromkeys(STAGES, 1.0)
        self._heard_at = float("-inf")

    def run(self) -> None:
        """Encode all batches.

        A batch is lost if its worker dies each time. Its contents are then tried one by one: those that kill their
        worker alone, too, become failures.

        Raises:
            EarshotError: no worker stays alive.
        """
        batches, run_id = self._plan.batches, self._checkpoints.writer.run_id
        lost = self._encode(batches)
        n_reported = batches.num_rows - len(lost)
        alone = pack_alone(batches, lost, run_id, batches.num_rows)
        for some in (alone.slice(0, MAX_KILLERS), alone.slice(MAX_KILLERS)):
            if not some.num_rows:
                break
            lost = self._encode(some)
            n_reported += some.num_rows - len(lost)
            if not n_reported and (alone.num_rows > MAX_KILLERS or not self._any_answers(run_id)):
                raise EarshotError(f"{self._config.into}: no worker stays alive: see the logs of Ray")
            causes = self._workers.find_causes(lost)
            rows: list[Row] = []
            for batch_id in sorted(lost):
                cause = f": {causes[batch_id]}" if batch_id in causes else ""
                message = f"its worker died whenever it was decoded or encoded, alone too{cause}"
                rows += lost_rows(some, {batch_id}, FileFailure("decode", "crashed", message))
            self._checkpoints.commit_rows(rows)

    def _encode(self, batches: pa.Table) -> set[str]:
        """Encode PLANNED batches once. Returns the ids of those that are lost."""
        grid, with_frames = self._config.window.grid, self._config.store.frames == "all"
        collector = Collector(grid, self._layout.clip_dimension, with_frames=with_frames, planned=batches)
        self._progress.enter("starting workers")
        self._checkpoints.encoding_since, self._heard_at = None, time.monotonic()
        with self._receive(batches) as receipts:
            try:
                for receipt in receipts:
                    if receipt is None:
                        self._note_wait()
                    else:
                        self._note_receipt(receipt)
                        self._collect(receipt, collector)
                        self._progress.stage = "encoding"
                    self._checkpoints.commit_if_due()
                    self._progress.tell()
            except (KeyboardInterrupt, RayDied):  # only moments may be left: publish what is complete
                self._checkpoints.publish()
                raise
        self._checkpoints.commit()
        return collector.missing

    def _any_answers(self, run_id: str) -> bool:
        """Whether any worker survives an almost empty batch."""
        with self._receive(_plan_nothing(run_id)) as receipts:
            return any(receipt is not None for receipt in receipts)

    @contextlib.contextmanager
    def _receive(self, batches: pa.Table) -> Iterator[Iterator[dict[str, Any] | None]]:
        """The receipts of PLANNED batches, and None whenever none came for a while. Meanwhile workers are counted."""
        frames_schema = schema.frames_schema(self._layout.frame_dimension)
        if "pools" not in self._checkpoints.writer.published.versions:  # written by an older version: none until later
            frames_schema = schema.without(frames_schema, schema.BEGINS)
        receipts = self._workers.stages(batches, self._config, frames_schema)
        # In a thread: every question to Ray blocks for a minute once its control store is dead.
        counted = Polled(lambda: self._workers.count(self._config.encode), self._n_workers, COUNT_EVERY_S)

        def take(arriving: Iterator[dict[str, Any] | None]) -> Iterator[dict[str, Any] | None]:
            while True:
                self._death.check()
                try:
                    receipt = next(arriving)
                except Exception as end:  # or StopIteration
                    self._death.check(now=True)  # a death explains Ray's error, and missing work as well
                    if isinstance(end, StopIteration):
                        return
                    raise
                self._n_workers = counted.answer
                yield receipt

        with counted, drain(receipts, self._config.store.checkpoint_s / 4) as arriving:
            yield take(arriving)

    def _note_receipt(self, receipt: dict[str, Any]) -> None:
        now = self._heard_at = time.monotonic()
        if self._checkpoints.encoding_since is None:  # until now the workers started
            self._checkpoints.encoding_since = now - sum(receipt[f"{stage}_s"] for stage in STAGES)
        self._progress.throughput.add(receipt, now, self._n_workers)

    def _note_wait(self) -> None:
        """Say what the run waits for, if no worker is there or no receipt has come for long."""
        silent_s = time.monotonic() - self._heard_at
        doing = "starting workers" if self._checkpoints.encoding_since is None else "encoding"
        if not self._n_workers["encode"]:
            needed = "a node with a GPU" if self._config.encode.device == "cuda" else "room for an encoder"
            self._progress.stage = f"waiting for {needed}"
        elif silent_s > SILENT_S:
            self._progress.stage = f"{doing}, nothing finished for {silent_s / 60:.0f} min"
        else:
            self._progress.stage = doing

    def _collect(self, receipt: dict[str, Any], collector: Collector) -> None:
        """Take a receipt; the batch that it completes goes to the checkpoints."""
        if receipt["error"]:
            raise RuntimeError(receipt["error"])
        self._progress.audio_s += receipt["audio_s"]
        try:
            batch = collector.add(receipt)
        except IncompleteBatch as error:
            self._progress.unpublished.append(str(error))
            return
        if batch is None:
            return
        self._note_finished(batch.files, collector.estimate(batch.batch_id))
        batch = self._without_confirmed(self._without_unreadable(batch))
        if batch.files.num_rows:
            self._checkpoints.add(batch)

    def _without_confirmed(self, batch: Batch) -> Batch:
        """The batch without the files that decode as they did; only their ledger rows are published anew."""
        is_confirmed = pc.equal(batch.files["status"], CONFIRMED)
        if found := batch.files.filter(is_confirmed).to_pylist():
            ledger = self._checkpoints.inventory.ledger
            rows = [confirmed_row(ledger.live(row["uri"]) or {}, row) for row in found]
            self._checkpoints.count_kept(rows, self._plan.examined_copies)
            self._checkpoints.add_kept(rows)
        return replace(batch, files=batch.files.filter(pc.invert(is_confirmed)))

    def _without_unreadable(self, batch: Batch) -> Batch:
        """The batch without indexed files that are unchanged but unreadable now: they keep their rows.

        Their disk may have been unmounted while they were encoded again.
        """
        kept: list[Row] = []
        ledger = self._checkpoints.inventory.ledger
        for row in batch.files.to_pylist():
            old = ledger.live(row["uri"]) if row["status"] == "failed" and row["stage"] == "read" else None
            if old is not None and old["status"] == "indexed" and _is_as_listed(row, old):
                kept.append(old)
                self._unreadable.append((row["uri"], row["message"]))
        if not kept:
            return batch
        self._checkpoints.count_kept(kept, self._plan.examined_copies)
        self._progress.notes = (*self._plan.notes, *note_unreadable(self._unreadable))
        stay = pc.invert(pc.is_in(batch.files["uri"], pa.array([row["uri"] for row in kept])))
        return replace(batch, files=batch.files.filter(stay))

    def _note_finished(self, files: pa.Table, estimate: Estimate) -> None:
        """Note how long a batch is, and how long the plan estimated: the rest of the plan is probably as far off."""
        indexed = files.select(["uri", "audio_id", "duration_s"]).filter(pc.equal(files["status"], "indexed"))
        to_encode, found = dict[str, float](), dict[str, float]()
        for row in indexed.to_pylist():
            durations_s = found if row["uri"] in estimate.examined else to_encode
            durations_s[row["audio_id"]] = row["duration_s"]
        self._progress.finished_planned_s += estimate.to_encode_s
        self._progress.finished_s += sum(to_encode.values())
        self._progress.finished_examined_s += estimate.to_examine_s
        self._progress.found_s += sum(found.values())


def _is_as_listed(row: Row, old: Row) -> bool:
    """Whether a file that could not be read was listed with the size and time that the ledger has."""
    same_size = row["size_bytes"] in (None, old["size_bytes"])
    return bool(same_size and row["modified_ns"] and row["modified_ns"] == old["modified_ns"])


def _plan_nothing(run_id: str) -> pa.Table:
    """PLANNED rows of one missing file: any worker can report it, unless workers die for another reason."""
    audio = {"size_bytes": 0, "estimated_s": 0.0, "uris": ["/dev/null/earshot"], "modified_ns": [0]}
    rows = [{"batch_id": schema.make_batch_id(run_id, 0), "audios": [audio]}]
    return pa.Table.from_pylist(rows, schema=schema.PLANNED)
