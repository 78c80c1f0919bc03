"""Measures the recall of an index where that is due, and publishes it with the settings of search that reach it."""

from collections.abc import Callable

from pipeline.config import RunConfig
from pipeline.errors import UsageError
from pipeline.index.handle import Generation, read_generation
from pipeline.index.maintenance import write_alone
from pipeline.index.settings import known_values
from pipeline.index.tuning import Tuning, find_reasons, is_approximate
from pipeline.index.writer import Writer
from pipeline.search.audit_index import Audited, audit_index
from pipeline.search.query_vectors import QueryModels
from pipeline.search.searches import IndexSearches

Audit = Callable[[Generation, float], Tuning]
"""Measures the recall of tables and finds settings that reach another one, as ``audit_index``."""


def keep_recall(
    writer: Writer,
    wanted: float,
    *,
    index: str | None = None,
    again: bool = False,
    audit: Audit | None = None,
    tick: Callable[[], None] = lambda: None,
    note: Callable[[str], None] = lambda line: None,
) -> Tuning | None:
    """Measure the recall of the tables that ``writer`` has published, if they have vector indexes and it is due.

    It is due at first, after growth by half, and where more is ``wanted`` than before. What was asked for once is not
    lowered, except by ``again``, which measures in any case.

    Args:
        index: the folder of the index, for messages; by default that of the tables.
        tick: called when measuring begins, and again and again. It may raise.
        note: gets a line where the recall cannot be measured, or stays too low.

    Returns:
        What holds now; None where nothing was ever measured, so that the default settings hold.
    """
    tables = read_generation(writer.path, index)
    if not is_approximate(tables):
        return None
    before = tables.tuning
    if before is not None and not again:
        wanted = max(wanted, before.wanted)
        if not list(find_reasons(tables, wanted)):
            return before
    tick()
    try:
        tuning = audit(tables, wanted) if audit else _audit(tables, wanted, tick)
    except (UsageError, OSError, ValueError, RuntimeError) as error:
        # A text model that is missing, or another one now; a file of a vector index that is lost; too little memory.
        why = " ".join(str(error).split())[:300]
        note(f"what the vector indexes find is not measured, and the settings of search stay as they are: {why}")
        return before
    with writer.changes() as changes:
        writer.publish("tune", changes, tuning.to_detail())
    for command, measured in tuning.measured.items():
        if measured.recall is not None and measured.recall < wanted:
            note(
                f"`{command}` finds {measured.recall:.1%} ({measured.low:.1%} to {measured.high:.1%}) of what"
                f" an exact search finds, not {wanted:.1%}; `--exact` finds everything"
            )
    return read_generation(writer.path).tuning


def _audit(tables: Generation, wanted: float, tick: Callable[[], None]) -> Tuning:
    searches = IndexSearches(tables)
    index = Audited(tables, searches, QueryModels(tables.index), searches.n_partitions, tick)
    return audit_index(index, wanted)


def keep_index_recall(
    path: str, wanted: float | None = None, *, note: Callable[[str], None] = lambda line: None
) -> Tuning | None:
    """``keep_recall`` outside of a run, for the index at ``path``.

    Args:
        wanted: measure again and tune for this recall; by default, if it is due, for the one of the newest run.

    Raises:
        EarshotError: see ``pipeline.errors``.
    """
    with write_alone(path) as (index, writer):
        stored = (index.live.config or {}).get("run", {})
        configured = RunConfig(**known_values(stored, RunConfig)).recall
        return keep_recall(writer, wanted or configured, index=path, again=wanted is not None, note=note)
