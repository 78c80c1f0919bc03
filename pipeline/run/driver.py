"""A run: corpus -> plan -> workers -> commits. ``index_corpus`` is the recipe; it needs no Ray itself."""

import datetime as dt
import os
import shlex
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pyarrow as pa
import pyarrow.compute as pc

from pipeline import schema, storage
from pipeline.config import Config, anchor
from pipeline.errors import CommitConflict, CorpusError, EarshotError, RayDied
from pipeline.index import journal
from pipeline.index.backfill import FRAMES_TO_POOL, add_pools
from pipeline.index.decoder_upkeep import raise_decoder
from pipeline.index.handle import (
    Generation,
    delete_folder,
    drop_former_generations,
    find_index,
    read_generation,
    switch,
)
from pipeline.index.lease import Lease
from pipeline.index.maintenance import drop_lost_indexes, refresh_indexes
from pipeline.index.salvage import Fragments
from pipeline.index.tables import create_tables, read_files, select_metadata
from pipeline.index.tuning import is_approximate
from pipeline.index.vector_upkeep import VectorUpkeep
from pipeline.index.writer import Writer
from pipeline.planning.file_rows import deleted_row
from pipeline.planning.guard import IsMount
from pipeline.planning.plan import Plan
from pipeline.planning.request import RunRequest
from pipeline.run import prepare
from pipeline.run.checkpoints import Checkpoints
from pipeline.run.dispatch import Dispatch, Stages, Workers
from pipeline.run.known_rows import publish_known, publish_without_clips
from pipeline.run.progress import Progress, find_shortfall
from pipeline.run.ray_health import Deathwatch
from pipeline.run.rebuild import check_rebuilt, refuse_rebuild
from pipeline.run.record import Keeper
from pipeline.run.worker_errors import plain_run_errors


def index_corpus(
    config: Config,
    report: Callable[[Progress], object] = lambda progress: None,
    announce: Callable[[Plan], None] = lambda plan: None,
    stages: Stages | Workers | None = None,
    request: RunRequest = RunRequest(),
    failpoint: journal.Failpoint = lambda step: None,
    *,
    rebuild: bool = False,
    run_id: str | None = None,
    is_mount: IsMount | None = None,
    give_up: Callable[[RayDied], object] = lambda error: None,
    vectors: VectorUpkeep | None = None,
) -> Progress:
    """Bring the index ``config.into`` up to date with the corpus: only what is missing is encoded.

    Args:
        report: called often with the progress of the run. announce: called once with the plan, before the work.
        stages: the workers; by default those of Ray, which is started when there is something to encode.
        request: what to do beyond that.
        failpoint: called before each step of the commit protocol, with its name.
        rebuild: encode everything into a new generation of the index, perhaps with other settings. Readers see the old
            one until the new one is complete. A stopped rebuild is continued by the next one.
        run_id: 32 hexadecimal digits that no other run has; random ones by default.
        is_mount: whether a folder is a mount point; by default the system decides.
        give_up: called in a thread if Ray has died while the main thread is in a long call and cannot raise. The record
            of the run says so by then. Ray's own code will soon end the process, so this may end it with a message.
        vectors: makes the vector indexes; by default a new one, in processes of their own.

    Raises:
        EarshotError: see ``pipeline.errors``. What has been published stays, and the next run continues from there.
    """
    progress = Progress(index=config.into, run_id=run_id or uuid.uuid4().hex, report=report)
    progress.tell()
    workers = _find_workers(stages)
    vectors = vectors or VectorUpkeep(workers.make_vectors, progress.tell)
    index = find_index(config.into)
    given, config = config, prepare.keep_tail(config, index, rebuild=rebuild)
    listed, manifests = prepare.list_files(config, progress, index.live)
    layout = prepare.describe_run(config)
    tables = prepare.choose_generation(index, layout.settings, rebuild=rebuild)
    rebuild = tables.path != index.live.path
    source_metadata = prepare.read_sources(tables, listed, manifests, config)
    if not tables.exists:
        progress.enter("checking models")
        _check_place(config.into)
        workers.prepare(config)

    with _in_charge(config, workers, progress, give_up) as death:
        if index.refresh() != index:  # what was compared and listed before does not hold any more
            raise CommitConflict(f"{config.into}: another run has written to this index meanwhile; run again")
        if rebuild:
            former, disks = index.live.read_files(), prepare.find_disks(index.live, is_mount)
            if refused := refuse_rebuild(former, listed, config, request, disks):
                raise CorpusError(refused)
        tables = _create_missing(tables.refresh(), layout, failpoint, rebuild=rebuild)
        _check_data_files(tables, rebuild=rebuild)
        writer = Writer(tables.path, progress.run_id, failpoint=failpoint)
        lost = drop_lost_indexes(writer)
        files = read_files(tables.path, writer.published)
        disks = prepare.find_disks(tables, is_mount)
        inventory = prepare.Inventory(listed, source_metadata, files, disks, layout)
        checkpoints = Checkpoints(config.model_copy(update={"into": tables.path}), writer, inventory, progress, vectors)

        plan = _make_plan(checkpoints, request)
        announce(plan)
        writer.configure(anchor(given.model_copy(update={"into": tables.path})).model_dump(mode="json"), plan.mounts)
        writer.add_columns(inventory.metadata.columns)
        publish_known(plan, checkpoints)
        if plan.batches.num_rows:
            Dispatch(plan, workers, checkpoints, death).run()

        replaces = rebuild and check_rebuilt(
            progress, former, read_files(tables.path, writer.published), config, request
        )
        if replaces:
            _keep_deleted(former, checkpoints)
        progress.enter("indexing tables")
        raise_decoder(writer)
        add_pools(writer, FRAMES_TO_POOL, progress.tell)
        vectors.begin_anew()  # the encoders have left their memory
        refresh_indexes(writer, vectors)
        progress.notes = (*progress.notes, *lost, *vectors.problems.values())
        if replaces:
            switch(index, progress.run_id, failpoint)
        drop_former_generations(index.refresh(), dt.timedelta(hours=config.store.keep_hours))
        _keep_recall(writer, config.run.recall, progress)  # last: an audit that is interrupted costs nothing else
        progress.stage = "done"
    progress.tell()
    return progress


