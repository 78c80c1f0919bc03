"""Before the work: what the index is to hold, what the sources hold, and what to do with each file.

Nothing is written here, and no worker is needed. ``earshot plan`` ends after this.
"""

import shlex
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from typing import Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline import schema, storage
from pipeline.audio.source import hash_file, probe_file
from pipeline.audio.stated_lengths import measure_length
from pipeline.config import Config, WindowConfig, make_config
from pipeline.corpus.discover import list_corpus
from pipeline.corpus.ignored_files import IgnoredFiles
from pipeline.corpus.metadata import CorpusMetadata, read_metadata
from pipeline.encoder.checkpoint import read_identity
from pipeline.errors import REASONS, CorpusError, EmptyCorpus, IndexMismatch, UsageError
from pipeline.grid import FRAME_S, Grid, count_encoded_frames, count_windows
from pipeline.index import journal
from pipeline.index.handle import Generation, Handle, find_index
from pipeline.index.metadata_columns import MetadataColumns
from pipeline.index.salvage import Fragments, read_all
from pipeline.index.settings import check_settings, differences, index_settings, known_values
from pipeline.index.tables import among, select_metadata
from pipeline.planning.decide import PlanSetup, make_plan
from pipeline.planning.guard import Disks, Guard, IsMount, read_mounts
from pipeline.planning.ledger import Ledger
from pipeline.planning.plan import Plan
from pipeline.planning.request import RunRequest
from pipeline.run.progress import Progress
from pipeline.run.rebuild import refuse_rebuild
from pipeline.words import count, show_bytes, show_duration

ROWS_AT_ONCE = 65_536

MAX_BATCHES = 1_000
"""Newest batches of a run whose files show how much of its audio is in two windows."""


class Layout(NamedTuple):
    """What an index holds: its settings, and the dimensions of its vectors."""

    settings: dict[str, Any]
    clip_dimension: int
    frame_dimension: int


class Inventory:
    """What a plan compares: the corpus and the index.

    Args:
        listed: LISTED rows of the files of the corpus. files: the table of the index.
        disks: those on which the files of the index lie.
    """

    def __init__(
        self, listed: pa.Table, source_metadata: CorpusMetadata, files: pa.Table, disks: Disks, layout: Layout
    ) -> None:
        self.listed, self.disks, self.layout = listed, disks, layout
        self.ledger = Ledger(files.select(schema.FILES.names))
        self.metadata = MetadataColumns(source_metadata, select_metadata(files))


def describe_run(config: Config) -> Layout:
    """What an index of this configuration holds.

    Raises:
        ModelError: a model cannot be found.
    """
    encode = config.encode
    clip = read_identity(encode.clip_model, encode.clip_revision)
    frame = clip
    if encode.frame_model is not None:
        frame = read_identity(encode.frame_model, encode.frame_revision)
    with_frames = config.store.frames == "all"
    settings = index_settings(config, asdict(clip), asdict(frame) if with_frames else None)
    return Layout(settings, clip.dimension, frame.dimension)


def keep_tail(config: Config, index: Handle, *, rebuild: bool = False) -> Config:
    """The configuration with the rule for last windows of the tables that a run continues, if it names none itself."""
    tables = _choose_tables(index, rebuild=rebuild)
    if config.window.tail is not None or not tables.exists:
        return config
    window = config.window.model_copy(update={"tail": tables.settings["window"]["tail"]})
    return config.model_copy(update={"window": window})


