"""``earshot logs``: what a job prints."""

import sys
from collections.abc import Iterable, Iterator
from typing import Annotated

import typer

from jobs.output import print_json
from jobs.query import Json
from jobs.submit import Address
from pipeline.errors import EarshotError

Job = Annotated[str, typer.Argument(metavar="JOB", help="Name of the job, as `earshot jobs` lists it.")]


def logs(
    job: Job,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Go on until the job ends.")] = False,
    address: Address = None,
    json: Json = False,
) -> None:
    """Show what a job on a Ray cluster has printed.

    Example: earshot logs earshot-my-index-1a2b3c4d-1 -f
    """
    from jobs.cluster import connect

    cluster = connect(address)
    texts: Iterable[str] = cluster.follow(job) if follow else [cluster.logs(job)]
    for text in _whole_lines(texts) if json else texts:
        if json:
            print_json({"line": line} for line in text.splitlines())
        else:
            sys.stdout.write(text)
        sys.stdout.flush()


def _whole_lines(texts: Iterable[str]) -> Iterator[str]:
    """The same text, cut behind lines: what comes from the cluster is cut anywhere."""
    rest = ""
    try:
        for text in texts:
            whole, newline, rest = (rest + text).rpartition("\n")
            yield whole + newline
    except EarshotError:  # the cluster is gone
        yield rest
        raise
    yield rest
