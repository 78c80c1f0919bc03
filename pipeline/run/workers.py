"""The workers' side of a run: decode, encode and write on Ray Data. This is wiring, and the only module with Ray.

Tasks on CPUs decode, an actor pool encodes (on GPUs where there are any), and tasks write frame fragments and send
home receipts. Decoding, the only stage that multiplies data, is held back by Ray when the encoders are behind. Blocks
travel as they leave a stage, so that nothing ever waits for rows that cannot come.
"""

import gc
import logging
import math
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline import schema, storage
from pipeline.config import Config, DecodeConfig, EncodeConfig
from pipeline.encoder.encoder import load_for_run
from pipeline.encoder.malloc import keep_freed_memory
from pipeline.errors import UsageError
from pipeline.grid import Grid, frames_to_seconds
from pipeline.run.record import METRICS, PYTHON_VARIABLE, Record, list_measures
from pipeline.run.stages import (
    Encoder,
    decode_batch,
    encode_windows,
    error_row,
    estimate_batch,
    is_long,
    note_seconds,
    split_batch,
    windows_per_block,
    write_windows,
)

TRIES = 3
"""How often a task is given to a worker that dies of it."""

NOT_SHOWN = (
    *("killed by `ray.kill`", "The worker died unexpectedly", "A worker died or was killed", "will be retried"),
    "Raylet is terminated",
)

SPLIT_CPUS = 0.9
"""What a task asks for that looks at a long recording: less than decoding does, so that Ray keeps the two apart."""

WRITE_CPUS = 0
"""What a task that writes asks for: it mostly waits for the disk. Ray rounds down what it leaves to decoding: for a
hundredth of a core more than there is, a decoder would stand idle."""

WRITERS = 16
"""Tasks that write at the same time at most, at least where a cluster may grow."""

BATCHES_PER_TASK, TASKS_PER_CORE = 16, 8
"""Batches that a task decodes one after the other: as many, where there are enough for so many tasks on each core. Ray
takes a tenth of a second and more to start the next task, in which a core decodes a minute of audio and more."""

BATCHES_PER_TASK_OF_A_CLUSTER = 4
"""There nodes go, and what their tasks have decoded is decoded once more; others come, and find no task left."""

BLOCKS_PER_ENCODER = 16
"""Of audio, where there is little: so that encoders on CPUs, which take a minute and more for a full one, end together.
None is less than two full windows, a batch there."""

BYTES_PER_ENCODER = 4 * 2**30
"""Memory for one encoder process on CPUs: the released models take 1 to 3 GiB of it."""


Decode = Callable[[dict[str, Any], DecodeConfig, Grid, int], Iterator[pa.Table]]
"""One PLANNED row, and how many windows are a block -> DECODED tables: ``stages.decode_batch``."""

Load = Callable[[EncodeConfig, bool, int], Encoder]
"""Which models, whether with frames, on how many threads -> an encoder, in the process where it works."""


class _Encode:
    """An encoder process: loads the models once, then calls the stage. Errors go on as rows."""

    def __init__(self, load: Load, config: EncodeConfig, with_frames: bool, threads: int) -> None:
        self._error: Exception | None = None
        try:
            self._encoder = load(config, with_frames, threads)
        except Exception as error:  # raised here, Ray would start another process, and another
            self._error = error

    def __call__(self, decoded: pa.Table) -> pa.Table:
        try:
            if self._error is not None:
                raise self._error
            began = time.perf_counter()
            encoded = encode_windows(decoded, self._encoder)
            return note_seconds(encoded, "encode", time.perf_counter() - began)
        except Exception as error:
            return error_row(schema.ENCODED, decoded["batch_id"][0].as_py(), error)


def _split(planned: pa.Table, config: DecodeConfig, grid: Grid) -> pa.Table:
    """Of a table as ``set_apart`` makes them."""
    if planned.num_rows > 1:
        return planned
    return pa.Table.from_pylist(split_batch(planned.to_pylist()[0], config, grid), schema=schema.PLANNED)


def _decode(
    planned: pa.Table, decode: Decode, config: DecodeConfig, grid: Grid, block_windows: int
) -> Iterator[pa.Table]:
    keep_freed_memory()
    for row in planned.to_pylist():
        try:
            began = time.perf_counter()
            for decoded in decode(row, config, grid, block_windows):
                yield note_seconds(decoded, "decode", time.perf_counter() - began)
                began = time.perf_counter()  # waiting until the encoders want more is no work
        except Exception as error:
            yield error_row(schema.DECODED, row["batch_id"], error)


