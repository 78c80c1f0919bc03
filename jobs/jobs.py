"""``earshot jobs``: the runs that were submitted to a cluster."""

from jobs.output import print_json, print_table
from jobs.query import Json
from jobs.submit import Address


def jobs(address: Address = None, json: Json = False) -> None:
    """List the jobs of Earshot on a Ray cluster, newest first.

    Example: earshot jobs --address http://head:8265
    """
    from jobs.cluster import connect

    cluster = connect(address)
    found = cluster.list_jobs()
    if json:
        print_json(found)
        return
    columns = ["job", "state", "started", "ended", "index"]
    times = [[show_when(moment)[:16] for moment in (job.started_at, job.ended_at)] for job in found]
    rows = [(job.name, job.state, *started_ended, job.index) for job, started_ended in zip(found, times, strict=True)]
    print_table(f"jobs at {cluster.address}: {len(rows)}; times in UTC", columns, rows, whole=columns[1:4])


def show_when(moment: str | None) -> str:
    """``2026-01-02T03:04:05.678+00:00`` -> ``2026-01-02 03:04:05``."""
    return "" if moment is None else moment[:19].replace("T", " ")
