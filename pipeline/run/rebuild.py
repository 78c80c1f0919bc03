"""A rebuild makes a new generation of the tables: when it may begin, and when it may replace the former ones."""

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.config import Config
from pipeline.errors import EarshotError
from pipeline.planning.decide import lies_within
from pipeline.planning.guard import Disks, Guard, is_much
from pipeline.planning.request import RunRequest
from pipeline.run.progress import Progress
from pipeline.words import count


def refuse_rebuild(former: pa.Table, listed: pa.Table, config: Config, request: RunRequest, disks: Disks) -> str | None:
    """Why a rebuild must not begin; None if it may.

    A rebuild drops files that are missing or unreadable, so there must not be more of these than a run may delete.

    Args:
        former: the ledger of the tables that the rebuild replaces. disks: those of its files.
    """
    guard = Guard(listed, config, request, disks)
    indexed = former["uri"].filter(pc.equal(former["status"], "indexed"))
    is_missing = pc.and_(pc.not_equal(former["status"], "deleted"), pc.invert(pc.is_in(former["uri"], listed["uri"])))
    missing = former["uri"].filter(is_missing).to_pylist()
    for row in listed.filter(listed["hides_files"]).to_pylist():
        if n_below := sum(lies_within(uri, {row["uri"]}) for uri in missing):
            n_files = count(n_below, "file")
            return f"{row['uri']}: {row['message']}, and the index has {n_files} in it; make it readable first"
    lost = guard.select_missing(indexed)
    refused = guard.find_refusal(lost, len(indexed))
    unreadable = listed.filter(
        pc.and_(pc.equal(listed["reason"], "unreadable"), pc.is_in(listed["uri"], pa.array(lost, pa.string())))
    )
    if refused is None or not unreadable.num_rows:
        return refused
    uri, message = unreadable["uri"][0].as_py(), unreadable["message"][0].as_py()
    return (
        f"{unreadable.num_rows:,} files of the index cannot be read now, the first one is {uri}: {message}; {refused}"
    )


def check_rebuilt(progress: Progress, former: pa.Table, rebuilt: pa.Table, config: Config, request: RunRequest) -> bool:
    """Whether new tables may replace the former ones; ``progress`` notes why not.

    Args:
        former, rebuilt: the ledgers of the former and of the new tables.

    Raises:
        EarshotError: nothing could be indexed.
    """
    if not request.allow_deletions:
        progress.n_unread = _count_unread(former, rebuilt, config, request)
    was_indexed = pc.any(pc.equal(former["status"], "indexed")).as_py()
    if was_indexed and progress.n_failed + progress.n_failed_before == progress.n_files:
        raise EarshotError(f"{config.into}: no file could be indexed anew, so the former tables stay in their place")
    is_enough = progress.failed_fraction <= config.run.max_failed_fraction and not progress.n_unread
    progress.held_back = not is_enough or bool(progress.unpublished)
    return not progress.held_back


def _count_unread(former: pa.Table, rebuilt: pa.Table, config: Config, request: RunRequest) -> int:
    """How many formerly indexed files the rebuild could not read; 0 if a run may delete so many.

    Their disk may have been unmounted, or their folder made unreadable, since the rebuild began.
    """
    uris = former["uri"].filter(pc.equal(former["status"], "indexed")).to_pylist()
    was_unread = pc.and_(pc.equal(rebuilt["status"], "failed"), pc.is_in(rebuilt["stage"], pa.array(["list", "read"])))
    unread = set(rebuilt["uri"].filter(was_unread).to_pylist())
    n_unread = sum(request.renamed(uri) in unread for uri in uris)
    return n_unread if is_much(n_unread, len(uris), config.run.max_deleted_fraction) else 0
