"""``earshot status``: the progress of a run, from the record that it keeps in its index."""

import os
import shlex
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from jobs.shared.display import show_failures
from jobs.shared.options import Address, Json
from jobs.shared.output import print_json, print_line, print_table, show_left, show_when
from pipeline.words import show_duration

if TYPE_CHECKING:
    from jobs.shared.ray_jobs import Job
    from pipeline.run.record import Record


def status(
    what: Annotated[
        str | None, typer.Argument(metavar="JOB|INDEX", help="A job or an index; by default the newest job.")
    ] = None,
    address: Address = None,
    json: Json = False,
) -> None:
    """Show the progress, the speed and the bottleneck of a run.

    Example: earshot status my-index
    """
    from pipeline.errors import ClusterError, UsageError

    if what is not None and ("/" in what or os.path.isdir(what)):
        record = _read_record(what)
        if record is None:
            raise UsageError(
                f"{what}: no record of a run here; `earshot index SOURCE --into {shlex.quote(what)}` writes one"
            )
        if json:
            print_json([{"job": record.job, "state": record.state, "index": what, "record": asdict(record)}])
        else:
            _print_record(f"{what}: {_tell_state(record)}", record)
        return
    try:
        _show_job(what, address, json=json)
    except ClusterError as error:
        if what is None:
            raise
        raise ClusterError(f"{what}: no such folder; taken for the name of a job: {error}") from None


def _show_job(name: str | None, address: str | None, *, json: bool) -> None:
    from jobs.shared.ray_jobs import connect
    from pipeline.errors import JobMissing

    cluster = connect(address)
    if name is None and not (newest := cluster.list_jobs()):
        raise JobMissing(f"{cluster.address}: no Earshot job here; `earshot submit CONFIG` starts one")
    job = newest[0] if name is None else cluster.find(name)
    record, why = _find_record(job)
    if json:
        print_json([{**asdict(job), "job": job.name, "record": record and asdict(record)}])
    elif record is not None:
        _print_record(f"{job.name}: {job.state}", record, job)
    else:
        lines = cluster.logs(job.name).strip().splitlines()
        where = f", into {job.index}" if job.index else ""
        print_line(f"{job.name}: {job.state}{where}; {why}; its last line: {(lines or ['-'])[-1]}")


def _read_record(path: str) -> "Record | None":
    from pipeline.run.record import judge, read_record

    record = read_record(path)
    return record and judge(record, path)


def _find_record(job: "Job") -> "tuple[Record | None, str]":
    """The record of a job, or why there is none."""
    from pipeline.errors import EarshotError

    try:
        record = _read_record(job.index) if job.index else None
    except EarshotError as error:
        return None, f"its record is unreadable: {error}"
    if record is None:
        return None, "its record is not visible from here"
    if record.run_id == job.run:  # another cluster may have a job of this name
        return record, ""
    if not job.ended:
        return None, "it has not written a record yet"
    is_later = record.started_at > (job.started_at or "")
    return None, "a later run has replaced its record" if is_later else "it ended before it wrote a record"


def _tell_state(record: "Record") -> str:
    from pipeline.run.record import SILENT_S, age_s

    if record.state == "died":
        return f"died at {show_when(record.updated_at)} or soon after; run again to go on"
    silent_s = age_s(record)
    if record.state != "running" or silent_s < SILENT_S:
        return record.state
    return f"running, but silent for {show_left(silent_s)}"


def _print_record(title: str, record: "Record", job: "Job | None" = None) -> None:
    from pipeline.run.record import SILENT_S, age_s

    is_alive = record.state == "running" and age_s(record) < SILENT_S
    # The run could not record its end.
    was_killed = record.state == "died" or (job is not None and job.ended and record.state == "running")
    about = "" if record.state == "done" else "about "
    before = f" ({record.n_failed_before} of them failed before)" if record.n_failed_before else ""
    values = {
        "was doing" if was_killed else "doing": record.doing if record.state in ("running", "died") else None,
        "error": job.message if job is not None and was_killed else record.error,
        "index": record.index,
        "files": f"{record.n_done} of {record.n_files}: {record.n_indexed} indexed, {record.n_unchanged}"
        f" unchanged{before}, {record.n_failed} failed",
        "failures": show_failures(record) or None,
        "audio": f"{show_duration(record.hours_done * 3600)} of {about}{show_duration(record.hours_all * 3600)}",
        "speed": f"{record.hours_per_hour:.1f} hours per hour" if record.hours_per_hour else None,
        "left": None if record.eta_s is None or was_killed or not is_alive else show_left(record.eta_s),
        "started": show_when(record.started_at),
        "updated": f"{show_when(record.updated_at)}, by process {record.pid} on {record.host}",
    }
    print_table(title, ["", ""], [(name, value) for name, value in values.items() if value is not None])
    columns = ["stage", "audio per working second", "at work", ""]
    stages = [
        (
            name,
            "" if stage.speed is None else f"{stage.speed:.0f}x",
            "" if stage.busy is None else f"{stage.busy:.0%}",
            "bottleneck" if name == record.bottleneck else "",
        )
        for name, stage in record.stages.items()
    ]
    if any(stage.busy_s for stage in record.stages.values()):
        print_table("stages", columns, stages, right=columns[1:3])
    for note in record.notes:
        print_line(f"note: {note}")
