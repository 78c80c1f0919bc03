"""A build of a vector index that is killed. Another process calls it, as it calls a build."""

import os
import signal
from pathlib import Path
from threading import Thread

from pipeline.index import vector_build

ROWS_PER_SHARD, MOST_SEGMENTS = 4, 1


def make_step(uri: str, version: int, n_partitions: int | None, n_merged: int, step: str, nth: int) -> None:
    """Make a step in shards of a few rows, and die as it comes to ``step`` for the ``nth`` time: a failpoint, or
    ``write index``, as soon as the engine has made a folder."""
    vector_build.ROWS_PER_SHARD, vector_build.MOST_SEGMENTS, reached = ROWS_PER_SHARD, MOST_SEGMENTS, list[str]()
    if step == "write index":
        Thread(target=_die_at_new_folder, args=[Path(uri, "_indices")], daemon=True).start()

    def failpoint(name: str) -> None:
        reached.append(name)
        if reached.count(step) == nth:
            os.kill(os.getpid(), signal.SIGKILL)

    vector_build.make_step(uri, version, n_partitions, n_merged, failpoint)


def _die_at_new_folder(parent: Path) -> None:
    before = set(os.listdir(parent))
    while set(os.listdir(parent)) <= before:
        pass
    os.kill(os.getpid(), signal.SIGKILL)
