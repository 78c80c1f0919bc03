"""Before the work: what an index is to be, what its sources hold, and what is to be done with each file.

Nothing is written here, and no worker is needed: ``earshot plan`` ends with it.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline import schema
from pipeline.audio.source import hash_file, probe_file
from pipeline.config import Config, make_config
from pipeline.corpus.discover import list_corpus
from pipeline.corpus.ignored_files import IgnoredFiles
from pipeline.corpus.metadata import CorpusMetadata, read_metadata
from pipeline.encoder.checkpoint import read_identity
from pipeline.errors import REASONS, IndexMismatch, UsageError
from pipeline.grid import FRAME_S
from pipeline.index import journal
from pipeline.index.handle import Generation, Handle, find_index
from pipeline.index.metadata_columns import MetadataColumns
from pipeline.index.salvage import Fragments, read_all
from pipeline.index.settings import check_settings, differences, index_settings, known_values
from pipeline.index.tables import select_metadata
from pipeline.planning.decide import PlanSetup, lies_within, make_plan
from pipeline.planning.guard import Disks, Guard, IsMount, read_mounts
from pipeline.planning.ledger import Ledger
from pipeline.planning.plan import Plan
from pipeline.planning.request import RunRequest
from pipeline.run.progress import Progress

Report = Callable[[Progress], None]

ROWS_AT_ONCE = 65_536


def describe_run(config: Config) -> tuple[dict[str, Any], int, int]:
    """The settings of an index that ``config`` would make, and the dimensions of its clip and frame vectors.

    Raises:
        ModelError: a model cannot be found.
    """
    encode = config.encode
    clip = read_identity(encode.clip_model, encode.clip_revision)
    frame = clip
    if encode.frame_model is not None:
        frame = read_identity(encode.frame_model, encode.frame_revision)
    with_frames = config.store.frames == "all"
    settings = index_settings(config, clip.to_dict(), frame.to_dict() if with_frames else None)
    return settings, clip.dimension, frame.dimension


def read_config(index: Handle, *, rebuild: bool = False) -> Config:
    """The configuration of the newest run on an index, its models as they were then.

    Args:
        rebuild: that of a rebuild which was begun and stopped, if there is one.

    Raises:
        UsageError: no run has got as far as to leave one.
    """
    tables, path = index.live, index.path
    if rebuild and (begun := index.find_next()).config is not None:
        tables = begun
    settings, values = tables.settings, tables.config
    if values is None:
        raise UsageError(f"{path}: no run has left its configuration here; run `earshot index SOURCE --into {path}`")
    config = make_config(known_values({**values, "into": path}), path)
    revisions = {
        f"{key}_revision": model.get("revision")
        for key in ("clip", "frame")
        if (model := settings[f"{key}_model"]) is not None and getattr(config.encode, f"{key}_model") is not None
    }
    return config.model_copy(update={"encode": config.encode.model_copy(update=revisions)})


def plan_corpus(
    config: Config,
    request: RunRequest = RunRequest(),
    report: Report = lambda progress: None,
    *,
    rebuild: bool = False,
    is_mount: IsMount | None = None,
) -> Plan:
    """What ``index_corpus`` would do; nothing is written. Where it would refuse to, the plan's ``refused`` says why.

    Args:
        is_mount: whether a folder is a mount point; by default as the system says.

    Raises:
        EarshotError: see ``pipeline.errors``.
    """
    progress = Progress()
    listed, manifests = list_files(config, progress, report)
    settings, _, _ = describe_run(config)
    index = find_index(config.into)
    tables = choose_generation(index, settings, rebuild=rebuild)
    files = tables.read_files()
    given = read_sources(tables, listed, manifests, config)
    metadata = MetadataColumns(given, select_metadata(files))
    progress.n_files = listed.num_rows
    guard = Guard(listed, config, request, find_disks(tables, is_mount))
    setup = begin_planning(config, request, "0" * 32, progress, report, list_actions=True)
    plan = plan_files(listed, Ledger(files.select(schema.FILES.names)), metadata, setup, guard)
    plan.not_looked_at = progress.not_looked_at
    if tables.path != index.live.path:
        former, disks = index.live.open("files").to_table(columns=["uri", "status"]), find_disks(index.live, is_mount)
        plan.refused = plan.refused or refuse_rebuild(former, listed, config, request, disks)
    return plan


def find_disks(tables: Generation, is_mount: IsMount | None) -> Disks:
    """The disks that the files of an index lie on.

    Args:
        is_mount: whether a folder is a mount point; by default as the system says.
    """
    return Disks(frozenset(tables.mounts), is_mount or read_mounts())


def list_files(config: Config, progress: Progress, report: Report) -> tuple[pa.Table, list[str]]:
    """The files of the corpus, and the manifests that name them. ``progress`` notes what is not looked at."""

    def report_found(n_files: int) -> None:
        progress.stage = f"listing, {n_files:,} files found"
        report(progress)

    manifests, ignored = list[str](), IgnoredFiles()
    listed = list_corpus(config.sources, config.corpus, config.into, manifests, report_found, ignored)
    progress.not_looked_at = ignored.count(listed)
    return listed, manifests


def read_sources(tables: Generation, listed: pa.Table, manifests: list[str], config: Config) -> CorpusMetadata:
    """What the sources say of the files of the corpus."""
    there = tables.open("files").schema if tables.exists else schema.FILES
    return read_metadata(listed, manifests, config.corpus, schema.metadata_columns(there))


def begin_planning(
    config: Config,
    request: RunRequest,
    run_id: str,
    progress: Progress,
    report: Report,
    *,
    list_actions: bool = False,
) -> PlanSetup:
    """Report that planning begins; the setup goes on to report how many files have been read."""

    def report_read(n_read: int, n_files: int) -> None:
        if n_read % 100 == 0:
            progress.stage = f"comparing files, {n_read} of {n_files}"
            report(progress)

    progress.stage = "planning"
    report(progress)
    return PlanSetup(
        config.run.batch_s, run_id, hash_file, probe_file, request, report=report_read, list_actions=list_actions
    )


def plan_files(listed: pa.Table, ledger: Ledger, metadata: MetadataColumns, setup: PlanSetup, guard: Guard) -> Plan:
    """The plan of a run, with notes for a person.

    Raises:
        UsageError: there is no such reason as the request names.
    """
    reason = setup.request.reason
    if reason is not None and reason not in REASONS:
        raise UsageError(f"--reason {reason}: no file fails so; the reasons are {', '.join(REASONS)}")
    plan = make_plan(listed, ledger, setup, metadata.outdated())
    plan.notes = (*metadata.notes, *note_unreadable(plan.unreadable))
    indexed = ledger.indexed()
    plan.refused = guard.find_refusal(plan.removed.values(), len(indexed))
    deleted = pa.array([row["uri"] for row in plan.deleted], pa.string())
    plan.mounts = guard.find_mounts(indexed.filter(pc.invert(pc.is_in(indexed, deleted))))
    return plan


def note_unreadable(shut: list[tuple[str, str]]) -> tuple[str, ...]:
    """A line on indexed files that cannot be read now, each with why; none where there are none."""
    if not shut:
        return ()
    uri, message = min(shut)
    return (f"{len(shut)} files of the index cannot be read now, their rows stay; the first one is {uri}: {message}",)


def refuse_rebuild(former: pa.Table, listed: pa.Table, config: Config, request: RunRequest, disks: Disks) -> str | None:
    """Why a rebuild must not begin; None where it may. It lets go of what is not there or cannot be read, so more of
    that must not be than may go unasked.

    Args:
        former: the ledger of the tables that are to be replaced.
        disks: those of these tables.
    """
    guard = Guard(listed, config, request, disks)
    indexed = former["uri"].filter(pc.equal(former["status"], "indexed"))
    is_gone = pc.and_(pc.not_equal(former["status"], "deleted"), pc.invert(pc.is_in(former["uri"], listed["uri"])))
    gone = former["uri"].filter(is_gone).to_pylist()
    for row in listed.filter(listed["hides_files"]).to_pylist():
        if n_below := sum(lies_within(uri, {row["uri"]}) for uri in gone):
            return f"{row['uri']}: {row['message']}, and the index has {n_below} files in it; mend that"
    lost = guard.select_lost(indexed)
    refused = guard.find_refusal(lost, len(indexed))
    shut = listed.filter(
        pc.and_(pc.equal(listed["reason"], "unreadable"), pc.is_in(listed["uri"], pa.array(lost, pa.string())))
    )
    if refused is None or not shut.num_rows:
        return refused
    uri, message = shut["uri"][0].as_py(), shut["message"][0].as_py()
    return f"{shut.num_rows:,} files of the index cannot be read now, the first one is {uri}: {message}; {refused}"


def refuse_repair(config: Config, request: RunRequest, is_mount: IsMount | None = None) -> str | None:
    """Why an index must not be repaired whose ledger is lost in part; None where it may be.

    What is not there now would go. The clips tell, too, which files there were.
    """
    listed, _ = list_files(config, Progress(), lambda progress: None)
    live = find_index(config.into).live
    uris: set[str] = set()

    def note_uris(table: Fragments, columns: list[str]) -> None:
        for batch in table.read(columns, ROWS_AT_ONCE):
            rows = batch.filter(pc.equal(batch["status"], "indexed")) if "status" in columns else batch
            uris.update(pc.unique(rows["uri"]).to_pylist())

    for name, columns in (("files", ["uri", "status"]), ("clips", ["uri"])):
        table = Fragments(live.open(name), name)
        read_all(table, partial(note_uris, table, columns))
    guard = Guard(listed, config, request, find_disks(live, is_mount))
    indexed = pa.chunked_array([sorted(uris)], pa.string())
    return guard.find_refusal(guard.select_lost(indexed), len(uris))


def check_models_of(config: Config) -> None:
    """Refuse to compare vectors with those of other models, or of other settings.

    Raises:
        IndexMismatch: naming each difference.
    """
    settings, _, _ = describe_run(config)
    check_settings(config.into, find_index(config.into).live.settings, settings)


def choose_generation(index: Handle, settings: dict[str, Any], *, rebuild: bool) -> Generation:
    """The tables that a run writes to: those that readers see, or the next generation, which may not exist yet.

    Raises:
        IndexMismatch: the index has other settings, and is not to be rebuilt.
    """
    live = index.live
    if not live.exists:
        return live
    stored = live.settings
    if not rebuild:
        check_settings(index.path, stored, settings)
        return live
    begun = index.find_next()
    if begun.exists and (found := differences(begun.settings, settings)):
        raise IndexMismatch(
            f"{index.path}: an unfinished rebuild has {'; '.join(found)}; go on with its settings, or delete"
            f" {begun.path} to give it up"
        )
    return begun


def estimate_run_seconds(plan: Plan, config: Config) -> float | None:
    """How long the run will encode, at the speed of the last one on this index; None where there was none."""
    live = find_index(config.into).live
    if not live.exists:
        return None
    rows = [row for row in journal.read_journal(live.path).to_pylist() if row["seconds"] and journal.encoded_s(row)]
    last = [row for row in rows if row["run_id"] == rows[-1]["run_id"]]
    audio_s, seconds = sum(map(journal.encoded_s, last)), sum(row["seconds"] for row in last)
    return plan.seconds_to_decode * seconds / audio_s if audio_s else None


def estimate_bytes(plan: Plan, config: Config, clip_dimension: int, frame_dimension: int) -> int:
    """Bytes that the run will add to the index, from the estimated duration."""
    clips = plan.seconds_to_decode / (config.window.length_s - config.window.overlap_s) * 2 * clip_dimension
    frames = plan.seconds_to_decode / FRAME_S * 2 * frame_dimension if config.store.frames == "all" else 0.0
    return int(clips + frames)
