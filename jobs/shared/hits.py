"""The results of a search, as a table or as JSON lines."""

import re
import shutil
from collections.abc import Sequence
from typing import Any

from jobs.shared.output import print_json, print_line, print_table, show_path, show_time

WIDE = 120
"""Terminals of so many characters show three columns of metadata beside the results; narrower ones show one."""


def print_hits(title: str, hits: list[Any], *, json: bool, where: str | None) -> None:
    """Print the hits of ``query`` or ``similar``."""
    if json:
        print_json(hits)
        return
    if not hits:
        print_line("nothing found" + describe_where(where))
        return
    names = choose_columns(hits, where)
    columns = ["rank", "file", "from", "to", "score", "probability"]
    rows = [
        (
            hit.rank,
            show_path(hit.uri),
            show_time(hit.start_s),
            show_time(hit.end_s),
            f"{hit.score:.3f}",
            "-" if hit.probability is None else f"{hit.probability:.3f}",
            *(hit.metadata[name] for name in names),
        )
        for hit in hits
    ]
    print_table(title, [*columns, *names], rows, right=("rank", "from", "to", "score", "probability"))


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
