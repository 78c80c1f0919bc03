"""A run, seen from the driver: corpus -> plan -> workers -> commits. It reports where it is, and needs no Ray itself.

Workers send receipts, in any order; complete batches wait for the next checkpoint and are committed there.
"""

import contextlib
import datetime as dt
import os
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc

from pipeline import schema, storage
from pipeline.config import Config, EncodeConfig, anchor
from pipeline.corpus.metadata import CorpusMetadata
from pipeline.errors import CommitConflict, CorpusError, EarshotError, FileFailure, RayDied
from pipeline.index import journal
from pipeline.index.generations import delete_folder, drop_former_generations, switch
from pipeline.index.handle import Generation, find_index
from pipeline.index.lease import Lease
from pipeline.index.maintenance import optimize, refresh_indexes
from pipeline.index.metadata_columns import MetadataColumns
from pipeline.index.rows import clip_rows, files_table
from pipeline.index.salvage import Fragments
from pipeline.index.tables import create_tables, no_clips, open_published, read_files, read_rows, select_metadata
from pipeline.index.writer import Batch, Writer
from pipeline.planning.batches import pack_alone
from pipeline.planning.groups import group_copies, group_rows
from pipeline.planning.guard import Disks, Guard, IsMount, is_much
from pipeline.planning.ledger import Ledger
from pipeline.planning.outcomes import deleted_row, lost_rows
from pipeline.planning.plan import Plan
from pipeline.planning.request import RunRequest
from pipeline.run.background import Polled, drain
from pipeline.run.collector import Collector, IncompleteBatch
from pipeline.run.prepare import (
    Report,
    begin_planning,
    choose_generation,
    describe_run,
    find_disks,
    list_files,
    note_unreadable,
    plan_files,
    read_sources,
    refuse_rebuild,
)
from pipeline.run.progress import STAGES, Progress, find_shortfall
from pipeline.run.ray_health import Deathwatch
from pipeline.run.record import Keeper, Record
from pipeline.run.signals import signals_held
from pipeline.run.worker_errors import plain_run_errors

FILES_PER_COMMIT = 5_000
"""Of those that need no decoding."""

MAX_KILLERS = 16
"""When so many contents are lost, each alone, and no other comes back, it is not for what is in them."""

HOLDERS_AT_ONCE = 500
"""Files whose clips are read in one go, to be copied."""

COUNT_EVERY_S = 2.0
"""How often it is asked how many workers there are."""

SILENT_S = 180.0
"""When nothing has come back from the workers for so long, that is told."""

Stages = Callable[[pa.Table, Config, pa.Schema], Iterator[dict[str, Any]]]
"""PLANNED rows, the run and the schema of ``frames`` in, RECEIPTS rows out, in any order: ``workers.run_stages``."""


@dataclass(frozen=True)
class Workers:
    """What does the work, how many do it in each stage at present, and who else is told of it.

    ``prepare`` starts what the stages need, and refuses what it cannot run, before anything is written. ``find_death``
    says what has died without which no work is done; None while all is well.
    """

    stages: Stages
    count: Callable[[EncodeConfig], Mapping[str, float]] = lambda config: dict.fromkeys(STAGES, 1.0)
    publish: Callable[[Record], None] = lambda record: None
    prepare: Callable[[EncodeConfig], None] = lambda config: None
    find_death: Callable[[], str | None] = lambda: None


