"""Vector indexes built by the workers of a Ray cluster. This is wiring; ``index/vector_build.py`` does the work."""

import sys
import time
from collections.abc import Callable
from itertools import islice
from typing import Any

from pipeline.index.limited import Limits, Unfinished, call_limited
from pipeline.index.vector_build import (
    FRUGAL,
    build_shard,
    delete_parts,
    join_shards,
    split_fragments,
    train_model,
)
from pipeline.index.vector_index import Step
from pipeline.index.vector_upkeep import find_limits, make_limited
from pipeline.words import show_bytes

ROWS_TO_SPREAD = 1_000_000
"""From this many rows on, a cluster of several nodes builds an index. One machine needs a minute for so many."""

SHARD_BYTES = 2 * 10**9
"""What the worker of a shard may need. Ray sets so much aside for it, but does not stop one that takes more."""

PATIENCE_S = 60.0
"""A build ends where no node could run one of its tasks for so long: nodes of a cluster may leave and come back."""


def make_on_ray(table: Any, step: Step, tick: Callable[[], object] = lambda: None) -> None:
    """Make a step of a vector index. A large index is built by a cluster of several nodes, if this process has joined
    one; all else is done by one process on this machine, for Lance uses all cores of it.

    Raises:
        Unfinished: it failed, or took too long or too much memory.
    """
    if step.n_partitions is None or step.n_rows < ROWS_TO_SPREAD or _count_nodes() < 2:
        make_limited(table, step, tick)
    else:
        build_on_ray(table, step.n_partitions, find_limits(table, step), tick)


def build_on_ray(
    table: Any,
    n_partitions: int,
    limits: Limits,
    tick: Callable[[], object] = lambda: None,
    join: Callable[..., None] = call_limited,
) -> None:
    """Build the vector index of a table by Ray tasks, one core each, and commit it: one version.

    Args:
        limits: of the tasks together, and again of joining what they made.
        join: calls ``join_shards`` with limits.

    Raises:
        Unfinished: as ``make_on_ray``. Nothing is committed then.
    """
    import ray

    until = time.monotonic() + limits.seconds
    place = {"uri": table.uri, "version": table.version}
    one_core = {"num_cpus": 1, "runtime_env": {"env_vars": {**FRUGAL, "LANCE_CPU_THREADS": "1"}}}
    training = ray.remote(memory=SHARD_BYTES, **one_core)(train_model)
    building = ray.remote(memory=SHARD_BYTES, scheduling_strategy="SPREAD", **one_core)(build_shard)
    delete_parts(table.uri)
    trained = training.remote(**place, n_partitions=n_partitions)
    segments = split_fragments(table)
    tasks = [building.remote(**place, model=trained, shard=shard) for shards in segments for shard in shards]
    built = iter(_wait([trained, *tasks], until, tick)[1:])
    joining = [list(islice(built, len(shards))) for shards in segments]
    join(join_shards, {**place, "segments": joining}, limits, tick, FRUGAL)


def _wait(tasks: list[Any], until: float, tick: Callable[[], object]) -> list[Any]:
    """The results of tasks, in order. Cancels all of them if one fails, the time is over, or no node can run one."""
    import ray
    from ray.exceptions import RayError

    left, able_at = tasks, time.monotonic()
    try:
        while left:
            ended, left = ray.wait(left, timeout=1.0)
            ray.get(ended)  # raises what went wrong
            tick()
            now, lack = time.monotonic(), find_lack(ray.nodes())
            able_at = able_at if lack else now
            if lack and now - able_at > PATIENCE_S:
                raise Unfinished(f"{lack}; `earshot optimize` builds the index on one machine, without Ray")
            if left and now > until:
                done = f"{len(tasks) - len(left)} of {len(tasks)} tasks were done"
                raise Unfinished(
                    f"stopped: the cluster took far longer than it should; {done}, and each needs a free core and"
                    f" {show_bytes(SHARD_BYTES)} of Ray's memory"
                )
        return list(ray.get(tasks))
    except RayError as error:
        cause = getattr(error, "cause", None) or error
        raise Unfinished(f"{type(cause).__name__}: {' '.join(str(cause).split())[:300]}") from None
    finally:
        for task in left:
            ray.cancel(task, force=True)


def find_lack(nodes: list[dict[str, Any]]) -> str | None:
    """Why no node of a cluster can run a task of a build, even when it is idle; None if one can.

    Args:
        nodes: as ``ray.nodes`` lists them.
    """
    alive = [node["Resources"] for node in nodes if node["Alive"]]
    with_core = [each.get("memory", 0.0) for each in alive if each.get("CPU", 0.0) >= 1]
    if not with_core:
        return "no node of the cluster has a core for Ray's tasks"
    if max(with_core) >= SHARD_BYTES:
        return None
    return (
        f"no node of the cluster has {show_bytes(SHARD_BYTES)} of memory for Ray's tasks, the largest has"
        f" {show_bytes(max(with_core))} (`ray start --memory`)"
    )


def _count_nodes() -> int:
    """The number of nodes of the Ray that this process has started or joined; 0 if there is none."""
    ray = sys.modules.get("ray")
    if ray is None or not ray.is_initialized():
        return 0
    return sum(node["Alive"] for node in ray.nodes())
