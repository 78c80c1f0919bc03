"""Whether a run whose record says that it is running is still alive: one that was killed could not note its end."""

from collections.abc import Callable
from dataclasses import replace

from pipeline.index.lease import is_held
from pipeline.processes import find_start, has_ended, name_processes
from pipeline.run.record import Record, age_s

SILENT_S = 60.0
"""A run that has not written its record for so long may be dead, or busy with one long step."""


def judge(
    record: Record,
    path: str,
    *,
    here: str | None = None,
    start_of: Callable[[int], int | None] = find_start,
    held: Callable[[str], bool] = is_held,
) -> Record:
    """The record of the index at ``path``, with the state ``died`` where its run is dead.

    On the machine of the run, its process tells. Elsewhere, and in another container, a fresh record does; else the
    lease that every run keeps renewing in its index, which is watched for some seconds where it looks old as well:
    clocks of two machines may differ.

    Args:
        here: what ``name_processes`` says, ``start_of`` and ``held``: the processes of this machine, and the lease.
    """
    if record.state != "running":
        return record
    if record.processes == (here or name_processes()):
        is_dead = has_ended(record.pid, record.began, start_of)
    else:
        is_dead = abs(age_s(record)) > SILENT_S and not held(path)
    return replace(record, state="died", eta_s=None) if is_dead else record
