"""Steps of vector indexes that are made in this process, where a test can see and stop them."""

from collections.abc import Callable
from typing import Any

from pipeline.index.journal import Failpoint
from pipeline.index.vector_build import make_step
from pipeline.index.vector_index import Step


def make_here(
    table: Any, step: Step, tick: Callable[[], object] = lambda: None, failpoint: Failpoint = lambda step: None
) -> None:
    """Make a step without limits of time and memory."""
    make_step(table.uri, table.version, step.n_partitions, step.n_merged, failpoint)
