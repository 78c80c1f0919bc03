"""How the stages share a machine or a cluster: how many encoders, and how much each task takes. Pure functions."""

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.config import EncodeConfig
from pipeline.errors import UsageError
from pipeline.grid import BYTES_PER_SAMPLE, HOP_SAMPLES, SAMPLE_RATE_HZ, Grid, count_windows, frames_to_seconds
from pipeline.run.decode_stage import BLOCK_S, windows_per_block
from pipeline.run.split_stage import is_long

WRITERS = 16
"""On a cluster that may grow, this many tasks may write at the same time even if it has few cores now."""

BATCHES_PER_TASK, TASKS_PER_CORE = 16, 8
"""A task decodes up to 16 batches, one after the other; fewer, so that each core has at least 8 tasks. Ray needs
0.1 s or more to start a task; in that time a core decodes over a minute of audio."""

BATCHES_PER_TASK_OF_A_CLUSTER = 4
"""Fewer on a cluster: the tasks of a node that leaves are decoded again, and a node that joins should find tasks."""

BLOCKS_PER_ENCODER = 32
"""A small corpus is cut into this many blocks for each encoder, of at least two windows: smaller calls would take
more passes of the model. An encoder on a CPU takes a minute and more for a full block: with smaller ones, all end
together."""

CALL_S, CALLS_PER_ENCODER = 2560.0, 4
"""An encoder on a GPU gets up to so much audio in a call, in seconds, 0.5 GB of samples: four of its largest batches. A
small corpus is cut into this many calls for each encoder."""

LEAST_CALL_S = 40.0
"""No call is smaller, in seconds of audio, as far as there is enough: less would not keep a GPU busy."""

CALLS_IN_STORE = 6
"""An encoder has two calls at Ray, and a third one is being joined. They should fill half of the object store at most,
for decoders need the rest."""

BYTES_PER_ENCODER = 4 * 2**30
"""On CPUs, there is one encoder process for so much memory: the released models take 1 to 3 GiB of it. Ray is not asked
to reserve it, and ``encode.actors`` and ``encode.max_actors`` overrule it."""


@dataclass(frozen=True)
class Encoders:
    """Encoder processes: ``least`` to ``most`` of them, ``threads`` in each, and the arguments of Ray for each."""

    least: int
    most: int
    threads: int
    ray_options: dict[str, Any]

    def fit(self, resources: dict[str, float]) -> int:
        """How many of them run on these resources; 0 while they wait for a node."""
        wanted = {"GPU": self.ray_options.get("num_gpus", 0.0), "CPU": self.ray_options["num_cpus"]}
        room = [resources.get(name, 0.0) / share for name, share in wanted.items() if share]
        return min(self.most, int(min(room) + 1e-9))


