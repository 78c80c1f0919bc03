"""How much the vector indexes of an index find, and the settings of search that follow: a journal row of kind ``tune``.

The row publishes the versions of the row before it. A rebuilt index starts without one.
"""

import datetime as dt
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter, ValidationError

from pipeline.index import journal
from pipeline.index.search_settings import SearchSettings

if TYPE_CHECKING:
    from pipeline.index.handle import Generation

GROWTH = 0.5
"""A recall that was measured with fewer rows holds until the table has grown by this share."""


@dataclass(frozen=True)
class Measured:
    """The recall of one kind of question: the share of the exact answers in a sample that the index returned.

    ``low`` to ``high`` is its interval of 95 %. ``recall`` is None where the sample holds no answer.
    """

    recall: float | None
    low: float
    high: float
    n_answers: int
    n_units: int
    """The audios, or parts of ten minutes of longer ones, that hold the answers; files for clips."""
    n_questions: int
    k: int
    """Answers that each question asked the index for."""
    n_dimensions: float
    """The effective dimensions of the questions."""
    threshold: float | None = None
    """The probability at which an event began."""


@dataclass(frozen=True)
class Tuning:
    """The newest measurement: settings that reach the recall ``wanted``, or come closest."""

    wanted: float
    settings: SearchSettings
    locate: Measured | None
    query: Measured | None
    similar: Measured | None
    """None where the table has no vector index: its answers are exact."""
    n_clips: int
    n_frames: int
    """Rows at that time."""
    seconds: float
    measured_at: dt.datetime | None = None
    """The time of the journal row."""

    @property
    def measured(self) -> dict[str, Measured]:
        """What was measured, by the name of the command that it is about."""
        found = {name: getattr(self, name) for name in ("locate", "query", "similar")}
        return {name: measured for name, measured in found.items() if measured is not None}

    def to_detail(self) -> dict[str, Any]:
        """The ``detail`` of the journal row."""
        return {name: value for name, value in asdict(self).items() if name != "measured_at"}


_TUNING = TypeAdapter(Tuning)


def parse_tuning(detail: dict[str, Any], measured_at: dt.datetime, where: str) -> Tuning:
    """The tuning in a journal row; settings of other versions of Earshot are left out.

    Raises:
        IndexMismatch: no run has written this.
    """
    settings = journal.get_value(detail, "settings", dict, where)
    known = {each.name: settings[each.name] for each in fields(SearchSettings) if each.name in settings}
    try:
        return _TUNING.validate_python({**detail, "settings": known, "measured_at": measured_at})
    except ValidationError as error:
        raise journal.refuse(f"{where}: {' '.join(str(error).split())[:300]}") from None


def find_reasons(tables: "Generation", wanted: float) -> Iterator[str]:
    """Why the recall of an index should be measured, or measured again."""
    tuning = tables.tuning
    if tuning is None:
        yield "never measured"
        return
    if tuning.wanted < wanted:
        yield f"tuned for a recall of {tuning.wanted:g}, not {wanted:g}"
    for name, command in (("pools", "locate"), ("clips", "query")):
        if command not in tuning.measured and has_vector_index(tables, name):
            yield f"`{command}` was exact then"
    for name, before in (("clips", tuning.n_clips), ("frames", tuning.n_frames)):
        now = tables.open(name).count_rows()
        if now > (1 + GROWTH) * before:
            yield f"`{name}` has grown from {before:,} to {now:,} rows"


def is_approximate(tables: "Generation") -> bool:
    """Whether some questions go through a vector index, so that they may miss something."""
    return any(has_vector_index(tables, name) for name in ("pools", "clips"))


def has_vector_index(tables: "Generation", name: str) -> bool:
    """Whether the published version of a table has a vector index."""
    if name not in tables.versions:
        return False
    return any("vector" in index.field_names for index in tables.open(name).describe_indices())


def find_settings(tables: "Generation", name: str) -> SearchSettings | None:
    """How the vector index of a table is searched; None where it has none, so that only an exact scan is left."""
    if not has_vector_index(tables, name):
        return None
    return tables.tuning.settings if tables.tuning else SearchSettings()
