"""``earshot query``: clips that fit a text."""

from typing import Annotated, Any

import typer

from jobs.output import print_json, print_table, show_path, show_time

Path_ = Annotated[str, typer.Argument(metavar="INDEX", help="Folder of the index.")]
Top = Annotated[int, typer.Option("-k", help="How many results.", min=1)]
Where = Annotated[
    str | None, typer.Option(help="Only clips for which this holds: SQL over uri, start_s, duration_s, codec, ...")
]
AllWindows = Annotated[bool, typer.Option("--all-windows", help="List overlapping windows of a file one by one.")]
Json = Annotated[bool, typer.Option("--json", help="JSON lines instead of a table.")]


def query(
    index: Path_,
    text: Annotated[str, typer.Argument(help="What to look for, in words.")],
    k: Top = 10,
    where: Where = None,
    all_windows: AllWindows = False,
    json: Json = False,
) -> None:
    """Find the clips that fit TEXT best.

    Example: earshot query my-index "dog barking" -k 5
    """
    import pipeline

    hits = pipeline.open(index).search(text, k, where=where, all_windows=all_windows)
    print_hits(f"{text!r} in {index}", hits, json=json)


def print_hits(title: str, hits: list[Any], *, json: bool) -> None:
    """Hits of ``query`` or ``similar``."""
    if json:
        print_json(hits)
        return
    columns = ["rank", "file", "from", "to", "score", "probability"]
    rows = [
        (
            hit.rank,
            show_path(hit.uri),
            show_time(hit.start_s),
            show_time(hit.end_s),
            f"{hit.score:.3f}",
            "-" if hit.probability is None else f"{hit.probability:.3f}",
        )
        for hit in hits
    ]
    print_table(title, columns, rows, right=("rank", "from", "to", "score", "probability"))
    if not hits:
        print("nothing found")
