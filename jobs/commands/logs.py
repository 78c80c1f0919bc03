"""``earshot logs``: the output of a job."""

from collections.abc import Iterable
from typing import Annotated

import typer

from jobs.shared.options import Address, Job, Json
from jobs.shared.output import print_json, print_log, whole_lines


def logs(
    job: Job,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Follow the output until the job ends.")] = False,
    address: Address = None,
    json: Json = False,
) -> None:
    """Show the output of a job on a Ray cluster.

    Example: earshot logs earshot-my-index-1a2b3c4d-1 -f
    """
    from jobs.shared.ray_jobs import connect

    cluster = connect(address)
    texts: Iterable[str] = cluster.follow(job) if follow else [cluster.logs(job)]
    if not json:
        print_log(texts)
        return
    for text in whole_lines(texts):
        print_json({"line": line} for line in text.removesuffix("\n").replace("\r\n", "\n").split("\n"))
