"""A build of a vector index that is killed. Another process calls it, as it calls a build."""

import os
import signal

from pipeline.index import vector_build

ROWS_PER_SHARD = 4


def make_step(uri: str, version: int, n_partitions: int | None, n_merged: int, step: str, nth: int) -> None:
    """Make a step in shards of a few rows, and die as it comes to ``step`` for the ``nth`` time."""
    vector_build.ROWS_PER_SHARD, reached = ROWS_PER_SHARD, list[str]()

    def failpoint(name: str) -> None:
        reached.append(name)
        if reached.count(step) == nth:
            os.kill(os.getpid(), signal.SIGKILL)

    vector_build.make_step(uri, version, n_partitions, n_merged, failpoint)