def read_config(index: Handle, *, rebuild: bool = False) -> Config:
    """The configuration of the newest run on an index, with its models as they were then.

    Args:
        rebuild: take that of an unfinished rebuild, if there is one.

    Raises:
        UsageError: no run has come far enough to leave one.
    """
    tables, path = index.live, index.path
    if rebuild and (begun := index.find_next()).config is not None:
        tables = begun
    settings, values = tables.settings, tables.config
    if values is None:
        raise UsageError(
            f"{path}: no run has left its configuration here; run `earshot index SOURCE --into {shlex.quote(path)}`"
        )
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
    index: Handle | None = None,
    *,
    rebuild: bool = False,
    is_mount: IsMount | None = None,
) -> Plan:
    """What ``index_corpus`` would do; nothing is written. If it would refuse, ``refused`` of the plan says why.

    Args:
        index: the index of the configuration, where it is open already.
        is_mount: whether a folder is a mount point; by default the system decides.

    Raises:
        EarshotError: see ``pipeline.errors``.
    """
    progress, index = Progress(run_id="0" * 32), index or find_index(config.into)
    config = keep_tail(config, index, rebuild=rebuild)
    listed, manifests = list_files(config, progress, index.live)
    layout = describe_run(config)
    tables = choose_generation(index, layout.settings, rebuild=rebuild)
    source_metadata = read_sources(tables, listed, manifests, config)
    inventory = Inventory(listed, source_metadata, tables.read_files(), find_disks(tables, is_mount), layout)
    plan = plan_files(inventory, config, request, progress, list_actions=True)
    plan.not_looked_at = progress.not_looked_at
    if tables.path != index.live.path:
        former, disks = index.live.open("files").to_table(columns=["uri", "status"]), find_disks(index.live, is_mount)
        plan.refused = plan.refused or refuse_rebuild(former, listed, config, request, disks)
    return plan


def find_disks(tables: Generation, is_mount: IsMount | None) -> Disks:
    """The disks on which the files of an index lie."""
    return Disks(frozenset(tables.mounts), is_mount or read_mounts())


def list_files(config: Config, progress: Progress, live: Generation) -> tuple[pa.Table, list[str]]:
    """The files of the corpus, and the manifests that name them. ``progress`` gets the counts of ignored files.

    Args:
        live: the tables of the index, which say whether files are missing.

    Raises:
        CorpusError: a source cannot be listed, or there is no audio at all, as if the disk of an index were missing.
    """

    def report_found(n_files: int) -> None:
        progress.enter(f"listing, {count(n_files, 'file')} found")

    manifests, ignored = list[str](), IgnoredFiles()
    try:
        listed = list_corpus(config.sources, config.corpus, config.into, manifests, report_found, ignored)
    except EmptyCorpus as error:
        if live.exists and (n := live.open("files").count_rows("status = 'indexed'")):
            raise CorpusError(
                f"{', '.join(config.sources)}: holds no audio now, and the index has {n:,} files: is a disk missing?"
                " Mount it and run again. Nothing was removed"
            ) from error
        raise
    progress.not_looked_at = ignored.count(listed)
    progress.n_files = listed.num_rows
    return listed, manifests


def read_sources(tables: Generation, listed: pa.Table, manifests: list[str], config: Config) -> CorpusMetadata:
    """The metadata of the files of the corpus, from the sources."""
    there = tables.open("files").schema if tables.exists else schema.FILES
    return read_metadata(listed, manifests, config.corpus, schema.metadata_columns(there))


def plan_files(
    inventory: Inventory, config: Config, request: RunRequest, progress: Progress, *, list_actions: bool = False
) -> Plan:
    """The plan of the run of ``progress``, with notes for a person. If it must not be done, ``refused`` says why.

    Raises:
        UsageError: there is no such reason as the request names.
    """

    def report_read(n_read: int, n_files: int) -> None:
        if n_read % 100 == 0:
            progress.enter(f"comparing files, {n_read} of {n_files}")

    progress.enter("planning")
    if request.reason is not None and request.reason not in REASONS:
        raise UsageError(f"--reason {request.reason}: no file fails so; the reasons are {', '.join(REASONS)}")
    batch_s, run_id = config.run.batch_s, progress.run_id
    setup = PlanSetup(
        batch_s,
        run_id,
        hash_file,
        probe_file,
        request,
        report_read,
        list_actions=list_actions,
        measure_s=measure_length,
    )
    plan = make_plan(inventory.listed, inventory.ledger, setup, inventory.metadata.outdated())
    plan.notes = (*inventory.metadata.notes, *note_unreadable(plan.unreadable), *note_redecoded(plan))
    guard = Guard(inventory.listed, config, request, inventory.disks)
    indexed = inventory.ledger.indexed()
    plan.refused = guard.find_refusal(plan.removed.values(), len(indexed))
    deleted = pa.array([row["uri"] for row in plan.deleted], pa.string())
    plan.mounts = guard.find_mounts(indexed.filter(pc.invert(pc.is_in(indexed, deleted))))
    plan.bytes_to_write = _estimate_bytes(plan, config, inventory.layout)
    plan.bytes_examined = _estimate_bytes(plan, config, inventory.layout, examined=True)
    most = plan.bytes_to_write + plan.bytes_examined
    plan.lack_of_space = describe_lack_of_space(config, most, "up to" if plan.n_examined else "about")
    return plan


