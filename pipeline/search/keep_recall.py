"""Measures the recall of an index where that is due, and publishes it with the settings of search that reach it."""

from collections.abc import Callable

from pipeline.config import RunConfig
from pipeline.errors import one_line
from pipeline.index.engine_errors import is_panic
from pipeline.index.handle import Generation, read_generation
from pipeline.index.maintenance import write_alone
from pipeline.index.settings import known_values
from pipeline.index.tuning import Measured, Tuning, find_reasons, is_approximate
from pipeline.index.writer import Writer
from pipeline.search import audit_index
from pipeline.search.query_vectors import QueryModels
from pipeline.search.searches import IndexSearches
from pipeline.search.tune import TOLERANCE, is_enough
from pipeline.words import count

Audit = Callable[[Generation, float, Callable[[], None]], Tuning]
"""Measures the recall of tables and finds settings that reach another one, as ``audit_index``. The last argument is
called every few seconds, and may raise."""


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

    It is due at first, after growth by half or a turnover of half of the rows, for an index that was built anew, and
    where more is ``wanted`` than before. What was asked for once is not lowered, not even by a rebuild; except by
    ``again``, which measures in any case.

    Args:
        index: the folder of the index; by default that of the tables.
        tick: called when measuring begins, and every few seconds. What it raises is raised; a failure of the audit
            itself is a note.
        note: gets a line where the recall cannot be measured, stays too low, or rests on too few answers.

    Returns:
        What holds now; None where nothing was ever measured, so that the default settings hold.
    """
    tables = read_generation(writer.path, index)
    if not is_approximate(tables):
        return None
    before = tables.tuning
    if not again:
        asked = read_generation(tables.index).former_recall if before is None else before.wanted
        wanted = max(wanted, asked or 0.0)
        if before is not None and not list(find_reasons(tables, wanted)):
            return before
    ticking = _Tick(tick)
    ticking()
    try:
        tuning = (audit or _audit)(tables, wanted, ticking)
    except BaseException as error:
        # A text model that is missing, a file of a vector index that is lost, too little memory, a panic of the engine.
        # All is published by then, so only an interrupt or a lost lease ends the run.
        if error is ticking.error or not (isinstance(error, Exception) or is_panic(error)):
            raise
        why = one_line(error, 300)
        note(f"what the vector indexes find is not measured, and the settings of search stay as they are: {why}")
        return before
    with writer.changes() as changes:
        writer.publish("tune", changes, tuning.to_detail())
    n_planned = min(audit_index.N_QUESTIONS, tuning.n_clips)
    for command, measured in tuning.measured.items():
        if line := explain_shortfall(command, measured, wanted, n_planned):
            note(line)
    return read_generation(writer.path).tuning


class _Tick:
    """Calls ``tick``, and keeps the error that it raised."""

    def __init__(self, tick: Callable[[], None]) -> None:
        self._tick = tick
        self.error: BaseException | None = None

    def __call__(self) -> None:
        try:
            self._tick()
        except BaseException as error:
            self.error = error
            raise


def explain_shortfall(command: str, measured: Measured, wanted: float, n_planned: int) -> str | None:
    """One line where a recall is less than ``wanted``, or was not shown to reach it; None otherwise.

    Args:
        n_planned: the questions to ask, if there is time.
    """
    if measured.recall is not None and measured.recall >= wanted and is_enough(measured.low, wanted):
        return None
    could_tell = measured.best_low is None or is_enough(measured.best_low, wanted)
    n_answers = count(measured.n_answers, "exact answer")
    if measured.recall is None or (not could_tell and measured.high >= wanted):
        if measured.n_questions < n_planned:
            why = f"there was time for {count(measured.n_questions, 'question')} only, with {n_answers} in the sample"
        else:
            why = f"the sample holds {n_answers} in {count(measured.n_units, 'recording')}, which is too few"
        return f"whether `{command}` finds {wanted:.1%} of what an exact search finds cannot be told: {why}"
    return (
        f"`{command}` finds {measured.recall:.1%} ({measured.low:.1%} to {measured.high:.1%}, by {n_answers}) of what"
        f" an exact search finds; wanted are {wanted:.1%}, and a lower end of {wanted - TOLERANCE:.1%}; `--exact` scans"
        " everything"
    )


def _audit(tables: Generation, wanted: float, tick: Callable[[], None]) -> Tuning:
    return audit_index.audit_index(
        audit_index.Audited(tables, IndexSearches(tables), QueryModels(tables.index), tick), wanted
    )


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
