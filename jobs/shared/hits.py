"""The results of a search, as a table or as JSON lines."""

import re
import shutil
from collections.abc import Sequence
from typing import Any

from jobs.shared.output import print_json, print_line, print_table, show_time

WIDE = 120
"""Terminals of so many characters show three columns of metadata beside the results; narrower ones show one."""


IMPROBABLE = 0.1
"""Results with a smaller probability are dim: they are the best there are, and most likely wrong."""

CUT = (
    "earshot: there may be better events: very long events, or files that --where leaves out, took most of what the"
    " search looks at; --exact scans all frames"
)
"""Printed where a search for events had too few candidates to be as sure as usual of the best."""

TIMES = {"start_s": "from", "end_s": "to", "peak_s": "peak"}
"""Columns of a table, by the fields of hits and events."""


def print_hits(title: str, hits: list[Any], *, json: bool, where: str | None) -> None:
    """Print the hits of ``query`` or ``similar``."""
    if json:
        print_json(hits)
    elif hits:
        print_found(title, hits, where)
    else:
        print_line("nothing found" + describe_where(where))


def print_found(title: str, found: Sequence[Any], where: str | None, more_times: Sequence[str] = ()) -> None:
    """Print hits or events as a table, with the metadata for which there is room."""
    names = choose_columns(found, where)
    times = ["start_s", "end_s", *more_times]
    numbers = ["rank", *(TIMES[name] for name in times), "score", "probability"]
    is_improbable = [item.probability is not None and item.probability < IMPROBABLE for item in found]
    rows = [
        (
            item.rank,
            item.uri,
            *(show_time(getattr(item, name)) for name in times),
            f"{item.score:.3f}",
            "-" if item.probability is None else f"{item.probability:.3f}",
            *(item.metadata[name] for name in names),
        )
        for item in found
    ]
    columns = [numbers[0], "file", *numbers[1:], *names]
    print_table(title, columns, rows, right=numbers, paths="file", is_dim=is_improbable)
    if all(is_improbable):
        best = max(item.probability for item in found)
        print_line(f"the best probability is {best:.3f}: it is likely that nothing here sounds like that")


def describe_where(where: str | None) -> str:
    return "" if where is None else f" where {where}"


def choose_columns(found: Sequence[Any], where: str | None) -> list[str]:
    """The metadata columns to show beside hits or events: all if they fit, else those that ``where`` names."""
    names = list(found[0].metadata) if found else []
    n_columns = 3 if shutil.get_terminal_size().columns >= WIDE else 1
    if len(names) <= n_columns:
        return names
    return [name for name in names if _is_named(name.casefold(), (where or "").casefold())][:n_columns]


def _is_named(name: str, where: str) -> bool:
    """Whether ``where`` has all words of a column's name, or the name itself if that has no words, like ``[/]``."""
    words = set(re.findall(r"\w+", name))
    return words <= set(re.findall(r"\w+", where)) if words else name in where
