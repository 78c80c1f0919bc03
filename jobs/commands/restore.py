"""``earshot restore``: take an index back to an earlier batch."""

from typing import Annotated

import typer

from jobs.shared.options import Path_
from jobs.shared.output import print_line


def restore(
    index: Path_, batch: Annotated[int, typer.Option(help="Number of the batch in `earshot history`.", min=0)]
) -> None:
    """Take INDEX back to its state after a batch; the next reindex brings it up to date again.

    Example: earshot restore my-index --batch 12
    """
    from pipeline.index.repair import restore_index

    restored = restore_index(index, batch)
    print_line(f"{index}: restored to batch {batch}, which is published as batch {restored}")