def describe_lack_of_space(
    config: Config,
    n_bytes: int,
    about: Literal["about", "up to"] = "about",
    count_free: Callable[[str], int | None] = storage.count_free_bytes,
) -> str | None:
    """A line where the disk of the index has less room than the ``n_bytes`` to be written, about or at most."""
    path, with_frames = config.into, config.store.frames == "all"
    free = count_free(path)
    if free is None or free >= n_bytes:
        return None
    advice = "; `--frames none` writes far less, without `earshot locate`" if with_frames else ""
    return (
        f"{path}: {about} {show_bytes(n_bytes)} will be written, and its disk has {show_bytes(free)} free: make room,"
        f" or put the index elsewhere{advice}"
    )


def note_unreadable(unreadable: list[tuple[str, str]]) -> tuple[str, ...]:
    """A note on indexed files that cannot be read now, given as (uri, message); none if there are none."""
    if not unreadable:
        return ()
    uri, message = min(unreadable)
    which = "its rows stay:" if len(unreadable) == 1 else "their rows stay; the first one is"
    return (f"{count(len(unreadable), 'file')} of the index cannot be read now, {which} {uri}: {message}",)


def note_redecoded(plan: Plan) -> tuple[str, ...]:
    """Notes on files that decode differently now, or may; none if there are none."""
    later = "`earshot reindex --keep-decoder` puts it off"
    notes = []
    if n_files := plan.n_redecoded:
        decode = "decodes" if n_files == 1 else "decode"
        hours = show_duration(plan.seconds_redecoded)
        notes.append(
            f"{count(n_files, 'file')} {decode} differently now: about {hours} of audio to encode again; {later}"
        )
    if n_files := plan.n_examined:
        hours = show_duration(plan.seconds_examined)
        notes.append(
            f"{count(n_files, 'file')} may decode differently now: only what does is encoded again, up to {hours} of"
            f" audio; {later}"
        )
    return tuple(notes)


def refuse_repair(config: Config, request: RunRequest, live: Generation) -> str | None:
    """Why an index whose ledger is partly lost must not be repaired; None if it may.

    A repair removes files that are missing now. If the ledger has lost rows, the clips still name their files.
    """
    listed, _ = list_files(config, Progress(), live)
    uris: set[str] = set()

    def note_uris(table: Fragments, columns: list[str]) -> None:
        for piece in table.read(columns, ROWS_AT_ONCE):
            rows = piece.filter(pc.equal(piece["status"], "indexed")) if "status" in columns else piece
            uris.update(pc.unique(rows["uri"]).to_pylist())

    for name, columns in (("files", ["uri", "status"]), ("clips", ["uri"])):
        table = Fragments(live.open(name), name)
        read_all(table, partial(note_uris, table, columns))
    guard = Guard(listed, config, request, find_disks(live, None))
    indexed = pa.chunked_array([sorted(uris)], pa.string())
    return guard.find_refusal(guard.select_missing(indexed), len(uris))


def check_models_of(config: Config, index: Handle) -> None:
    """Refuse to compare the vectors of ``index`` with those of other models or settings.

    Raises:
        IndexMismatch: naming each difference.
    """
    check_settings(config.into, index.live.settings, describe_run(keep_tail(config, index)).settings)


