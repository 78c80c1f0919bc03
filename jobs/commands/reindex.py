"""``earshot reindex``: bring an index up to date with the corpus it was made from."""

from typing import TYPE_CHECKING

from jobs.commands.index import finish, run
from jobs.shared.options import AllowDeletions, Check, Full, Json, Path_, Reason, Rebuild, RetryFailed

if TYPE_CHECKING:
    from pipeline.planning.request import RunRequest


def reindex(
    index: Path_,
    check: Check = None,
    retry_failed: RetryFailed = False,
    reason: Reason = None,
    full: Full = False,
    allow_deletions: AllowDeletions = False,
    rebuild: Rebuild = False,
    json: Json = False,
) -> None:
    """Bring INDEX up to date with its sources: what is new or changed is encoded, what is gone goes.

    Example: earshot reindex my-index --retry-failed
    """
    from pipeline.index.handle import open_index
    from pipeline.run.prepare import read_config

    request = read_request(check, retry_failed=retry_failed, reason=reason, full=full, allow_deletions=allow_deletions)
    config = read_config(open_index(index), rebuild=rebuild)
    finish(config, run(config, json=json, request=request, rebuild=rebuild))


def read_request(
    check: str | None, *, retry_failed: bool, reason: str | None, full: bool, allow_deletions: bool
) -> "RunRequest":
    from pipeline.errors import UsageError
    from pipeline.planning.request import RunRequest

    if check not in (None, "content"):
        raise UsageError(f"--check {check}: expected content")
    if reason is not None and not retry_failed:
        raise UsageError("--reason: goes with --retry-failed")
    return RunRequest(
        check_content=check is not None,
        retry_failed=retry_failed,
        reason=reason,
        full=full,
        allow_deletions=allow_deletions,
    )