def share_machine(resources: dict[str, float], config: EncodeConfig, *, may_grow: bool = False) -> Encoders:
    """The encoders of a machine, or of a cluster as it is now.

    On CPUs, many processes of one thread are faster than one of many threads, which wait for each other whenever
    decoding takes a core; memory sets the limit. A cluster that may grow need not have a GPU yet if ``max_actors`` is
    given.

    Raises:
        UsageError: a GPU is asked for and there is none.
    """
    cores = max(1, int(resources.get("CPU", 1)))
    gpus = int(resources.get("GPU", 0)) if config.device != "cpu" else 0
    most = config.max_actors
    if gpus or (config.device == "cuda" and most and may_grow):
        if most:
            # Begin with what fits now: a cluster that lost a node may be without it for long.
            least = min(config.actors or 1, gpus * config.actors_per_gpu) if gpus else config.actors or 1
            return Encoders(least, most, 1, {"num_gpus": 1 / config.actors_per_gpu, "num_cpus": 0})
        actors = config.actors or gpus * config.actors_per_gpu
        share = 1 / max(config.actors_per_gpu, math.ceil(actors / gpus))
        return Encoders(actors, actors, 1, {"num_gpus": share, "num_cpus": 0})
    if config.device == "cuda":
        raise UsageError("encode.device: cuda: Ray knows of no GPU here; use cpu or auto")
    if most:  # one thread each: nobody knows how many cores there will be
        least = config.actors or 1
        return Encoders(least, most, 1, {"num_cpus": min(0.9, (max(2, cores) - 1.2) / least)})
    fitting = int(resources.get("memory", 0) // BYTES_PER_ENCODER)
    actors = config.actors or max(1, min(cores, fitting))
    # Less than a core each: Ray then does not fuse them with decoding, and a core is left for that.
    return Encoders(actors, actors, max(1, cores // actors), {"num_cpus": min(0.9, (max(2, cores) - 1.2) / actors)})


def are_tried_alone(batches: pa.Table) -> bool:
    """Whether PLANNED ``batches`` hold what was lost with its worker: one content each, which may kill it again."""
    return bool(batches.num_rows and not batches["part"].null_count)


def fit_calls_in_flight(batches: pa.Table) -> int:
    """Calls that an encoder has at a time: one that it works on, and one that waits.

    Where PLANNED ``batches`` are tried alone, none waits: when an encoder dies, Ray counts a try of that call as well.
    """
    return 1 if are_tried_alone(batches) else 2


def fit_task(batches: pa.Table, cores: float, *, may_grow: bool = False) -> int:
    """How many of the PLANNED ``batches`` a task decodes."""
    if are_tried_alone(batches):
        return 1
    most = BATCHES_PER_TASK_OF_A_CLUSTER if may_grow else BATCHES_PER_TASK
    return max(1, min(most, int(batches.num_rows / cores / TASKS_PER_CORE)))


def split_into_tables(batches: pa.Table, n_together: int) -> list[pa.Table]:
    """PLANNED ``batches``: each long recording in a table of its own first, then the others, many in a table.

    A task that only passes batches on takes 0.1 s, and a core from decoding.
    """
    # First a test on the columns: as Python rows, all batches would fill the memory.
    alone = np.flatnonzero(pc.list_value_length(batches["audios"]).to_numpy() == 1)
    long = [at for at, row in zip(alone, batches.take(alone).to_pylist(), strict=True) if is_long(row)]
    others, n_rows = batches.take(np.setdiff1d(np.arange(batches.num_rows), long)), n_together * TASKS_PER_CORE
    return [
        *(batches.slice(at, 1) for at in long),
        *(others.slice(at, n_rows) for at in range(0, others.num_rows, n_rows)),
    ]


def fit_windows_per_block(batches: pa.Table, encoders: Encoders, grid: Grid) -> int:
    """Windows in a block of PLANNED ``batches``: full blocks on GPUs, and smaller ones for little audio on CPUs."""
    full = windows_per_block(grid)
    if "num_gpus" in encoders.ray_options:
        return full
    block_s = _estimates(batches).sum() / (BLOCKS_PER_ENCODER * encoders.most)
    return max(2, min(full, int(block_s // frames_to_seconds(grid.length_frames))))


def limit_encoders(batches: pa.Table, encoders: Encoders, grid: Grid) -> Encoders:
    """As many encoders as PLANNED ``batches`` have blocks, at most: further ones would have nothing to do."""
    block_s = fit_windows_per_block(batches, encoders, grid) * frames_to_seconds(grid.length_frames)
    n_blocks = max(batches.num_rows, int(_estimates(batches).sum() / block_s))
    return replace(encoders, least=min(encoders.least, n_blocks), most=min(encoders.most, n_blocks))


def fit_block_bytes(block_windows: int, grid: Grid) -> int:
    """The size of blocks that Ray aims at. It joins smaller ones that a task yields, and cuts those that are half as
    large again: blocks of so many windows are let alone unless they are less than three quarters full."""
    return int(0.75 * block_windows * grid.length_frames * HOP_SAMPLES * BYTES_PER_SAMPLE)


def fit_rows_per_call(batches: pa.Table, encoders: Encoders, grid: Grid, store_bytes: float = math.inf) -> int | None:
    """DECODED rows of PLANNED ``batches`` that an encoder on a GPU gets in one call: those of several blocks, if there
    are enough. None, for CPUs, makes each block a call.

    The more windows there are, the fuller are the batches of the model, and the more of one length share a pass of its
    codec. Batches that are tried alone stay alone, row by row: one of them may kill its worker.
    """
    if "num_gpus" not in encoders.ray_options:
        return None
    if are_tried_alone(batches):
        return 1
    estimated_s = _estimates(batches)
    n_rows = count_windows(estimated_s, grid) + len(estimated_s)  # each content has a row for its files, too
    audio_s = max(1.0, float(estimated_s.sum()))
    fair_s = audio_s / (CALLS_PER_ENCODER * encoders.most)
    stored_s = store_bytes / (CALLS_IN_STORE * encoders.most * SAMPLE_RATE_HZ * BYTES_PER_SAMPLE)
    block_s = min(BLOCK_S, audio_s / batches.num_rows)  # a block goes to one encoder: cutting it would share nothing
    return max(1, int(max(LEAST_CALL_S, block_s, min(CALL_S, fair_s, stored_s)) * n_rows / audio_s))


def _estimates(batches: pa.Table) -> Any:
    """The estimated seconds of each content of PLANNED ``batches``."""
    return pc.struct_field(pc.list_flatten(batches["audios"]), "estimated_s").to_numpy()


def count_writers(resources: dict[str, float], *, may_grow: bool = False) -> int:
    """How many tasks may write at the same time."""
    return max(1, int(resources.get("CPU", 1)) // 2, WRITERS if may_grow else 0)
