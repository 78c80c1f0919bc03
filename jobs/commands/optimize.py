"""``earshot optimize``: keep an index fast and small."""

from dataclasses import asdict
from typing import Annotated

import typer

from jobs.shared.options import Json, Path_
from jobs.shared.output import print_json, print_line
from jobs.shared.recall import UNITS, show_measured, show_spread
from pipeline.words import count, show_bytes


def optimize(
    index: Path_,
    keep_hours: Annotated[
        float | None,
        typer.Option(
            help="Delete superseded versions older than this many hours; by default the configured time, a day.", min=0
        ),
    ] = None,
    recall: Annotated[
        float | None,
        typer.Option(
            help="Measure again what the vector indexes find, and tune search to find this share of the exact answers,"
            " such as 0.995; by default, measured where it is due, for `run.recall`.",
            min=0.5,
            max=0.9999,
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Merge small fragments of INDEX, update the indexes of its tables, and delete superseded versions.

    Runs do so by themselves after every fifty commits. The newest 20 published versions are kept. An index that an
    older version of Earshot made also gets its table `pools`.

    Where it is due, measure how much the vector indexes find.

    Example: earshot optimize my-index
    """
    from pipeline.index.maintenance import optimize_index
    from pipeline.search.keep_recall import keep_index_recall

    done = optimize_index(index, keep_hours)
    notes: list[str] = []
    tuning = keep_index_recall(index, recall, note=notes.append)
    recalls = {name: asdict(measured) for name, measured in tuning.measured.items()} if tuning else {}
    if json:
        print_json([{**asdict(done), "problems": [*done.problems, *notes], "recall": recalls}])
    else:
        print_line(
            f"{index}: {done.n_fragments_before} fragments became {done.n_fragments},"
            f" {show_bytes(done.n_bytes_deleted)} deleted"
        )
        for each in done.vector_indexes:
            rows = f": {count(each.n_rows, 'row')}" if each.n_rows else ""
            print_line(f"the vector index of {each.table} was {each.done}{rows} in {each.seconds:.1f} s")
        for command, measured in recalls.items():
            print_line(f"recall of {command}: {show_measured(measured, UNITS[command])}")
        if spread := show_spread(recalls):
            print_line(f"recall of other texts: {spread}")
        if tuning is None and recall is not None and not notes:
            print_line("there is no vector index, so every answer is exact")
        for problem in (*done.problems, *notes):
            print_line(f"note: {problem}")
