"""The arguments and options that several commands have in common."""

from typing import Annotated

import typer

Path_ = Annotated[str, typer.Argument(metavar="INDEX", help="Folder of the index.")]
Top = Annotated[int, typer.Option("-k", help="How many results.", min=1)]
Where = Annotated[
    str | None,
    typer.Option(help="Only where this holds: SQL over uri, duration_s, codec, ... and metadata columns."),
]
AllWindows = Annotated[bool, typer.Option("--all-windows", help="List overlapping windows of a file one by one.")]
Json = Annotated[bool, typer.Option("--json", help="JSON lines instead of a table.")]
Rebuild = Annotated[
    bool,
    typer.Option("--rebuild", help="Encode everything anew, maybe with other settings; queries see the old meanwhile."),
]
AllowDeletions = Annotated[
    bool, typer.Option("--allow-deletions", help="Take out what is gone, even all of a source or much of the index.")
]
Check = Annotated[str | None, typer.Option(help="content: hash every file; usually size and time decide.")]
RetryFailed = Annotated[bool, typer.Option("--retry-failed", help="Try files again that failed and have not changed.")]
Reason = Annotated[str | None, typer.Option(help="With --retry-failed: only those that failed for this reason.")]
Full = Annotated[bool, typer.Option("--full", help="Decode and encode every file anew.")]
Address = Annotated[
    str | None,
    typer.Option(help="Of the cluster's dashboard; else RAY_API_SERVER_ADDRESS, RAY_ADDRESS, http://127.0.0.1:8265."),
]
Job = Annotated[str, typer.Argument(metavar="JOB", help="Name of the job, as `earshot jobs` lists it.")]
