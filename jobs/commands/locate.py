"""``earshot locate``: events that match a text, with their start and end."""

from typing import Annotated, Protocol

import typer

from jobs.shared.hits import describe_where, print_found
from jobs.shared.opening import Question
from jobs.shared.options import Exact, Json, NoServer, Path_, Top, Verbose, Where
from jobs.shared.output import print_error, print_json, print_line

CUT = (
    "earshot: there may be better events: very long events, or files that --where leaves out, took all that the search"
    " looks at; --exact scans all frames"
)


def locate(
    index: Path_,
    text: Annotated[str, typer.Argument(metavar="TEXT", help="Description of the sound.")],
    k: Top = 10,
    threshold: Annotated[float, typer.Option(help="Probability at which an event begins.")] = 0.3,
    min_duration: Annotated[float, typer.Option(help="Leave out events shorter than this many seconds.")] = 0.0,
    merge_gap: Annotated[
        float, typer.Option(help="Join events of a file that are at most this many seconds apart.")
    ] = 0.2,
    where: Where = None,
    exact: Exact = False,
    json: Json = False,
    no_server: NoServer = False,
    verbose: Verbose = False,
) -> None:
    """Find the events that match TEXT best: the file, the start and the end.

    Example: earshot locate my-index "glass breaking" --min-duration 0.1
    """
    question = Question(index, text, use_server=not no_server, verbose=verbose)
    events = question.locate(
        text, k, threshold=threshold, min_duration_s=min_duration, merge_gap_s=merge_gap, where=where, exact=exact
    )
    if json:
        print_json(events)
    elif events:
        print_found(f"{text!r} in {index}", events, where, ["peak_s"])
    elif events.is_cut:
        print_line("nothing found")
    else:
        print_line(f"nothing found: {explain_no_event(question, threshold, min_duration, where)}")
    if events.is_cut:
        print_error(CUT)


class CountsFiles(Protocol):
    """An index, here or in a server."""

    def count_indexed(self, where: str) -> int: ...


def explain_no_event(question: CountsFiles, threshold: float, min_duration_s: float, where: str | None) -> str:
    """Why there is no event: no indexed file matches ``where``, or no event reaches the threshold."""
    if where is not None and not question.count_indexed(where):
        return f"no indexed file{describe_where(where)}"
    long, shorter = (f" of {min_duration_s} s or more", " or --min-duration") if min_duration_s else ("", "")
    return (
        f"no event{long} reaches a probability of {threshold}{describe_where(where)}; try a lower --threshold{shorter},"
        " or `earshot query`"
    )
