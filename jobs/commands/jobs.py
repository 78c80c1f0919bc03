"""``earshot jobs``: the runs submitted to a cluster."""

import datetime as dt
from typing import TYPE_CHECKING

from jobs.shared.options import Address, Json
from jobs.shared.output import print_json, print_table, show_left, show_when

if TYPE_CHECKING:
    from jobs.shared.ray_jobs import Job


def jobs(address: Address = None, json: Json = False) -> None:
    """List the Earshot jobs on a Ray cluster, newest first.

    Example: earshot jobs --address http://head:8265
    """
    from jobs.shared.ray_jobs import connect

    cluster = connect(address)
    found = cluster.list_jobs()
    if json:
        print_json(found)
        return
    columns = ["job", "state", "started", "took", "index"]
    rows = [(job.name, job.state, show_when(job.started_at)[:16], _show_took(job), job.index) for job in found]
    print_table(f"jobs at {cluster.address}: {len(rows)}; times in UTC", columns, rows, whole=columns[:4])


def _show_took(job: "Job") -> str:
    if job.started_at is None or job.ended_at is None:
        return ""
    started, ended = (dt.datetime.fromisoformat(moment) for moment in (job.started_at, job.ended_at))
    return show_left((ended - started).total_seconds()).replace("less than a minute", "< 1 min")