def _write(encoded: pa.Table, path: str, frames_schema: pa.Schema) -> pa.Table:
    from pipeline.index.tables import write_frames

    try:
        began = time.perf_counter()
        receipts = write_windows(encoded, frames_schema, lambda rows: write_frames(path, rows, frames_schema))
        return note_seconds(receipts, "write", time.perf_counter() - began)
    except Exception as error:
        return error_row(schema.RECEIPTS, encoded["batch_id"][0].as_py(), error)


def start_ray(**settings: Any) -> None:
    """Join the cluster that ``RAY_ADDRESS`` names, or start one on this machine; leave a running one alone.

    Args:
        settings: of the one that is started, as ``ray.init`` takes them.
    """
    # Ray's own log lines are for its developers: errors reach us as exceptions. Each can be switched on again.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    os.environ.setdefault("RAY_task_oom_retries", str(TRIES - 1))
    # A thread of Ray Data that outlives the connection, at the end of a stopped run, must not make another one.
    os.environ.setdefault("RAY_ENABLE_AUTO_CONNECT", "0")
    if "RAY_ADDRESS" not in os.environ:
        # One that is started here is for this machine alone: with this variable, named after the systems on which Ray
        # does so by default, all of its parts listen on 127.0.0.1. Without it they listen on all addresses.
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    import ray
    from ray._private import ray_constants

    if os.environ.get("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER") == "0":
        ray_constants.ENABLE_RAY_CLUSTER = False  # in case Ray was imported before
    if not ray.is_initialized():
        local: dict[str, Any] = {}
        if "RAY_ADDRESS" not in os.environ:
            local = {"address": "local", "num_cpus": max(2, len(os.sched_getaffinity(0))), "include_dashboard": False}
            local |= settings
        elif PYTHON_VARIABLE in os.environ:
            local = {"runtime_env": {"py_executable": os.environ[PYTHON_VARIABLE]}}
        former = signal.getsignal(signal.SIGTERM)
        with _no_stderr(), warnings.catch_warnings():
            # Ray's daemons are forked and replaced at once: they never touch what Lance has open here.
            warnings.filterwarnings("ignore", message="lance is not fork-safe")
            ray.init(log_to_driver=False, logging_level="error", **local)
        _keep_stdout_clean()
        if threading.current_thread() is threading.main_thread() and former is not None:
            signal.signal(signal.SIGTERM, former)  # Ray's own handler prints its native stack


def _keep_stdout_clean() -> None:
    """Send Ray's messages to stderr, not among our JSON lines; but for those on dead workers, which we speak of."""
    from ray._private import worker

    show = worker.print_to_stdstream
    if show.__module__ == __name__:  # done before
        return

    def show_on_stderr(data: dict[str, Any], ignore_prefix: bool) -> None:
        if not any(part in line for line in data.get("lines", ()) for part in NOT_SHOWN):
            show({**data, "is_err": True}, ignore_prefix)

    worker.print_to_stdstream = show_on_stderr


