"""An index in, everything that is wrong with its tables out. Nothing is changed here.

``verify`` compares the published rows with what the time grid, the ledger and the journal demand, and vectors with the
checksums that were noted when they were written. It streams clips and frames, and holds in memory the ledger, some
bytes for each of its files, and the clips of the file that it is reading.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from pipeline import schema
from pipeline.config import WindowConfig
from pipeline.corpus.corpus_file import identify_audio
from pipeline.corpus.time_ranges import TimeRange, split_uri
from pipeline.grid import count_frames, seconds_to_samples
from pipeline.index import journal, vector_index
from pipeline.index.findings import FILES_AT_ONCE, Finding, ids_of, is_duration
from pipeline.index.handle import Generation, Handle, open_index
from pipeline.index.lease import is_held
from pipeline.index.maintenance import unreadable_indexes
from pipeline.index.salvage import Fragments, read_all
from pipeline.index.scalar_indexes import indexed_columns
from pipeline.index.tables import complete, latest_version
from pipeline.index.verify_pools import PoolsCheck
from pipeline.index.verify_vectors import ClipsCheck, FramesCheck
from pipeline.schema import Row
from pipeline.words import count


@dataclass(frozen=True)
class VerifyReport:
    """What is wrong with an index, and how many indexed files have no checksum, so that rot in them cannot be found."""

    findings: list[Finding]
    n_without_checksum: int


def verify_index(path: str) -> list[Finding]:
    """Everything that is wrong with the index at ``path`` as it is published: see ``report_on_index``.

    Raises:
        IndexMissing: there is no index.
    """
    return report_on_index(open_index(path)).findings


def report_on_index(index: Handle) -> VerifyReport:
    """Check everything in an index as it was published.

    A run extends the scalar indexes when it ends: while one writes, the rows that they leave out are no finding.
    """
    live, is_written = index.live, is_held(index.path)
    with_frames = live.settings["frames"] == "all"
    grid = WindowConfig(**live.settings["window"]).grid
    tables = {name: Fragments(live.open(name), name) for name in live.versions}
    files = tables["files"]
    ledger = read_all(files, lambda: [_read_ledger(files)])[0]
    batches = journal.read_journal(live.path)
    known = batches["batch_id"].combine_chunks()
    findings = [*_check_files(ledger, with_frames=with_frames), *_check_journal(live, ledger, batches)]
    checks: dict[str, Callable[[Fragments], Iterator[Finding]]] = {
        "clips": lambda clips: ClipsCheck(ledger, clips, grid, known).run(),
        "frames": lambda frames: FramesCheck(ledger, frames, known).run(),
        "pools": lambda pools: PoolsCheck(ledger, pools, known).run(),
    }
    for name in [name for name in checks if name in tables]:
        findings += _run_check(tables[name], checks[name])
    findings += [
        Finding(table.name, f"{why}; the rows in it are lost", fragment=number)
        for table in tables.values()
        for number, why in table.lost.items()
    ]
    if not is_written:
        findings += _check_indexes(live)
    return VerifyReport(findings, _count_without_checksum(ledger, with_frames=with_frames))


def _run_check(table: Fragments, check: Callable[[Fragments], Iterator[Finding]]) -> list[Finding]:
    return read_all(table, lambda: list(check(table)))


def _count_without_checksum(ledger: pa.Table, *, with_frames: bool) -> int:
    """Indexed files that an older version of Earshot wrote."""
    is_without = pc.is_null(ledger["clips_checksum"])
    if with_frames:
        is_without = pc.or_(is_without, pc.is_null(ledger["frames_checksum"]))
    return int(pc.sum(pc.and_(is_without, pc.equal(ledger["status"], "indexed"))).as_py() or 0)


def _read_ledger(files: Fragments) -> pa.Table:
    """The ledger, as far as it can be read, with all of its columns."""
    rows = pa.Table.from_batches(files.read(files.schema.names, FILES_AT_ONCE), schema=files.schema)
    return complete(rows, schema.FILES).combine_chunks()


def _iterate(ledger: pa.Table, columns: list[str]) -> Iterator[Row]:
    """Rows of the ledger, made a few at a time."""
    for piece in ledger.select(columns).to_batches(max_chunksize=FILES_AT_ONCE):
        yield from piece.to_pylist()


# --- the ledger and the journal ---------------------------------------------------------------------------------------


def _check_files(ledger: pa.Table, *, with_frames: bool) -> Iterator[Finding]:
    for row in _doubled(ledger):
        yield Finding("files", "a second row for one uri", **ids_of(row))
    for row in _iterate(ledger, schema.FILES.names):
        own = ids_of(row)
        if row["file_id"] != schema.make_file_id(row["uri"], row["audio_id"]):
            yield Finding("files", "file_id is not that of uri and audio_id", **own)
        if row["status"] not in ("indexed", "failed", "deleted"):
            yield Finding("files", f"status {row['status']!r} is unknown", **own)
        elif row["status"] == "indexed":
            if row["audio_id"] not in _audio_ids(row):
                yield Finding("files", "audio_id is not that of the content hash", **own)
            if not is_duration(row["duration_s"]):
                yield Finding("files", f"duration_s is {row['duration_s']}", **own)
                continue
            n_frames = count_frames(seconds_to_samples(row["duration_s"]))
            if with_frames and row["n_frames"] != n_frames:
                yield Finding("files", f"n_frames is {row['n_frames']}, its duration demands {n_frames}", **own)
        elif (row["n_clips"], row["n_frames"]) != (0, 0):
            yield Finding("files", f"{row['status']}, and counts clips or frames", **own)
        elif row["status"] == "failed" and not (row["stage"] and row["reason"]):
            yield Finding("files", "failed without a stage or a reason", **own)


def _doubled(ledger: pa.Table) -> list[Row]:
    """The rows whose uri an earlier row has."""
    order = pc.sort_indices(ledger["uri"])
    uris = ledger["uri"].take(order)
    if len(uris) < 2:
        return []
    again = pc.equal(uris.slice(1), uris.slice(0, len(uris) - 1))
    return list(ledger.take(order.slice(1).filter(again.combine_chunks())).to_pylist())


def _audio_ids(row: Row) -> set[str]:
    """The ids that the audio of an indexed file may have: its name may look like that of a time range."""
    if not row["content_hash"]:
        return set()
    readings = [(row["uri"], TimeRange()), split_uri(row["uri"])]
    return {identify_audio(recording, each, row["content_hash"]) for recording, each in readings}


def _check_journal(live: Generation, ledger: pa.Table, batches: pa.Table) -> Iterator[Finding]:
    seqs = batches["seq"].to_pylist()
    if seqs != list(range(len(seqs))):
        yield Finding("batches", "seq does not count from 0 without a gap: only a copy of the index can repair that")
    strange = ledger.filter(pc.invert(pc.is_in(ledger["batch_id"], batches["batch_id"].combine_chunks())))
    for row in strange.to_pylist():
        yield Finding("files", "its batch is not in the journal", **ids_of(row))
    for name, version in live.versions.items():
        latest = latest_version(live.path, name)
        if latest < version:
            yield Finding(name, f"its newest version is {latest}, the journal names {version}")


# --- indexes ----------------------------------------------------------------------------------------------------------


def _check_indexes(live: Generation) -> Iterator[Finding]:
    for name in live.versions:
        table = live.open(name)
        if table.count_rows() == 0:
            continue
        existing = {index.name for index in table.describe_indices()}
        broken = unreadable_indexes(table)
        for index in sorted(existing | {f"{column}_idx" for column in indexed_columns(table, name)}):
            if index not in existing:
                yield Finding(name, f"no index on {index.removesuffix('_idx')}")
            elif index in broken:
                yield Finding(name, f"the index on {index.removesuffix('_idx')} cannot be read")
            elif index == vector_index.NAME:  # rows that it leaves out are scanned
                continue
            elif n_rows := table.stats.index_stats(index).get("num_unindexed_rows", 0):
                yield Finding(name, f"the index on {index.removesuffix('_idx')} leaves out {count(n_rows, 'row')}")