def choose_generation(index: Handle, settings: dict[str, Any], *, rebuild: bool) -> Generation:
    """The tables to which a run writes: those that readers see, or the next generation, which may not exist yet.

    Raises:
        IndexMismatch: the index has other settings, and ``rebuild`` is not asked for.
    """
    tables = _choose_tables(index, rebuild=rebuild)
    if not tables.exists:
        return tables
    if tables.path == index.live.path:
        check_settings(index.path, tables.settings, settings)
    elif found := differences(tables.settings, settings):
        raise IndexMismatch(
            f"{index.path}: an unfinished rebuild has {'; '.join(found)}; go on with its settings, or delete"
            f" {tables.path} to give it up"
        )
    return tables


def _choose_tables(index: Handle, *, rebuild: bool) -> Generation:
    if not rebuild or not index.live.exists:
        return index.live
    _ = index.live.settings  # an index of an unknown format is refused, not rebuilt
    return index.find_next()


def estimate_times(plan: Plan, live: Generation, grid: Grid) -> tuple[float, float] | None:
    """Seconds that a run takes for what ``plan`` encodes, and for what it examines if all of that is encoded, at the
    pace of the last run that encoded into ``live``; None if there was none.

    Args:
        grid: that of the planned run. What counts is the audio that its windows hold: some of it is in two of them.
    """
    pace = read_pace(live)
    if pace is None:
        return None
    lengths = (
        pc.struct_field(_planned_audios(plan, examined=each), "estimated_s").to_numpy() for each in (False, True)
    )
    decoded_s, examined_s = (pace * FRAME_S * count_encoded_frames(length, grid) for length in lengths)
    return decoded_s, examined_s


def read_pace(live: Generation) -> float | None:
    """Seconds that a second of audio in windows took in the last run that encoded into ``live``; None without one.

    Where none of its files is left, it is taken that no audio was in two windows.
    """
    if not live.exists:
        return None
    rows = [row for row in journal.read_journal(live.path).to_pylist() if row["seconds"] and journal.encoded_s(row)]
    last = [row for row in rows if row["run_id"] == rows[-1]["run_id"]]
    if not last:
        return None
    pace = float(sum(row["seconds"] for row in last) / sum(map(journal.encoded_s, last)))
    of_run = f"status = 'indexed' AND {among('batch_id', {row['batch_id'] for row in last[-MAX_BATCHES:]})}"
    durations_s = live.open("files").to_table(columns=["duration_s"], filter=of_run)["duration_s"].to_numpy()
    in_windows_s = FRAME_S * count_encoded_frames(durations_s, WindowConfig(**live.settings["window"]).grid)
    return pace * float(durations_s.sum()) / in_windows_s if in_windows_s else pace


def _estimate_bytes(plan: Plan, config: Config, layout: Layout, *, examined: bool = False) -> int:
    """The size of the vectors: clips of each file, frames of each content.

    Args:
        examined: of what is only examined, as if all of it were encoded; otherwise of the rest.
    """
    audios = _planned_audios(plan, examined=examined)
    n_files = pc.list_value_length(pc.struct_field(audios, "uris")).to_numpy()
    durations_s = np.repeat(pc.struct_field(audios, "estimated_s").to_numpy(), n_files)
    clips = count_windows(durations_s, config.window.grid) * 2 * layout.clip_dimension
    audio_s = plan.seconds_examined if examined else plan.seconds_to_decode
    frames = audio_s / FRAME_S * 2 * layout.frame_dimension if config.store.frames == "all" else 0.0
    return int(clips + frames)


def _planned_audios(plan: Plan, *, examined: bool) -> Any:
    """The contents that are only examined, or the others."""
    audios = pc.list_flatten(plan.batches["audios"])
    is_examined = pc.is_valid(pc.struct_field(audios, "look"))
    return audios.filter(is_examined if examined else pc.invert(is_examined))