def index_corpus(
    config: Config,
    report: Report = lambda progress: None,
    announce: Callable[[Plan], None] = lambda plan: None,
    stages: Stages | Workers | None = None,
    request: RunRequest = RunRequest(),
    failpoint: journal.Failpoint = lambda step: None,
    *,
    rebuild: bool = False,
    run_id: str | None = None,
    is_mount: IsMount | None = None,
    give_up: Callable[[RayDied], object] = lambda error: None,
) -> Progress:
    """Bring the index ``config.into`` up to date with the corpus: only what is missing is encoded.

    Args:
        request: what is asked beyond that.
        seam: called before each step of the commit protocol, with its name.
        report: called often with the progress of the run. announce: called once with the plan, before the work.
        stages: what does the work; by default Ray, started when there is something to do.
        rebuild: encode everything into a new generation of the index, maybe with other settings. Readers see the old
            one until it is complete; stopped on the way, another such run goes on with it.
        run_id: 32 hexadecimal digits that no other run has; new ones by default.
        is_mount: whether a folder is a mount point; by default as the system says.
        give_up: called in a thread when Ray has died while this one is in a long call and cannot raise. Ray's own code
            ends the process before long, so this may end it at once, and say why; its record says so by then.

    Raises:
        EarshotError: see ``pipeline.errors``; what has been published stays, and running again goes on from there.
    """
    run_id = run_id or uuid.uuid4().hex
    progress = Progress(index=config.into, run_id=run_id)
    report(progress)
    workers = Workers(stages) if callable(stages) else stages or workers_on_ray()
    index = find_index(config.into)
    listed, manifests = list_files(config, progress, report)
    settings, clip_dimension, frame_dimension = describe_run(config)
    tables = choose_generation(index, settings, rebuild=rebuild)
    rebuild = tables.path != index.live.path
    given = read_sources(tables, listed, manifests, config)
    if not tables.exists:
        progress.stage = "checking models"
        report(progress)
        _check_before_creating(config, workers)

    def shortfall() -> str | None:
        return find_shortfall(progress, config.run.max_failed_fraction)

    keeper = Keeper(config.into, progress, workers.publish, shortfall)
    lease = Lease(config.into, run_id)

    def end(error: RayDied) -> None:
        keeper.fail(error)
        give_up(error)

    death = Deathwatch(config.into, workers.find_death, end)

    def tell(progress: Progress) -> None:
        death.check()
        lease.check()
        report(progress)
        keeper.note()

    with plain_run_errors(config.into):
        if not storage.is_url(config.into):
            os.makedirs(config.into, exist_ok=True)
        with lease, keeper, death, plain_run_errors(config.into):  # the record says what is raised
            if index.refresh() != index:  # what was compared and listed before is not what is there now
                raise CommitConflict(f"{config.into}: another run has written to this index meanwhile; run again")
            tables = tables.refresh()
            if rebuild:
                former = index.live.read_files()
                if refused := refuse_rebuild(former, listed, config, request, find_disks(index.live, is_mount)):
                    raise CorpusError(refused)
                if not tables.exists:
                    delete_folder(tables.path)  # what is left of a creation that was interrupted
            if not tables.exists:
                create_tables(
                    tables.path,
                    settings,
                    clip_dimension=clip_dimension,
                    frame_dimension=frame_dimension,
                    failpoint=failpoint,
                )
                tables = tables.refresh()
            _check_data_files(tables, rebuild=rebuild)
            writer = Writer(tables.path, run_id, keep_versions=config.store.keep_versions, failpoint=failpoint)
            run = _Run(config.model_copy(update={"into": tables.path}), writer, progress, tell, death)
            run.start(listed, given, request, find_disks(tables, is_mount), announce)
            if run.plan.batches.num_rows:
                run.encode(workers, clip_dimension, frame_dimension)
            complete = True
            if rebuild:
                if not request.allow_deletions:
                    progress.n_unread = _count_unread(
                        former, read_files(tables.path, writer.published), config, request
                    )
                complete = _check_rebuilt(progress, former, config)
            progress.held_back = not complete
            if rebuild and complete:
                run.keep_deleted(former)
            progress.stage = "indexing ids"
            tell(progress)
            refresh_indexes(writer)
            if rebuild and complete:
                switch(index, run_id, failpoint)
            drop_former_generations(index.refresh(), dt.timedelta(hours=config.store.keep_hours))
            progress.stage = "done"
    report(progress)
    return progress


