"""``earshot submit``: start a run on a Ray cluster."""

import re
from typing import Annotated

import typer

from jobs.shared.interrupt import Stopped
from jobs.shared.options import Address, AllowDeletions, Json, Rebuild
from jobs.shared.output import print_json, print_line, print_log


def submit(
    config: Annotated[str, typer.Argument(metavar="CONFIG", help="Configuration; its paths are paths on the cluster.")],
    address: Address = None,
    wait: Annotated[bool, typer.Option("--wait", help="Follow the job to its end; exit with 1 if it fails.")] = False,
    ship: Annotated[
        bool, typer.Option("--ship", help="Send this Earshot along, if the cluster has only its dependencies.")
    ] = False,
    python: Annotated[str, typer.Option(help="Python command on the cluster.")] = "python",
    allow_deletions: AllowDeletions = False,
    rebuild: Rebuild = False,
    json: Json = False,
) -> None:
    """Run `earshot index CONFIG` on a Ray cluster. Submit it again to continue a run that has ended early.

    Example: earshot submit configs/cluster.yaml --address http://head:8265 --wait
    """
    from jobs.shared.ray_jobs import connect
    from pipeline.config import load_config
    from pipeline.errors import EarshotError

    loaded = load_config(config)
    cluster = connect(address)
    name = cluster.submit(loaded, ship=ship, python=python, rebuild=rebuild, allow_deletions=allow_deletions)
    if json:
        print_json([{"job": name, "address": cluster.address}])
    else:
        print_line(f"submitted {name}; `earshot status {name}` shows its progress, `earshot logs {name} -f` follows it")
    if not wait:
        return
    try:
        print_log(cluster.follow(name), to_stderr=True)
    except KeyboardInterrupt:
        raise Stopped(f"{name} is still running; `earshot stop {name}` stops it") from None
    job = cluster.find(name)
    if json:
        print_json([{"job": name, "state": job.state}])
    if job.state != "succeeded":
        raise EarshotError(f"{name}: {job.state}: {job.message}{_advise(job.state, job.message)}")


def _advise(state: str, message: str) -> str:
    """What to do about a job that failed or was stopped, if that is known."""
    if re.search(r"No module named '?(jobs|pipeline)\b", message):
        return "; install Earshot in the Python of every node and name that with --python, or send this one with --ship"
    if re.search(r"not found|No such file or directory", message) and "python" in message:
        return "; name the Python on the head with --python"
    was_killed = state == "stopped" or re.search(r"SIG(KILL|TERM)|[Kk]illed|run again|unexpectedly", message)
    return "; submit it again to go on" if was_killed and "submit it again" not in message else ""
