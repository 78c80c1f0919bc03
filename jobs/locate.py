"""``earshot locate``: moments that fit a text, from when to when."""

from typing import Annotated

import typer

from jobs.output import print_json, print_line, print_table, show_path, show_time
from jobs.query import Json, Path_, Top, Where, choose_columns, tell_where


def locate(
    index: Path_,
    text: Annotated[str, typer.Argument(help="What to look for, in words.")],
    k: Top = 10,
    threshold: Annotated[float, typer.Option(help="Probability at which an event begins.")] = 0.3,
    min_duration: Annotated[float, typer.Option(help="Leave out shorter events, in seconds.")] = 0.0,
    merge_gap: Annotated[float, typer.Option(help="Join events of a file this close, in seconds.")] = 0.2,
    where: Where = None,
    json: Json = False,
) -> None:
    """Find the moments that fit TEXT best: which file, from when to when.

    Example: earshot locate my-index "glass breaking" --min-duration 0.1
    """
    import pipeline

    events = pipeline.open(index).locate(
        text, k, threshold=threshold, min_duration_s=min_duration, merge_gap_s=merge_gap, where=where
    )
    if json:
        print_json(events)
        return
    if not events:
        print_line(
            f"nothing found that reaches a probability of {threshold}{tell_where(where)}; try a lower --threshold, or"
            " `earshot query`"
        )
        return
    names = choose_columns(events, where)
    columns = ["rank", "file", "from", "to", "peak", "score", "probability"]
    rows = [
        (
            event.rank,
            show_path(event.uri),
            show_time(event.start_s),
            show_time(event.end_s),
            show_time(event.peak_s),
            f"{event.score:.3f}",
            f"{event.probability:.3f}",
            *(event.metadata[name] for name in names),
        )
        for event in events
    ]
    print_table(f"{text!r} in {index}", [*columns, *names], rows, right=[name for name in columns if name != "file"])
