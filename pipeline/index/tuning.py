"""How much the vector indexes of an index find, and the settings of search that follow: a journal row of kind ``tune``.

The row publishes the versions of the row before it. A rebuilt index starts without one; the journal row of the switch
to it has the recall that was wanted before.
"""

import datetime as dt
import hashlib
import itertools
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter, ValidationError

from pipeline.index import engine_errors, journal
from pipeline.index.search_settings import SearchSettings, select_settings

if TYPE_CHECKING:
    from pipeline.index.handle import Generation

COMMANDS = {"pools": ("locate",), "clips": ("query", "similar")}
"""The tables that may have a vector index, and the commands that search them."""

GROWTH = 0.5
"""A recall holds until the table has grown by this share, or until as many rows were written in the place of others:
new sounds may be unlike those that it was measured on."""


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
    """The audios that hold the answers."""
    n_questions: int
    k: int
    """Answers that each question asked the index for."""
    n_dimensions: float
    """The effective dimensions of the questions."""
    threshold: float | None = None
    """The probability at which an event began."""
    best_low: float | None = None
    """What ``low`` would be had all answers been found; None in a row of an older version."""


@dataclass(frozen=True)
class Trained:
    """Tells one build of a vector index from another. Extending and merging an index change neither field."""

    n_partitions: int
    centres: str
    """A digest of the centres of the partitions, which come from a random sample."""


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
    measured_on: dict[str, Trained] = field(default_factory=dict)
    """By table, the vector index; without a table in a row of an older version."""
    measured_at: dt.datetime | None = None
    """The time of the journal row."""

    def is_about(self, name: str, trained: Trained) -> bool | None:
        """Whether this was measured on the vector index ``trained`` of a table; None where an older version of Earshot
        did not note it."""
        before = self.measured_on.get(name)
        return None if before is None else before == trained

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
    if "similar_candidates" not in settings:
        # Until there was this setting, the recall of `similar` was relative to the best 200 by dot product.
        detail = {**detail, "similar": None}
    try:
        return _TUNING.validate_python({**detail, "settings": select_settings(settings), "measured_at": measured_at})
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
    for name, commands in COMMANDS.items():
        trained = read_trained(tables, name)
        if trained is None:
            continue
        if commands[0] not in tuning.measured:
            yield f"`{commands[0]}` was exact then"
        elif unknown := [command for command in commands if command not in tuning.measured]:
            yield f"an older version measured `{unknown[0]}` in another way"
        elif not tuning.is_about(name, trained):
            yield f"the vector index of `{name}` is another one than was measured"
    written = _count_written(tables)
    for name, before in (("clips", tuning.n_clips), ("frames", tuning.n_frames)):
        now = tables.open(name).count_rows()
        if now > (1 + GROWTH) * before:
            yield f"`{name}` has grown from {before:,} to {now:,} rows"
        elif written[name] > GROWTH * before:
            yield f"{written[name]:,} rows of `{name}` were written since, and it had {before:,}"


def _count_written(tables: "Generation") -> dict[str, int]:
    """By table, the rows that batches have written since the newest measurement; new metadata aside."""
    rows = journal.read_journal(tables.path).select(["kind", "n_clips", "n_frames"]).to_pylist()
    since = itertools.takewhile(lambda row: row["kind"] != "tune", reversed(rows))
    batches = [row for row in since if row["kind"] == "index"]
    return {name: sum(row[f"n_{name}"] for row in batches) for name in ("clips", "frames")}


def is_approximate(tables: "Generation") -> bool:
    """Whether a table has a vector index, so that questions may miss something."""
    return any(has_vector_index(tables, name) for name in COMMANDS)


def has_vector_index(tables: "Generation", name: str) -> bool:
    """Whether the published version of a table has a vector index."""
    return _find_vector_index(tables, name) is not None


def read_trained(tables: "Generation", name: str) -> Trained | None:
    """The vector index of the published version of a table; None where it has none, or one with a lost or damaged file.

    Raises:
        OSError: the store does not answer.
    """
    index = _find_vector_index(tables, name)
    if index is None:
        return None
    try:
        centres = tables.open(name).get_ivf_model(index).centroids
    except BaseException as error:  # a panic of the engine is no Exception
        if not engine_errors.is_damage(error):
            raise
        return None
    return Trained(len(centres), hashlib.sha256(centres.flatten().to_numpy().tobytes()).hexdigest()[:32])


def _find_vector_index(tables: "Generation", name: str) -> str | None:
    if name not in tables.versions:
        return None
    indexes = tables.open(name).describe_indices()
    return next((index.name for index in indexes if "vector" in index.field_names), None)


def find_settings(tables: "Generation", name: str) -> SearchSettings | None:
    """How the vector index of a table is searched; None where it has none, so that only an exact scan is left.

    Partitions are left out only where the recall was measured on this very index.
    """
    if not has_vector_index(tables, name):
        return None
    tuning = tables.tuning
    if tuning is None:
        return SearchSettings()
    if name != "clips" or tuning.settings.clip_probe_share is None:
        return tuning.settings
    trained = read_trained(tables, name)
    is_measured = trained is not None and tuning.is_about(name, trained)
    return tuning.settings.for_partitions(trained.n_partitions if trained and is_measured else None)