def _find_workers(stages: Stages | Workers | None) -> Workers:
    if stages is None:
        from pipeline.run.workers import workers_on_ray

        return workers_on_ray()
    return stages if isinstance(stages, Workers) else Workers(stages)


def _check_place(path: str) -> None:
    """Refuse an index where a file is in the way, before models are loaded."""
    if not storage.is_url(path) and os.path.lexists(path) and not os.path.isdir(path):
        raise EarshotError(f"{path}: cannot be written: a file is in the way; choose another place")


@contextmanager
def _in_charge(
    config: Config, workers: Workers, progress: Progress, give_up: Callable[[RayDied], object]
) -> Iterator[Deathwatch]:
    """Hold the lease, keep the record and watch Ray. Each report checks the lease and Ray, too, and may raise."""

    def end(error: RayDied) -> None:
        try:
            keeper.fail(error)
        finally:
            give_up(error)

    def report_and_check(progress: Progress) -> None:
        death.check()
        lease.check()
        report(progress)
        keeper.note()

    lease = Lease(config.into, progress.run_id)
    most = config.run.max_failed_fraction
    keeper = Keeper(config.into, progress, workers.publish, lambda: find_shortfall(progress, most))
    death = Deathwatch(config.into, workers.find_death, end)
    report, progress.report = progress.report, report_and_check
    try:
        with plain_run_errors(config.into):
            if not storage.is_url(config.into):
                os.makedirs(config.into, exist_ok=True)
            with lease, keeper, death, plain_run_errors(config.into):  # the record gets the plain error
                yield death
    finally:
        progress.report = report


def _create_missing(
    tables: Generation, layout: prepare.Layout, failpoint: journal.Failpoint, *, rebuild: bool
) -> Generation:
    """The tables, which are created if they do not exist."""
    if tables.exists:
        return tables
    if rebuild:
        delete_folder(tables.path)  # the rest of an interrupted creation
    create_tables(tables.path, **layout._asdict(), failpoint=failpoint)
    return tables.refresh()


def _check_data_files(tables: Generation, *, rebuild: bool) -> None:
    """Refuse to continue with tables that have lost a data file: its files would count as unchanged."""
    advice = f"`earshot verify {shlex.quote(tables.index)} --repair` encodes the files concerned again"
    if rebuild:
        advice = f"delete {tables.path} to start the rebuild again"
    for name in tables.versions:
        for why in list(Fragments(tables.open(name), name).lost.values())[:1]:
            raise EarshotError(f"{tables.index}: `{name}`: {why}; {advice}")


def _keep_recall(writer: Writer, wanted: float, progress: Progress) -> None:
    """Measure the recall of the vector indexes where that is due; notes end up with those of the run."""
    if not is_approximate(read_generation(writer.path)):
        return
    from pipeline.search.keep_recall import keep_recall  # with lancedb, which a run does not need otherwise

    def note(line: str) -> None:
        progress.notes = (*progress.notes, line)

    keep_recall(writer, wanted, index=progress.index, tick=lambda: progress.enter("measuring recall"), note=note)


def _make_plan(checkpoints: Checkpoints, request: RunRequest) -> Plan:
    """Plan the run, and count what the plan says. Refuses to delete more than a run may without being asked."""
    progress = checkpoints.progress
    plan = prepare.plan_files(checkpoints.inventory, checkpoints.config, request, progress)
    if plan.refused:
        raise CorpusError(plan.refused)
    progress.n_unchanged = plan.n_unchanged
    progress.n_metadata = len(plan.metadata_changed)
    progress.n_failed_before = plan.n_failed_before
    progress.n_deleted = len(plan.deleted)
    progress.planned_s, progress.examined_s = plan.seconds_to_decode, plan.seconds_examined
    progress.notes = plan.notes
    progress.tell()
    return plan


def _keep_deleted(former: pa.Table, checkpoints: Checkpoints) -> None:
    """Give rebuilt tables, as deleted, the files that only the ``former`` ledger knows."""
    inventory = checkpoints.inventory
    inventory.metadata = inventory.metadata.over(select_metadata(former))
    is_known = [inventory.ledger.knows(uri) for uri in former["uri"].to_pylist()]
    unknown = former.select(schema.FILES.names).filter(pc.invert(pa.array(is_known, pa.bool_())))
    publish_without_clips([deleted_row(row) for row in unknown.to_pylist()], checkpoints)
