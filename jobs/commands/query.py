"""``earshot query``: clips that match a text."""

from typing import Annotated

import typer

from jobs.shared.hits import print_hits
from jobs.shared.opening import Question
from jobs.shared.options import AllWindows, Exact, Json, NoServer, Path_, Top, Verbose, Where


def query(
    index: Path_,
    text: Annotated[str, typer.Argument(metavar="TEXT", help="Description of the sound.")],
    k: Top = 10,
    where: Where = None,
    all_windows: AllWindows = False,
    exact: Exact = False,
    json: Json = False,
    no_server: NoServer = False,
    verbose: Verbose = False,
) -> None:
    """Find the clips that match TEXT best.

    Example: earshot query my-index "dog barking" -k 5
    """
    question = Question(index, text, use_server=not no_server, verbose=verbose)
    hits = question.search(text, k, where=where, all_windows=all_windows, exact=exact)
    print_hits(f"{text!r} in {index}", hits, json=json, where=where)
