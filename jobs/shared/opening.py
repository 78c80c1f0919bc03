"""An index opened for a question; a call with swapped arguments is recognised."""

import shlex
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipeline.search.client import Index


def open_index(index: str, question: str) -> "Index":
    """The index at ``index``, before any model is loaded.

    Raises:
        IndexMissing: there is none; if there is one at ``question``, the arguments were swapped.
    """
    import pipeline
    from pipeline.errors import EarshotError, IndexMissing

    try:
        return pipeline.open(index)
    except IndexMissing as error:
        try:
            pipeline.open(question)
        except (EarshotError, OSError, ValueError):
            raise error from None
        raise IndexMissing(
            f"{index}: no index here, but {question} is one: name the index first, {shlex.quote(question)}"
            f" {shlex.quote(index)}"
        ) from None
