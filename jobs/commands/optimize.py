"""``earshot optimize``: keep an index fast and small."""

from typing import Annotated

import typer

from jobs.shared.options import Json, Path_
from jobs.shared.output import print_json, print_line, show_bytes, show_count


def optimize(
    index: Path_,
    keep_hours: Annotated[
        float | None,
        typer.Option(
            help="Delete superseded versions older than this many hours; by default the configured time, a day.", min=0
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Merge small fragments of INDEX, update the indexes of its tables, and delete superseded versions.

    Runs do so by themselves after every fifty commits. The newest 20 published versions are kept.

    Example: earshot optimize my-index
    """
    from pipeline.index.maintenance import optimize_index

    done = optimize_index(index, keep_hours)
    if json:
        print_json([done])
    else:
        print_line(
            f"{index}: {done.n_fragments_before} fragments became {done.n_fragments},"
            f" {show_bytes(done.n_bytes_deleted)} deleted"
        )
        for each in done.vector_indexes:
            rows = f": {show_count(each.n_rows, 'row')}" if each.n_rows else ""
            print_line(f"the vector index of {each.table} was {each.done}{rows} in {each.seconds:.1f} s")
        for problem in done.problems:
            print_line(f"note: {problem}")