def _check_data_files(tables: Generation, *, rebuild: bool) -> None:
    """Refuse to go on with tables of which a data file is lost: the files concerned would count as unchanged.

    Raises:
        EarshotError: naming it.
    """
    advice = f"`earshot verify {tables.index} --repair` makes anew what was in it"
    if rebuild:
        advice = f"delete {tables.path} to begin the rebuild once more"
    for name in journal.DATA_TABLES:
        for why in list(Fragments(tables.open(name), name).lost.values())[:1]:
            raise EarshotError(f"{tables.index}: `{name}`: {why}; {advice}")


def _check_rebuilt(progress: Progress, former: pa.Table, config: Config) -> bool:
    """Whether a generation may take the place of the former one.

    Raises:
        EarshotError: nothing could be indexed.
    """
    if pc.any(pc.equal(former["status"], "indexed")).as_py() and progress.n_failed + progress.n_failed_before == (
        progress.n_files
    ):
        raise EarshotError(f"{config.into}: no file could be indexed anew, so the former tables stay in their place")
    is_enough = progress.failed_fraction <= config.run.max_failed_fraction and not progress.n_unread
    return is_enough and not progress.unpublished


def _count_unread(former: pa.Table, files: pa.Table, config: Config, request: RunRequest) -> int:
    """How many files that the former tables have indexed could not be read for new ones; 0 where so many may go.

    Their disk may have gone, or their folder been closed, since the rebuild began.
    """
    uris = former["uri"].filter(pc.equal(former["status"], "indexed")).to_pylist()
    was_unread = pc.and_(pc.equal(files["status"], "failed"), pc.is_in(files["stage"], pa.array(["list", "read"])))
    unread = set(files["uri"].filter(was_unread).to_pylist())
    n_unread = sum(request.renamed(uri) in unread for uri in uris)
    return n_unread if is_much(n_unread, len(uris), config.run.max_deleted_fraction) else 0


def _check_before_creating(config: Config, workers: Workers) -> None:
    """Whatever would keep the workers from encoding, said before anything is written."""
    if not storage.is_url(config.into) and os.path.lexists(config.into) and not os.path.isdir(config.into):
        raise EarshotError(f"{config.into}: cannot be written: a file is in the way; choose another place")
    from pipeline.encoder.encoder import check_models

    with ThreadPoolExecutor(1) as pool:  # torch is imported and weights are read while Ray starts: seconds each
        checked = pool.submit(check_models, config.encode, frames=config.store.frames == "all")
        workers.prepare(config.encode)
        checked.result()


