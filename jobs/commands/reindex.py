"""``earshot reindex``: bring an index up to date with the corpus it was made from."""

import typer

from jobs.shared.indexing import exit_on_shortfall, run_index
from jobs.shared.options import (
    AllowDeletions,
    Check,
    Full,
    Json,
    KeepDecoder,
    Path_,
    Reason,
    Rebuild,
    RetryFailed,
    read_request,
)


def reindex(
    context: typer.Context,
    index: Path_,
    check: Check = None,
    retry_failed: RetryFailed = False,
    reason: Reason = None,
    keep_decoder: KeepDecoder = False,
    full: Full = False,
    allow_deletions: AllowDeletions = False,
    rebuild: Rebuild = False,
    json: Json = False,
) -> None:
    """Bring INDEX up to date with its sources: encode new and changed files, remove files that left the sources.

    Example: earshot reindex my-index --retry-failed
    """
    from pipeline.index.handle import open_index
    from pipeline.run.prepare import read_config

    request = read_request(
        check,
        retry_failed=retry_failed,
        reason=reason,
        keep_decoder=keep_decoder,
        full=full,
        allow_deletions=allow_deletions,
    )
    config = read_config(open_index(index), rebuild=rebuild)
    progress = run_index(config, json=json, request=request, rebuild=rebuild, workers=context.obj)
    exit_on_shortfall(config, progress)
