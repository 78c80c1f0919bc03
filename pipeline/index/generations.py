"""Generations of an index: new tables beside those that readers see, put in their place in one step."""

import datetime as dt

from pipeline import schema, storage
from pipeline.index import journal
from pipeline.index.handle import Handle, generation_path
from pipeline.index.journal import DATA_TABLES, Failpoint, Published


def switch(index: Handle, run_id: str, failpoint: Failpoint = lambda step: None) -> None:
    """Make the next generation the live one, in one step.

    A live generation that is not the first gets a last row in its own journal before, so that either this run loses or
    any other run that still writes there.

    Args:
        index: as it was when this run began.

    Raises:
        CommitConflict: another run has written there since.
    """
    if index.live.path != index.first.path:
        failpoint("retire")
        _publish(index.live.path, index.live.published, run_id, "retire")
    failpoint("switch")
    _publish(index.path, index.first.published, run_id, "switch", {"generation": index.next_number})


def _publish(path: str, last: Published | None, run_id: str, kind: str, detail: dict[str, int] | None = None) -> None:
    """Add a row to the journal at ``path`` that publishes the same versions as the row before it, ``last``."""
    if last is None:
        raise ValueError(f"{path}: no tables here")
    row = journal.make_row(last.seq + 1, schema.digest(kind, run_id), run_id, kind, last.versions, detail=detail or {})
    journal.publish(journal.open_journal(path), [row])


def drop_former_generations(index: Handle, older_than: dt.timedelta) -> list[str]:
    """Delete the tables that a generation has replaced, once readers have had time to leave them.

    Returns:
        The folders that were deleted.
    """
    switched_at = index.first.switched_at
    if switched_at is None or dt.datetime.now(dt.UTC) - switched_at < older_than:
        return []
    former = [journal.table_uri(index.path, name) for name in DATA_TABLES]
    former += [generation_path(index.path, number) for number in range(2, index.first.live_number)]
    return [folder for folder in former if delete_folder(folder)]


def delete_folder(folder: str) -> bool:
    """Delete a folder of tables with everything in it; returns whether it was there.

    The journal is deleted first: what an interrupted deletion leaves behind is no index.
    """
    fs, root = storage.find_store(folder)
    if not fs.exists(root):
        return False
    versions = f"{root}/batches.lance/_versions"
    if fs.exists(versions):
        fs.rm(versions, recursive=True)
    fs.rm(root, recursive=True)
    return True
