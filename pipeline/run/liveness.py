"""Whether a run whose record says "running" is still alive: a run that was killed could not write its end."""

from collections.abc import Callable
from dataclasses import replace

from pipeline.index.lease import is_held
from pipeline.processes import find_start, has_ended, name_processes
from pipeline.run.record import Record, age_s

SILENT_S = 60.0
"""A run whose record is older than this may be dead, or busy with one long step."""


def judge(
    record: Record,
    path: str,
    *,
    here: str | None = None,
    start_of: Callable[[int], int | None] = find_start,
    held: Callable[[str], bool] = is_held,
) -> Record:
    """The record of the index at ``path``, with the state ``died`` if its run is dead.

    On the machine of the run, its process decides. Elsewhere, and in another container, a fresh record proves that the
    run lives; otherwise the lease decides, which a thread of the run renews even during one long step. A lease that
    looks old is watched for some seconds, for the clocks of two machines may differ.

    Args:
        here, start_of, held: replace ``name_processes``, ``find_start`` and ``is_held`` in tests.
    """
    if record.state != "running":
        return record
    if record.processes == (here or name_processes()):
        is_dead = has_ended(record.pid, record.began, start_of)
    else:
        is_dead = abs(age_s(record)) > SILENT_S and not held(path)
    return replace(record, state="died", eta_s=None) if is_dead else record