class _Run:
    """The driver's side: what is committed, and when."""

    def __init__(self, config: Config, writer: Writer, progress: Progress, report: Report, death: Deathwatch) -> None:
        self._config, self._writer, self._progress, self._report = config, writer, progress, report
        self._death = death
        self._waiting: list[Batch] = []
        self._unreadable: list[tuple[str, str]] = []
        """(uri, message) of indexed files that could not be read when they were to be encoded anew."""
        self._committed_at = time.monotonic()
        self._n_known = 0
        self._encoding_since: float | None = None
        self._n_workers: Mapping[str, float] = dict.fromkeys(STAGES, 1.0)
        self._heard_at = float("-inf")

    def start(
        self,
        listed: pa.Table,
        given: CorpusMetadata,
        request: RunRequest,
        disks: Disks,
        announce: Callable[[Plan], None],
    ) -> None:
        """Plan, and publish at once what needs no decoding.

        Raises:
            CorpusError: more would go than a run may take out unasked.
        """
        self._progress.n_files = listed.num_rows
        files = read_files(self._config.into, self._writer.published)
        self._ledger = Ledger(files.select(schema.FILES.names))
        self._metadata = MetadataColumns(given, select_metadata(files))
        setup = begin_planning(self._config, request, self._writer.run_id, self._progress, self._report)
        guard = Guard(listed, self._config, request, disks)
        self.plan = plan_files(listed, self._ledger, self._metadata, setup, guard)
        if self.plan.refused:
            raise CorpusError(self.plan.refused)
        self._progress.n_unchanged = self.plan.n_unchanged
        self._touched = {row["uri"] for row in self.plan.mtime_changed}
        self._progress.n_metadata = len(self.plan.metadata_changed)
        self._progress.notes = self.plan.notes
        self._progress.n_failed_before = self.plan.n_failed_before
        self._progress.n_deleted = len(self.plan.deleted)
        self._progress.planned_s = self.plan.seconds_to_decode
        self._report(self._progress)
        announce(self.plan)
        self._writer.configure(anchor(self._config).model_dump(mode="json"), self.plan.mounts)
        self._writer.add_columns(self._metadata.columns)
        # Copies first: a file that moved needs the clips of the one that is gone, and frames need an owner throughout.
        settled: set[str] = set()
        for copies, gone in group_copies(self.plan, self._config.store.checkpoint_rows, FILES_PER_COMMIT):
            self._publish_known([*(row for row, _ in copies), *gone], self._copy_clips(copies))
            settled |= {row["uri"] for row in gone}
        for rows in group_rows(self.plan.metadata_changed, self._config.store.checkpoint_rows, FILES_PER_COMMIT):
            indexed = [(row, row["file_id"]) for row in rows if row["status"] == "indexed"]
            self._publish_known(rows, self._copy_clips(indexed), "metadata")
        gone = [row for row in self.plan.deleted if row["uri"] not in settled]
        others = [*self.plan.failed, *self.plan.mtime_changed, *gone]
        for first in range(0, len(others), FILES_PER_COMMIT):
            self._publish_known(others[first : first + FILES_PER_COMMIT], self._no_clips())

    def keep_deleted(self, former: pa.Table) -> None:
        """Note as deleted what the ledger of the former generation knew, and the corpus no longer has."""
        self._metadata = self._metadata.over(select_metadata(former))
        is_known = [self._ledger.knows(uri) for uri in former["uri"].to_pylist()]
        gone = former.select(schema.FILES.names).filter(pc.invert(pa.array(is_known, pa.bool_())))
        rows = [deleted_row(row) for row in gone.to_pylist()]
        for first in range(0, len(rows), FILES_PER_COMMIT):
            self._publish_known(rows[first : first + FILES_PER_COMMIT], self._no_clips())

    def _publish_known(
        self, rows: list[dict[str, Any]], clips: pa.Table, kind: Literal["index", "metadata"] = "index"
    ) -> None:
        if rows:
            self._n_known += 1
            batch_id = schema.make_batch_id(self._writer.run_id, -self._n_known)
            mtime_changed = frozenset(row["file_id"] for row in rows if row["uri"] in self._touched)
            self._add(Batch(batch_id, files_table(rows), clips, keep_clips=mtime_changed, kind=kind))
            self._commit()

    def _no_clips(self) -> pa.Table:
        return no_clips(self._config.into, self._writer.published)

    def _copy_clips(self, wanted: list[tuple[dict[str, Any], str]]) -> pa.Table:
        """The clips of files whose content is indexed: the rows of a file that holds it, under new ids."""
        clips = open_published(self._config.into, "clips", self._writer.published)
        tables = [self._no_clips()]
        columns = pa.schema([column for column in tables[0].schema if column.name != "vector"])
        for first in range(0, len(wanted), HOLDERS_AT_ONCE):
            copies = wanted[first : first + HOLDERS_AT_ONCE]
            held = read_rows(clips, "file_id", {holder_id for _, holder_id in copies}, ["start_s", "vector"])
            held = held.sort_by([("file_id", "ascending"), ("start_s", "ascending")])
            where: dict[str, list[int]] = {}
            for position, file_id in enumerate(held["file_id"].to_pylist()):
                where.setdefault(file_id, []).append(position)
            rows, positions = [], list[int]()
            starts_s = held["start_s"].to_pylist()
            for row, holder_id in copies:
                clips_of = clip_rows(row, self._config.window.grid)
                if [starts_s[at] for at in where.get(holder_id, [])] != [clip["start_s"] for clip in clips_of]:
                    raise EarshotError(
                        f"{self._config.into}: clips of the content of {row['uri']} are damaged; mend that by `earshot"
                        " verify INDEX --repair`"
                    )
                rows += clips_of
                positions += where[holder_id]
            table = pa.Table.from_pylist(rows, schema=columns)
            table = table.append_column(clips.schema.field("vector"), held["vector"].take(pa.array(positions)))
            tables.append(table.select(tables[0].schema.names).cast(tables[0].schema))
        return pa.concat_tables(tables)

    def encode(self, workers: Workers, clip_dimension: int, frame_dimension: int) -> None:
        """Give the planned batches to the workers and commit what comes back.

        A batch is lost when its worker dies again and again. Its contents are then tried one by one, so that each one
        that kills its worker is found, and becomes a failure.
        """

        def run(batches: pa.Table) -> Iterator[dict[str, Any]]:
            return workers.stages(batches, self._config, schema.frames_schema(frame_dimension))

        def encode(batches: pa.Table) -> set[str]:
            """Returns the ids of the batches that are lost."""
            collector = Collector(
                self._config.window.grid,
                clip_dimension,
                with_frames=self._config.store.frames == "all",
                planned=batches,
            )
            self._encode(run(batches), collector, workers)
            return collector.missing

        batches = self.plan.batches
        lost = encode(batches)
        n_reported = batches.num_rows - len(lost)
        alone = pack_alone(batches, lost, self._writer.run_id, batches.num_rows)
        for part in (alone.slice(0, MAX_KILLERS), alone.slice(MAX_KILLERS)):
            if not part.num_rows:
                break
            lost = encode(part)
            n_reported += part.num_rows - len(lost)
            # When nothing at all comes back, it is not for what is in them.
            if not n_reported and (alone.num_rows > MAX_KILLERS or not self._answers(run, workers)):
                raise EarshotError(f"{self._config.into}: no worker stays alive: see the logs of Ray")
            message = "its worker died whenever it was decoded or encoded, alone too"
            rows = lost_rows(part, lost, FileFailure("decode", "crashed", message))
            self._publish_known(rows, self._no_clips())

    def _encode(self, receipts: Iterator[dict[str, Any]], collector: Collector, workers: Workers) -> None:
        self._progress.stage = "starting workers"
        self._report(self._progress)
        self._encoding_since, self._heard_at = None, time.monotonic()
        with self._arriving(receipts, workers) as arriving:
            try:
                for receipt in arriving:
                    if receipt is None:
                        self._note_wait()
                    else:
                        self._note_pace(receipt)
                        self._take(collector, receipt)
                        self._progress.stage = "encoding"
                    self._checkpoint()
                    self._report(self._progress)
            except (KeyboardInterrupt, RayDied):  # what is complete comes first: there may be moments left
                self._publish_waiting()
                raise
        self._commit()

    def _answers(self, run: Callable[[pa.Table], Iterator[dict[str, Any]]], workers: Workers) -> bool:
        """Whether any worker stays alive when it is given nothing to speak of."""
        with self._arriving(run(_nothing(self._writer.run_id)), workers) as arriving:
            return any(receipt is not None for receipt in arriving)

    @contextlib.contextmanager
    def _arriving(
        self, receipts: Iterator[dict[str, Any]], workers: Workers
    ) -> Iterator[Iterator[dict[str, Any] | None]]:
        """The receipts as ``drain`` gives them. Meanwhile workers are counted.

        Raises:
            RayDied: from the iterator.
        """
        # In a thread: whatever asks Ray something waits for a minute once its control store is dead.
        counted = Polled(lambda: workers.count(self._config.encode), self._n_workers, COUNT_EVERY_S)

        def take(arriving: Iterator[dict[str, Any] | None]) -> Iterator[dict[str, Any] | None]:
            while True:
                self._death.check()
                try:
                    receipt = next(arriving)
                except Exception as end:  # or StopIteration
                    self._death.check(now=True)  # it explains whatever error Ray has for it, and work that is missing
                    if isinstance(end, StopIteration):
                        return
                    raise
                self._n_workers = counted.answer
                yield receipt

        with counted, drain(receipts, self._config.store.checkpoint_s / 4) as arriving:
            yield take(arriving)

    def _note_pace(self, receipt: dict[str, Any]) -> None:
        now = self._heard_at = time.monotonic()
        if self._encoding_since is None:  # until then workers started
            self._encoding_since = now - sum(receipt[f"{stage}_s"] for stage in STAGES)
        self._progress.throughput.add(receipt, now, self._n_workers)

    def _note_wait(self) -> None:
        """Say what is waited for, where nothing has come for long or nobody is there to send it."""
        silent_s = time.monotonic() - self._heard_at
        doing = "starting workers" if self._encoding_since is None else "encoding"
        if not self._n_workers["encode"]:
            needed = "a node with a GPU" if self._config.encode.device == "cuda" else "room for an encoder"
            self._progress.stage = f"waiting for {needed}"
        elif silent_s > SILENT_S:
            self._progress.stage = f"{doing}, nothing finished for {silent_s / 60:.0f} min"
        else:
            self._progress.stage = doing

    def _take(self, collector: Collector, receipt: dict[str, Any]) -> None:
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
        self._note_finished(batch.files, collector.estimated_s(batch.batch_id))
        batch = self._without_unreadable(batch)
        if batch.files.num_rows:
            self._add(batch)

    def _without_unreadable(self, batch: Batch) -> Batch:
        """A batch without the files that are indexed, have not changed, and could not be read: they keep their rows.

        Their disk may have gone while they were encoded anew.
        """
        kept: list[str] = []
        for row in batch.files.to_pylist():
            old = self._ledger.live(row["uri"]) if row["status"] == "failed" and row["stage"] == "read" else None
            if old is not None and old["status"] == "indexed" and _is_as_planned(row, old):
                kept.append(row["uri"])
                self._unreadable.append((row["uri"], row["message"]))
        if not kept:
            return batch
        self._progress.n_unchanged += len(kept)
        self._progress.notes = (*self.plan.notes, *note_unreadable(self._unreadable))
        stay = pc.invert(pc.is_in(batch.files["uri"], pa.array(kept)))
        return replace(batch, files=batch.files.filter(stay))

    def _note_finished(self, files: pa.Table, estimated_s: float) -> None:
        """Note how long a batch is and how long the plan estimated: the rest of the estimate is about as far off."""
        indexed = files.select(["audio_id", "duration_s"]).filter(pc.equal(files["status"], "indexed"))
        self._progress.finished_planned_s += estimated_s
        self._progress.finished_s += sum({row["audio_id"]: row["duration_s"] for row in indexed.to_pylist()}.values())

    def _add(self, batch: Batch) -> None:
        """Count a complete batch, which waits for the next checkpoint."""
        self._waiting.append(batch)
        if batch.kind == "metadata":  # these files count as unchanged
            return
        self._progress.n_clips += batch.clips.num_rows
        self._progress.n_frames += batch.n_frames
        for row in batch.files.select(["file_id", "status", "reason"]).to_pylist():
            if row["file_id"] in batch.keep_clips:  # only touched: it counts as unchanged
                continue
            self._progress.n_indexed += row["status"] == "indexed"
            self._progress.n_failed += row["status"] == "failed"
            if row["reason"]:
                self._progress.reasons[row["reason"]] += 1

    def _checkpoint(self) -> None:
        limits = self._config.store
        rows = sum(batch.n_rows for batch in self._waiting)
        if rows >= limits.checkpoint_rows or time.monotonic() - self._committed_at >= limits.checkpoint_s:
            self._commit()

    def _commit(self) -> None:
        self._publish_waiting()
        limits = self._config.store
        if self._writer.n_commits >= limits.optimize_every:
            stage, self._progress.stage = self._progress.stage, "optimizing"
            self._report(self._progress)
            optimize(self._writer, older_than=dt.timedelta(hours=limits.keep_hours))
            self._progress.stage = stage

    def _publish_waiting(self) -> None:
        self._committed_at = time.monotonic()
        if not self._waiting:
            return
        with signals_held():
            # Taken out first: a commit that is broken off is never tried again here, for it may be half done, or done.
            # The next run finds out.
            batches, self._waiting = self._waiting, []
            self._publish(batches)

    def _publish(self, waiting: list[Batch]) -> None:
        began, self._encoding_since = self._encoding_since, self._encoding_since and time.monotonic()
        batches: list[Batch] = []
        written: dict[str, dict[str, Any]] = {}
        """By audio, what this commit leaves of its frames."""
        replaced, reported = set[str](), set[str]()
        for batch in waiting:
            rows = batch.files.to_pylist()
            indexed = {row["audio_id"] for row in rows if batch.frame_fragments and row["status"] == "indexed"}
            # Content that is encoded once more takes the place of its former frames, if those have been published.
            again = {audio_id for audio_id in indexed - written.keys() if self._ledger.holds(audio_id)}
            orphaned = indexed & written.keys()
            rows = [row | written.get(row["audio_id"], {}) if row["status"] == "indexed" else row for row in rows]
            written |= {
                row["audio_id"]: {name: row[name] for name in ("n_frames", "frames_checksum")}
                for row in rows
                if row["audio_id"] in indexed
            }
            replaced |= again
            reported |= {row["uri"] for row in rows}
            drop_files, drop_frames = self._ledger.apply(rows)
            files = self._metadata.join(files_table(rows))
            seconds = None if began is None else (time.monotonic() - began) / len(waiting)
            batches.append(
                replace(
                    batch,
                    files=files,
                    clips=self._metadata.join_to_clips(batch.clips, files),
                    drop_files=drop_files,
                    drop_frames=drop_frames | again,
                    orphaned=batch.orphaned | orphaned,
                    seconds=seconds,
                )
            )
        holders = [row for audio_id in sorted(replaced) for row in self._ledger.holders(audio_id)]
        others = [row for row in holders if row["uri"] not in reported]
        if changed := [new for row in others if (new := row | written[row["audio_id"]]) != row]:
            batches.append(self._note_frames(changed))
        self._writer.commit(batches)

    def _note_frames(self, rows: list[dict[str, Any]]) -> Batch:
        """A batch that tells files of new frames of their audio, written for another file with the same bytes."""
        self._n_known += 1
        drop_files, _ = self._ledger.apply(rows)
        return Batch(
            schema.make_batch_id(self._writer.run_id, -self._n_known),
            self._metadata.join(files_table(rows)),
            self._no_clips(),
            drop_files=drop_files,
            keep_clips=drop_files,
        )


