"""``earshot locate``: events that match a text, with their start and end."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Protocol

import typer

from jobs.shared.hits import CUT, describe_where, print_found
from jobs.shared.opening import Question
from jobs.shared.options import Exact, Json, MergeGap, MinDuration, NoServer, Path_, Threshold, Top, Verbose, Where
from jobs.shared.output import print_error, print_json, print_line
from jobs.shared.pictures import print_lacking
from pipeline.words import count

if TYPE_CHECKING:
    from pipeline.search.client import Index
    from pipeline.search.found import Event


def locate(
    index: Path_,
    text: Annotated[str, typer.Argument(metavar="TEXT", help="Description of the sound.")],
    k: Top = 10,
    threshold: Threshold = 0.3,
    min_duration: MinDuration = 0.0,
    merge_gap: MergeGap = 0.2,
    where: Where = None,
    exact: Exact = False,
    picture: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Draw the best six events to a .png, .svg or .pdf: spectrograms and scores."),
    ] = None,
    json: Json = False,
    no_server: NoServer = False,
    verbose: Verbose = False,
) -> None:
    """Find the events that match TEXT best: the file, the start and the end.

    Example: earshot locate my-index "glass breaking" --min-duration 0.1
    """
    if picture is not None:
        from pipeline.pictures.figure import check_picture

        check_picture(picture)
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
    if picture is not None:
        draw_found(question.open_here(), text, events, (threshold, min_duration, merge_gap), picture)


def draw_found(
    index: "Index", text: str, events: "Sequence[Event]", rules: tuple[float, float, float], path: str
) -> None:
    """Draw the best events to a file, and say so on stderr: stdout has the events alone.

    Args:
        rules: as of ``events.Rules``.
    """
    from pipeline.pictures.figure import draw_events, save_figure
    from pipeline.pictures.show import MOST_EVENTS, show_event
    from pipeline.search.events import Rules
    from pipeline.search.presence import Presences

    if not events:
        print_error(f"earshot: no picture is drawn to {path}: there is no event to show")
        return
    presences = Presences()
    panels = [show_event(index, text, event, Rules(*rules), presences) for event in events[:MOST_EVENTS]]
    save_figure(draw_events(f"{text!r} in {index.path}", panels), path)
    print_lacking(panels)
    of_all = f" the best {len(panels)} of" if len(panels) < len(events) else ""
    print_error(f"earshot: {path} shows{of_all} {count(len(events), 'event')}")


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
