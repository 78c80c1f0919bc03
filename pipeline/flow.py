"""The workers' side of a run: decode, encode and write on Ray Data. This is wiring, and the only module with Ray.

Tasks on CPUs decode, an actor pool encodes (on GPUs where there are any), and tasks write frame fragments and send
home receipts. Decoding, the only stage that multiplies data, is held back by Ray when the encoders are behind. Blocks
travel as they leave a stage, so that nothing ever waits for rows that cannot come.
"""

import logging
import math
import os
import re
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pyarrow as pa

from pipeline.config import Config, DecodeConfig, EncodeConfig
from pipeline.errors import UsageError
from pipeline.stages import BLOCK_WINDOWS
from pipeline.window import Grid

BYTES_PER_ENCODER = 4 * 2**30
"""Memory for one encoder process on CPUs: the released models take 1 to 3 GiB of it."""


class _Encode:
    """An encoder process: loads the models once, then calls the stage."""

    def __init__(self, config: EncodeConfig, with_frames: bool, threads: int) -> None:
        # Before torch is loaded: threads that wait must sleep, or they take the cores that decoding needs.
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
        import torch

        from pipeline.encode import keep_freed_memory, load_encoder

        keep_freed_memory()
        torch.set_num_threads(threads)
        self._encoder = load_encoder(config, frames=with_frames)

    def __call__(self, decoded: pa.Table) -> pa.Table:
        from pipeline.stages import encode_windows

        return encode_windows(decoded, self._encoder)


def _decode(planned: pa.Table, config: DecodeConfig, grid: Grid) -> Iterator[pa.Table]:
    from pipeline.stages import decode_batch

    for row in planned.to_pylist():
        yield from decode_batch(row, config, grid)


def _write(encoded: pa.Table, path: str, frames_schema: pa.Schema) -> pa.Table:
    from pipeline import store
    from pipeline.stages import write_windows

    return write_windows(encoded, frames_schema, lambda rows: store.write_frames(path, rows, frames_schema))


def start_ray() -> None:
    """Join the cluster that ``RAY_ADDRESS`` names, or start one on this machine; leave a running one alone."""
    # Ray's own log lines are for its developers: errors reach us as exceptions. Each can be switched on again.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    import ray

    if not ray.is_initialized():
        local: dict[str, Any] = {}
        if "RAY_ADDRESS" not in os.environ:
            local = {"num_cpus": max(2, len(os.sched_getaffinity(0))), "include_dashboard": False}
        with _no_stderr(), warnings.catch_warnings():
            # Ray's daemons are forked and replaced at once: they never touch what Lance has open here.
            warnings.filterwarnings("ignore", message="lance is not fork-safe")
            ray.init(log_to_driver=False, logging_level="error", **local)
        _keep_stdout_clean()


def _keep_stdout_clean() -> None:
    """Send Ray's messages to stderr, not among our JSON lines; and not that it ended what a stopped run asked it to."""
    from ray._private import worker

    show = worker.print_to_stdstream
    if show.__module__ == __name__:  # done before
        return

    def show_on_stderr(data: dict[str, Any], ignore_prefix: bool) -> None:
        if not any("killed by `ray.kill`" in line for line in data.get("lines", ())):
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


def share_machine(resources: dict[str, float], config: EncodeConfig) -> tuple[int, int, dict[str, Any]]:
    """How many encoder processes, threads in each, and what each asks Ray for.

    On CPUs, many processes of one thread beat one of many threads, which wait for each other whenever decoding takes
    a core (two threads: 6 to 12 times real time on a busy core, one: 15, with earshot-tiny); memory sets the limit.
    """
    cores = max(1, int(resources.get("CPU", 1)))
    gpus = int(resources.get("GPU", 0)) if config.device != "cpu" else 0
    if gpus:
        actors = config.actors or gpus
        share = 1 / math.ceil(actors / gpus)
        # Ray wants a batch size with GPUs; a full block has more rows than that, so none waits for another.
        return actors, 1, {"num_gpus": share, "num_cpus": 0, "batch_size": BLOCK_WINDOWS}
    if config.device == "cuda":
        raise UsageError("encode.device: cuda: Ray knows of no GPU here; use cpu or auto")
    fitting = int(resources.get("memory", 0) // BYTES_PER_ENCODER)
    actors = config.actors or max(1, min(cores, fitting))
    # Less than a core each: it keeps Ray from fusing them with decoding, and leaves a core to that.
    return actors, max(1, cores // actors), {"num_cpus": min(0.9, (max(2, cores) - 1.2) / actors)}


def check_machine(config: EncodeConfig) -> None:
    """Refuse what this machine, or the cluster, cannot run.

    Raises:
        UsageError: a GPU is asked for and there is none.
    """
    import ray

    share_machine(ray.cluster_resources(), config)


def run_stages(batches: pa.Table, config: Config, frames_schema: pa.Schema) -> Iterator[dict[str, Any]]:
    """PLANNED -> RECEIPTS rows, in any order, through decode, encode and write on Ray, which must have been started."""
    import ray
    from ray.data import ActorPoolStrategy, DataContext

    logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # errors reach us as exceptions
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.max_errored_blocks = 0
    context.target_max_block_size = 48 * 2**20  # below a full block of windows: each one leaves as it is
    context.execution_options.verbose_progress = False

    actors, threads, wants = share_machine(ray.cluster_resources(), config.encode)
    actors = min(actors, batches.num_rows)  # more would have nothing to do
    dataset = (
        ray.data.from_arrow(batches)
        .repartition(target_num_rows_per_block=1)
        .map_batches(
            _decode,
            batch_size=1,
            batch_format="pyarrow",
            num_cpus=1,
            fn_kwargs={"config": config.decode, "grid": config.window.grid},
        )
        .map_batches(
            _Encode,
            batch_format="pyarrow",
            zero_copy_batch=True,
            compute=ActorPoolStrategy(size=actors, max_tasks_in_flight_per_actor=2),
            fn_constructor_args=(config.encode, config.store.frames == "all", threads),
            **wants,
        )
        .map_batches(
            _write,
            batch_size=None,
            batch_format="pyarrow",
            zero_copy_batch=True,
            num_cpus=0.1,
            fn_kwargs={"path": os.path.abspath(config.into), "frames_schema": frames_schema},
        )
    )
    try:
        for table in dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
            yield from table.to_pylist()
    except ray.exceptions.RayTaskError as error:
        raise RuntimeError(find_cause(str(error))) from error


def find_cause(trace: str) -> str:
    """``Type: message`` of what went wrong in a worker, from Ray's traceback: of the exception itself, Ray sends only
    its own wrapper."""
    first = trace.split("\n\nThe above exception was the direct cause")[0].strip()
    lines = first.splitlines()
    starts = [i for i, line in enumerate(lines) if re.match(r"[\w.]+(: |$)", line)]
    return " ".join(" ".join(lines[starts[-1] if starts else -1 :]).split())
