"""An index in, the same index mended, taken back or tidied: what is done to one without looking at its corpus."""

import datetime as dt
import uuid
from collections.abc import Iterable
from typing import Any

from pipeline import schema
from pipeline.config import StoreConfig
from pipeline.corpus.metadata import CorpusMetadata
from pipeline.errors import UsageError
from pipeline.index import journal
from pipeline.index.failures import plain_errors
from pipeline.index.generations import drop_former_generations
from pipeline.index.handle import Generation, find_index, open_index
from pipeline.index.lease import Lease
from pipeline.index.metadata_columns import Metadata
from pipeline.index.rows import files_table
from pipeline.index.settings import known_values
from pipeline.index.tables import no_clips, read_files, select_metadata
from pipeline.index.verify import Finding
from pipeline.index.writer import Batch, Optimized, Writer
from pipeline.planning.outcomes import damaged_row

MAX_HOURS = 1_000_000
"""Of what upkeep may be told to leave alone: more than a century."""


def mark_damaged(path: str, findings: Iterable[Finding]) -> int:
    """Take out the rows that ``findings`` name, and note their files as damaged, so that the next run makes them anew.

    Returns:
        The number of files.
    """
    findings = list(findings)
    audio_ids = {finding.audio_id for finding in findings if finding.audio_id is not None}
    file_ids = {finding.file_id for finding in findings if finding.file_id is not None}
    run_id = uuid.uuid4().hex
    with plain_errors(path), Lease(path, run_id):
        live = find_index(path).live
        writer = _open_writer(live, run_id)
        writer.drop_unreadable_indexes()
        ledger = read_files(live.path, writer.published)
        files = ledger.select(schema.FILES.names).to_pylist()
        damaged: dict[str, dict[str, Any]] = {}
        while True:  # files share contents, and a uri may have several rows: all that hangs together goes
            found = [
                row
                for row in files
                if row["file_id"] in file_ids or row["audio_id"] in audio_ids or row["uri"] in damaged
            ]
            before = len(damaged), len(file_ids), len(audio_ids)
            damaged |= {row["uri"]: row for row in found}
            file_ids |= {row["file_id"] for row in found}
            audio_ids |= {row["audio_id"] for row in found if row["audio_id"] is not None}
            if before == (len(damaged), len(file_ids), len(audio_ids)):
                break
        rows = list(map(damaged_row, damaged.values()))
        metadata = Metadata(CorpusMetadata(), select_metadata(ledger))
        batch = Batch(
            schema.make_batch_id(run_id, 0),
            metadata.join(files_table(rows)),
            no_clips(live.path, writer.published),
            drop_files=frozenset(file_ids),
            drop_frames=frozenset(audio_ids),
        )
        if file_ids or audio_ids:
            writer.commit([batch])
        writer.refresh_indexes()
    return len(damaged)


def give_up_fragments(path: str, findings: Iterable[Finding], failpoint: journal.Failpoint = lambda step: None) -> int:
    """Take out the fragments that ``findings`` say cannot be read, so that the rest of their tables can.

    Their rows are missing afterwards: another audit says of which files, and ``mark_damaged`` has these made anew.

    Returns:
        The number of fragments.
    """
    fragments: dict[str, list[int]] = {}
    for finding in findings:
        if finding.fragment is not None:
            fragments.setdefault(finding.table, []).append(finding.fragment)
    if fragments:
        run_id = uuid.uuid4().hex
        with plain_errors(path), Lease(path, run_id):
            _open_writer(find_index(path).live, run_id, failpoint).give_up(fragments)
    return sum(map(len, fragments.values()))


def restore_index(path: str, seq: int) -> int:
    """Take an index back to what journal row ``seq`` published; returns the number of the row that does.

    Raises:
        EarshotError: see ``pipeline.errors``.
    """
    open_index(path)
    run_id = uuid.uuid4().hex
    with plain_errors(path), Lease(path, run_id):
        return _open_writer(find_index(path).live, run_id).restore(seq).seq


def _open_writer(live: Generation, run_id: str, failpoint: journal.Failpoint = lambda step: None) -> Writer:
    return Writer(live.path, run_id, keep_versions=_stored_limits(live).keep_versions, failpoint=failpoint)


def _stored_limits(live: Generation) -> StoreConfig:
    """What the configuration of the newest run says of what is kept."""
    values = live.config
    return StoreConfig(**known_values(values["store"], StoreConfig)) if values else StoreConfig()


def optimize_index(
    path: str, keep_hours: float | None = None, failpoint: journal.Failpoint = lambda step: None
) -> Optimized:
    """Merge small fragments, extend the indexes, and delete what is old and of no more use.

    Args:
        keep_hours: what is younger stays; by default as configured.

    Raises:
        EarshotError: see ``pipeline.errors``.
    """
    open_index(path)
    run_id = uuid.uuid4().hex
    with plain_errors(path), Lease(path, run_id):
        index = find_index(path)
        hours = _stored_limits(index.live).keep_hours if keep_hours is None else keep_hours
        if not 0 <= hours < MAX_HOURS:
            raise UsageError(f"keep_hours {hours}: expected 0 to {MAX_HOURS:,}")
        older_than = dt.timedelta(hours=hours)
        done = _open_writer(index.live, run_id, failpoint).optimize(older_than=older_than)
        drop_former_generations(index, older_than)
        return done
