"""``earshot query``: clips that match a text."""

from typing import Annotated

import typer

from jobs.shared.hits import print_hits
from jobs.shared.opening import open_index
from jobs.shared.options import AllWindows, Exact, Json, Path_, Top, Where


def query(
    index: Path_,
    text: Annotated[str, typer.Argument(metavar="TEXT", help="Description of the sound.")],
    k: Top = 10,
    where: Where = None,
    all_windows: AllWindows = False,
    exact: Exact = False,
    json: Json = False,
) -> None:
    """Find the clips that match TEXT best.

    Example: earshot query my-index "dog barking" -k 5
    """
    hits = open_index(index, text).search(text, k, where=where, all_windows=all_windows, exact=exact)
    print_hits(f"{text!r} in {index}", hits, json=json, where=where)
