"""``earshot optimize``: keep an index fast and small."""

from typing import Annotated

import typer

from jobs.shared.options import Json, Path_
from jobs.shared.output import print_json, print_line, show_bytes


def optimize(
    index: Path_,
    keep_hours: Annotated[
        float | None,
        typer.Option(help="What was replaced goes when it is older; by default as configured, a day.", min=0),
    ] = None,
    json: Json = False,
) -> None:
    """Merge the small fragments of INDEX, bring its indexes up to date, and delete what is of no more use.

    Runs do it by themselves after every fifty commits. The newest checkpoints stay (`store.keep_versions`).

    Example: earshot optimize my-index
    """
    from pipeline.index.maintenance import optimize_index

    done = optimize_index(index, keep_hours)
    if json:
        print_json([done])
    else:
        print_line(
            f"{index}: {done.n_fragments_before} fragments are {done.n_fragments} now,"
            f" {show_bytes(done.n_bytes_deleted)} deleted"
        )