def _is_as_planned(row: dict[str, Any], old: dict[str, Any]) -> bool:
    """Whether a file that could not be read was listed with the size and time that the ledger has."""
    same_size = row["size_bytes"] in (None, old["size_bytes"])
    return bool(same_size and row["modified_ns"] and row["modified_ns"] == old["modified_ns"])


def _nothing(run_id: str) -> pa.Table:
    """PLANNED rows of a file that is not there: any worker can tell that, unless it dies of something else."""
    audio = {"size_bytes": 0, "estimated_s": 0.0, "uris": ["/dev/null/earshot"], "modified_ns": [0]}
    rows = [{"batch_id": schema.make_batch_id(run_id, 0), "audios": [audio]}]
    return pa.Table.from_pylist(rows, schema=schema.PLANNED)


def workers_on_ray(**how: Any) -> Workers:
    """Those of a Ray cluster: the one that ``RAY_ADDRESS`` names, or one on this machine, started when it is needed.

    Args:
        how: another ``decode`` or ``load`` than that of ``workers.run_stages``.
    """
    from pipeline.run.ray_health import RayHealth
    from pipeline.run.ray_start import start_ray
    from pipeline.run.workers import check_machine, count_workers, publish, run_stages

    def stages(batches: pa.Table, config: Config, frames_schema: pa.Schema) -> Iterator[dict[str, Any]]:
        start_ray()  # here, in the main thread, so that Ray can handle signals
        return run_stages(batches, config, frames_schema, **how)

    def prepare(config: EncodeConfig) -> None:
        start_ray()
        check_machine(config)

    return Workers(stages, count_workers, publish, prepare, RayHealth().find_death)