@contextmanager
def _no_stderr() -> Iterator[None]:
    """Drop what native code writes to stderr meanwhile: Ray announces there that it was told to be quiet."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


@dataclass(frozen=True)
class Encoders:
    """Encoder processes: at least and at most so many, with ``threads`` in each, and what each asks Ray for."""

    least: int
    most: int
    threads: int
    wants: dict[str, Any]

    def fit(self, resources: dict[str, float]) -> int:
        """How many of them run where there are these resources; none, while they wait for a node."""
        room = [resources.get(name, 0.0) / wanted for name, wanted in self._wanted() if wanted]
        return min(self.most, int(min(room) + 1e-9))

    def _wanted(self) -> list[tuple[str, float]]:
        return [("GPU", self.wants.get("num_gpus", 0.0)), ("CPU", self.wants["num_cpus"])]


def share_machine(resources: dict[str, float], config: EncodeConfig, *, may_grow: bool = False) -> Encoders:
    """How a machine, or a cluster as it is now, is shared between the stages.

    On CPUs, many processes of one thread beat one of many threads, which wait for each other whenever decoding takes
    a core; memory sets the limit. A cluster that may grow need not have a GPU yet, where ``max_actors`` is given.
    """
    cores = max(1, int(resources.get("CPU", 1)))
    gpus = int(resources.get("GPU", 0)) if config.device != "cpu" else 0
    most = config.max_actors
    if gpus or (config.device == "cuda" and most and may_grow):
        if most:
            # No more at first than there is room for now: a cluster that lost a node may be without it for long.
            least = min(config.actors or 1, gpus * config.actors_per_gpu) if gpus else config.actors or 1
            return Encoders(least, most, 1, {"num_gpus": 1 / config.actors_per_gpu, "num_cpus": 0})
        actors = config.actors or gpus * config.actors_per_gpu
        share = 1 / max(config.actors_per_gpu, math.ceil(actors / gpus))
        return Encoders(actors, actors, 1, {"num_gpus": share, "num_cpus": 0})
    if config.device == "cuda":
        raise UsageError("encode.device: cuda: Ray knows of no GPU here; use cpu or auto")
    if most:  # of one thread, for how many cores there will be is not known
        least = config.actors or 1
        return Encoders(least, most, 1, {"num_cpus": min(0.9, (max(2, cores) - 1.2) / least)})
    fitting = int(resources.get("memory", 0) // BYTES_PER_ENCODER)
    actors = config.actors or max(1, min(cores, fitting))
    # Less than a core each: it keeps Ray from fusing them with decoding, and leaves a core to that.
    return Encoders(actors, actors, max(1, cores // actors), {"num_cpus": min(0.9, (max(2, cores) - 1.2) / actors)})


def fit_task(batches: pa.Table, cores: float, *, may_grow: bool = False) -> int:
    """How many of the PLANNED ``batches`` a task decodes."""
    if batches.num_rows and not batches["part"].null_count:
        return 1  # each is to be alone, for one of them kills its worker
    most = BATCHES_PER_TASK_OF_A_CLUSTER if may_grow else BATCHES_PER_TASK
    return max(1, min(most, int(batches.num_rows / cores / TASKS_PER_CORE)))


def set_apart(batches: pa.Table, n_together: int) -> list[pa.Table]:
    """PLANNED ``batches``, each long recording in a table of its own, before the others; these many in a table, for
    a task that only passes them on takes a tenth of a second, and a core from decoding."""
    alone = np.flatnonzero(pc.list_value_length(batches["audios"]).to_numpy() == 1)  # all of them would fill the memory
    long = [at for at, row in zip(alone, batches.take(alone).to_pylist(), strict=True) if is_long(row)]
    others, n_rows = batches.take(np.setdiff1d(np.arange(batches.num_rows), long)), n_together * TASKS_PER_CORE
    return [
        *(batches.slice(at, 1) for at in long),
        *(others.slice(at, n_rows) for at in range(0, others.num_rows, n_rows)),
    ]


def fit_block(batches: pa.Table, encoders: Encoders, grid: Grid) -> int:
    """Windows in a block of PLANNED ``batches``: as many as can be, on CPUs fewer where there is little audio."""
    full, n_blocks = windows_per_block(grid), BLOCKS_PER_ENCODER * encoders.most
    if "num_gpus" in encoders.wants or batches.num_rows >= n_blocks:
        return full
    audio_s = sum(map(estimate_batch, batches.to_pylist()))
    return max(2, min(full, int(audio_s / n_blocks / frames_to_seconds(grid.length_frames))))


def check_machine(config: EncodeConfig) -> None:
    """Refuse what this machine, or the cluster, cannot run.

    Raises:
        UsageError: a GPU is asked for and there is none.
    """
    _share(config)


def _share(config: EncodeConfig) -> Encoders:
    import ray

    return share_machine(ray.cluster_resources(), config, may_grow=_may_grow())


def _may_grow() -> bool:
    """Whether nodes may come and go: on a cluster that somebody else has started."""
    return "RAY_ADDRESS" in os.environ


def count_workers(config: EncodeConfig) -> dict[str, float]:
    """How many workers the cluster has room for at present, in each stage, beside those of the others."""
    import ray

    resources, encoders = ray.cluster_resources(), _share(config)
    n_encoders = encoders.fit(resources)
    free = max(1.0, resources.get("CPU", 1.0) - n_encoders * encoders.wants["num_cpus"])
    return {"decode": float(int(free)), "encode": float(n_encoders), "write": float(count_writers(resources))}


def count_writers(resources: dict[str, float]) -> int:
    """How many tasks may write at the same time."""
    return max(1, int(resources.get("CPU", 1)) // 2, WRITERS if _may_grow() else 0)


_gauges: dict[str, Any] = {}


def publish(record: Record) -> None:
    """Set the metrics that Ray offers to Prometheus, if it runs."""
    ray = sys.modules.get("ray")
    if ray is None or not ray.is_initialized():
        return
    from ray.util.metrics import Gauge

    for name, tags, value in list_measures(record):
        if name not in _gauges:
            _gauges[name] = Gauge(name, METRICS[name], tag_keys=tuple(tags))
        _gauges[name].set(value, tags=tags)


def run_stages(
    batches: pa.Table,
    config: Config,
    frames_schema: pa.Schema,
    decode: Decode = decode_batch,
    load: Load = load_for_run,
) -> Iterator[dict[str, Any]]:
    """PLANNED -> RECEIPTS rows, in any order, through decode, encode and write on Ray, which must have been started.

    Batches whose worker died again and again are missing from what comes back.
    """
    from ray.data import DataContext

    logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # errors reach us as exceptions
    warnings.filterwarnings("ignore", message="The m(in|ax)imum number of concurrent")  # where all batches were lost
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    # A block is lost only with its worker, for errors go on as rows; the driver sees which batches it misses.
    context.max_errored_blocks = -1
    context.target_max_block_size = 48 * 2**20  # below a full block of windows: each one leaves as it is
    context.execution_options.verbose_progress = False
    # Half an hour without a result ends a run by default: no node to be had for so long is no reason to fail, nor is a
    # slow CPU. The record says how long nothing has come.
    context.execution_no_progress_timeout_s = -1

    with warnings.catch_warnings():
        # Ray 2.63 has no other way to bound retries than the arguments that it is going to name differently.
        warnings.filterwarnings("ignore", message="`ray_remote_args` is deprecated")
        dataset = _connect(batches, config, frames_schema, decode, load)
    try:
        for table in dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
            yield from table.to_pylist()
    finally:
        # Ray ends encoders when nothing refers to them any more. After errors, tracebacks do, in cycles: with GPUs held
        # by the encoders of a run that lost a node, those that take up what was lost would wait for ever.
        del dataset
        gc.collect()


def _connect(batches: pa.Table, config: Config, frames_schema: pa.Schema, decode: Decode, load: Load) -> Any:
    """The stages as a Ray dataset; nothing runs before it is read."""
    import ray
    from ray.data import ActorPoolStrategy, TaskPoolStrategy, from_arrow

    [longest] = batches.slice(0, 1).to_pylist()

    encoders = _share(config.encode)
    wants = encoders.wants
    least, most = encoders.least, encoders.most
    if not is_long(longest):  # more encoders than batches would have nothing to do
        least, most = min(least, batches.num_rows), min(most, batches.num_rows)
    if "num_gpus" in wants:  # Ray wants a batch size then; a full block has more rows than that: none waits for others
        wants["batch_size"] = windows_per_block(config.window.grid)
    settings = {"config": config.decode, "grid": config.window.grid}
    n_together = fit_task(batches, ray.cluster_resources().get("CPU", 1), may_grow=_may_grow())
    planned = from_arrow(batches)
    if is_long(longest):
        planned = from_arrow(set_apart(batches, n_together)).map_batches(
            _split, batch_size=None, batch_format="pyarrow", num_cpus=SPLIT_CPUS, fn_kwargs=settings
        )
    return (
        planned.repartition(target_num_rows_per_block=n_together)
        .map_batches(
            _decode,
            batch_size=n_together,
            batch_format="pyarrow",
            num_cpus=1,
            max_retries=TRIES - 1,
            fn_kwargs={"decode": decode, **settings, "block_windows": fit_block(batches, encoders, config.window.grid)},
        )
        .map_batches(
            _Encode,
            batch_format="pyarrow",
            zero_copy_batch=True,
            compute=ActorPoolStrategy(min_size=least, max_size=most, max_tasks_in_flight_per_actor=2),
            fn_constructor_args=(load, config.encode, config.store.frames == "all", encoders.threads),
            max_task_retries=TRIES - 1,
            **wants,
        )
        .map_batches(
            _write,
            batch_size=None,
            batch_format="pyarrow",
            zero_copy_batch=True,
            compute=TaskPoolStrategy(count_writers(ray.cluster_resources())),
            num_cpus=WRITE_CPUS,
            max_retries=TRIES - 1,
            fn_kwargs={"path": storage.absolute(config.into), "frames_schema": frames_schema},
        )
    )
