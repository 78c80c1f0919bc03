"""The arguments and options that several commands have in common."""

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from pipeline.planning.request import RunRequest

Path_ = Annotated[str, typer.Argument(metavar="INDEX", help="Folder of the index.")]
Top = Annotated[int, typer.Option("-k", help="Number of results.", min=1)]
Where = Annotated[
    str | None,
    typer.Option(help="Only rows where this SQL holds, over uri, duration_s, codec, ... and metadata columns."),
]
AllWindows = Annotated[bool, typer.Option("--all-windows", help="List overlapping windows of a file one by one.")]
Exact = Annotated[bool, typer.Option("--exact", help="Scan all vectors instead of the vector index: slower.")]
Threshold = Annotated[float, typer.Option(help="Probability at which an event begins.")]
MinDuration = Annotated[float, typer.Option(help="Leave out events shorter than this many seconds.")]
MergeGap = Annotated[float, typer.Option(help="Join events of a file that are at most this many seconds apart.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON lines instead of a table.")]
NoServer = Annotated[
    bool, typer.Option("--no-server", help="Answer in this process, even if `earshot serve` runs on INDEX.")
]
Verbose = Annotated[bool, typer.Option("--verbose", help="Say on stderr whether a running server answered.")]
Rebuild = Annotated[
    bool,
    typer.Option(
        "--rebuild",
        help="Encode everything again, also with other settings; queries use the old tables until all is encoded.",
    ),
]
AllowDeletions = Annotated[
    bool,
    typer.Option(
        "--allow-deletions",
        help="Remove rows of files that left the sources, even of a whole source or much of the index; no audio.",
    ),
]
Check = Annotated[str | None, typer.Option(help="content: hash every file; by default, compare size and mtime.")]
RetryFailed = Annotated[bool, typer.Option("--retry-failed", help="Try unchanged files again that failed before.")]
Reason = Annotated[str | None, typer.Option(help="With --retry-failed: only files that failed for this reason.")]
KeepDecoder = Annotated[
    bool,
    typer.Option("--keep-decoder", help="Leave indexed files as they are, also if they decode differently now."),
]
Full = Annotated[bool, typer.Option("--full", help="Decode and encode every file again.")]
Address = Annotated[
    str | None,
    typer.Option(
        help="URL of the cluster's dashboard; by default RAY_API_SERVER_ADDRESS, RAY_ADDRESS, or http://127.0.0.1:8265."
    ),
]
Job = Annotated[str, typer.Argument(metavar="JOB", help="Name of the job, as `earshot jobs` lists it.")]


def is_config(path: str) -> bool:
    """Whether an argument names a configuration file, by its extension."""
    return path.lower().endswith((".yaml", ".yml"))


def read_request(check: str | None, *, retry_failed: bool, reason: str | None, **switches: bool) -> "RunRequest":
    """What the options of ``plan`` and ``reindex`` ask for.

    Args:
        switches: ``full``, ``keep_decoder``, ``allow_deletions``.

    Raises:
        UsageError: a value that is not known, or an option that lacks another.
    """
    from pipeline.errors import UsageError
    from pipeline.planning.request import RunRequest

    if check not in (None, "content"):
        raise UsageError(f"--check {check}: expected content")
    if reason is not None and not retry_failed:
        raise UsageError("--reason: give --retry-failed too")
    return RunRequest(
        check_content=check is not None,
        retry_failed=retry_failed,
        reason=reason,
        full=switches["full"],
        keep_decoder=switches["keep_decoder"],
        allow_deletions=switches["allow_deletions"],
    )
