"""Repair of an index: rows and fragments that ``verify`` found damaged are taken out, or an earlier state is restored.

The next run indexes the files whose rows were taken out again.
"""

import shlex
from collections.abc import Iterable
from functools import partial
from typing import Any

import lance

from pipeline import schema
from pipeline.corpus.metadata import CorpusMetadata
from pipeline.errors import UsageError
from pipeline.index import journal
from pipeline.index.backfill import mend_pools
from pipeline.index.findings import Finding
from pipeline.index.handle import describe_generation
from pipeline.index.journal import DATA_TABLES, Failpoint, Published, table_uri
from pipeline.index.maintenance import drop_unreadable_indexes, refresh_indexes, write_alone
from pipeline.index.metadata_columns import MetadataColumns
from pipeline.index.tables import no_clips, read_files, select_metadata
from pipeline.index.writer import Batch, Writer
from pipeline.planning.file_rows import damaged_row, files_table
from pipeline.schema import Row


def mark_damaged(path: str, findings: Iterable[Finding]) -> int:
    """Take out the rows that ``findings`` name, and note their files as damaged, so that the next run indexes them.

    Pools are made of the stored frames again, where these are sound: that encodes nothing.

    Returns:
        The number of files to encode.
    """
    findings = list(findings)
    of_pools = {found.audio_id for found in findings if found.table == "pools" and found.audio_id is not None}
    findings = [finding for finding in findings if finding.table != "pools"]
    file_ids = {finding.file_id for finding in findings if finding.file_id is not None}
    audio_ids = {finding.audio_id for finding in findings if finding.audio_id is not None}
    with write_alone(path) as (_, writer):
        drop_unreadable_indexes(writer)
        ledger = read_files(writer.path, writer.published)
        damaged = _add_related(ledger.select(schema.FILES.names).to_pylist(), file_ids, audio_ids)
        metadata = MetadataColumns(CorpusMetadata(), select_metadata(ledger))
        batch = Batch(
            schema.make_batch_id(writer.run_id, 0),
            metadata.join(files_table(list(map(damaged_row, damaged.values())))),
            no_clips(writer.path, writer.published),
            drop_files=frozenset(file_ids),
            drop_frames=frozenset(audio_ids),
        )
        if file_ids or audio_ids:
            writer.commit([batch])
        mend_pools(writer, of_pools - audio_ids)
        refresh_indexes(writer)
    return len(damaged)


def _add_related(files: list[Row], file_ids: set[str], audio_ids: set[str]) -> dict[str, Row]:
    """The ledger rows, by uri, that these ids name. Adds to the ids those of all rows that share an audio or a uri with
    one of them: files share contents, and a damaged ledger may have several rows for a uri."""
    found: dict[str, Row] = {}
    n_before, n_now = -1, 0
    while n_now > n_before:
        for row in files:
            if row["file_id"] in file_ids or row["audio_id"] in audio_ids or row["uri"] in found:
                found[row["uri"]] = row
                file_ids.add(row["file_id"])
                audio_ids |= {row["audio_id"]} - {None}
        n_before, n_now = n_now, len(found) + len(file_ids) + len(audio_ids)
    return found


def give_up_fragments(path: str, findings: Iterable[Finding], failpoint: Failpoint = lambda step: None) -> int:
    """Take out the fragments that ``findings`` say cannot be read, so that the rest of their tables can.

    Their rows are missing afterwards: another ``verify`` says of which files, and ``mark_damaged`` notes these.

    Returns:
        The number of fragments.
    """
    fragments: dict[str, list[int]] = {}
    for finding in findings:
        if finding.fragment is not None:
            fragments.setdefault(finding.table, []).append(finding.fragment)
    if fragments:
        with write_alone(path, failpoint) as (_, writer), writer.changes() as changes:
            for name in changes.versions:
                if numbers := fragments.get(name):
                    changes.delete_fragments(name, numbers)
            writer.publish("maintain", changes, {"given_up": fragments})
    return sum(map(len, fragments.values()))


def restore_index(path: str, seq: int) -> int:
    """Take an index back to what journal row ``seq`` published; returns the number of the row that publishes it again.

    Raises:
        EarshotError: see ``pipeline.errors``.
    """
    with write_alone(path) as (_, writer):
        return restore(writer, seq).seq


def restore(writer: Writer, seq: int) -> Published:
    """Publish once more what the journal row ``seq`` published, with the mount points that were known then.

    Raises:
        UsageError: there is no such row, or clean-up has deleted a version that it names.
    """
    path = writer.path
    rows = writer.journal.to_table(filter=f"seq = {seq}").to_pylist()
    if not rows:
        raise UsageError(f"{path}: no batch {seq}; `earshot history {shlex.quote(str(path))}` lists them")
    versions = journal.versions_of(rows[0])
    with writer.changes() as changes:
        for name, version in versions.items():
            if version not in {each["version"] for each in lance.dataset(table_uri(path, name)).versions()}:
                raise UsageError(
                    f"{path}: batch {seq} can no longer be restored: clean-up has deleted version {version} of `{name}`"
                )
        for name in DATA_TABLES:
            if name not in versions:
                changes.leave_out(name)
            elif name not in changes.versions:
                changes.take_in(name)
        for name, version in versions.items():
            if version != changes.versions[name]:
                changes.make("restore", name, partial(_restored, version=version))
        changes.complete_files()
        detail = {"to": seq, "mounts": describe_generation(path, writer.journal).mounts_until(seq)}
        return writer.publish("restore", changes, detail)


def _restored(table: Any, version: int) -> Any:
    old = table.checkout_version(version)
    old.restore()
    return old
