"""The workers' side of a run: decode, encode and write on Ray Data. This is wiring, and the only module with Ray.

Tasks on CPUs decode, an actor pool encodes (on GPUs where there are any), and tasks write frame fragments and send
home receipts. Decoding, the only stage that multiplies data, is held back by Ray when the encoders are behind. Blocks
travel as they leave a stage, so that nothing ever waits for rows that cannot come.
"""

import logging
import math
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pyarrow as pa

from pipeline import schema, storage
from pipeline.config import Config, DecodeConfig, EncodeConfig
from pipeline.errors import UsageError
from pipeline.stages import decode_batch, encode_windows, error_row, windows_per_block, write_windows
from pipeline.window import Grid

TRIES = 3
"""How often a task is given to a worker that dies of it."""

NOT_SHOWN = ("killed by `ray.kill`", "The worker died unexpectedly", "A worker died or was killed", "will be retried")

BYTES_PER_ENCODER = 4 * 2**30
"""Memory for one encoder process on CPUs: the released models take 1 to 3 GiB of it."""


Decode = Callable[[dict[str, Any], DecodeConfig, Grid], Iterator[pa.Table]]
"""One PLANNED row -> DECODED tables: ``stages.decode_batch``."""


class _Encode:
    """An encoder process: loads the models once, then calls the stage. Errors go on as rows."""

    def __init__(self, config: EncodeConfig, with_frames: bool, threads: int) -> None:
        # Before torch is loaded: threads that wait must sleep, or they take the cores that decoding needs.
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
        self._error: Exception | None = None
        try:
            import torch

            from pipeline.encode import keep_freed_memory, load_encoder

            keep_freed_memory()
            torch.set_num_threads(threads)
            self._encoder = load_encoder(config, frames=with_frames)
        except Exception as error:  # raised here, Ray would start another process, and another
            self._error = error

    def __call__(self, decoded: pa.Table) -> pa.Table:
        try:
            if self._error is not None:
                raise self._error
            return encode_windows(decoded, self._encoder)
        except Exception as error:
            return error_row(schema.ENCODED, decoded["batch_id"][0].as_py(), error)


def _decode(planned: pa.Table, decode: Decode, config: DecodeConfig, grid: Grid) -> Iterator[pa.Table]:
    for row in planned.to_pylist():
        try:
            yield from decode(row, config, grid)
        except Exception as error:
            yield error_row(schema.DECODED, row["batch_id"], error)


def _write(encoded: pa.Table, path: str, frames_schema: pa.Schema) -> pa.Table:
    from pipeline import store

    try:
        return write_windows(encoded, frames_schema, lambda rows: store.write_frames(path, rows, frames_schema))
    except Exception as error:
        return error_row(schema.RECEIPTS, encoded["batch_id"][0].as_py(), error)


def start_ray() -> None:
    """Join the cluster that ``RAY_ADDRESS`` names, or start one on this machine; leave a running one alone."""
    # Ray's own log lines are for its developers: errors reach us as exceptions. Each can be switched on again.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    os.environ.setdefault("RAY_task_oom_retries", str(TRIES - 1))
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
        if threading.current_thread() is threading.main_thread():
            # Ray's own handler prints its native stack.
            signal.signal(signal.SIGTERM, _interrupt)


def _interrupt(*_: object) -> None:
    """SIGTERM, which service managers and batch systems send, ends a run as Ctrl-C does."""
    raise KeyboardInterrupt


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


def share_machine(resources: dict[str, float], config: EncodeConfig) -> tuple[int, int, dict[str, Any]]:
    """How many encoder processes, threads in each, and what each asks Ray for.

    On CPUs, many processes of one thread beat one of many threads, which wait for each other whenever decoding takes
    a core; memory sets the limit.
    """
    cores = max(1, int(resources.get("CPU", 1)))
    gpus = int(resources.get("GPU", 0)) if config.device != "cpu" else 0
    if gpus:
        actors = config.actors or gpus
        share = 1 / math.ceil(actors / gpus)
        return actors, 1, {"num_gpus": share, "num_cpus": 0}
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


def run_stages(
    batches: pa.Table, config: Config, frames_schema: pa.Schema, decode: Decode = decode_batch
) -> Iterator[dict[str, Any]]:
    """PLANNED -> RECEIPTS rows, in any order, through decode, encode and write on Ray, which must have been started.

    Batches whose worker died again and again are missing from what comes back.
    """
    import ray
    from ray.data import DataContext

    logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # errors reach us as exceptions
    warnings.filterwarnings("ignore", message="The minimum number of concurrent actors")  # where all batches were lost
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    # A block is lost only with its worker, for errors go on as rows; the driver sees which batches it misses.
    context.max_errored_blocks = -1
    context.target_max_block_size = 48 * 2**20  # below a full block of windows: each one leaves as it is
    context.execution_options.verbose_progress = False

    with warnings.catch_warnings():
        # Ray 2.63 has no other way to bound retries than the arguments that it is going to name differently.
        warnings.filterwarnings("ignore", message="`ray_remote_args` is deprecated")
        dataset = _connect(ray.data.from_arrow(batches), batches.num_rows, config, frames_schema, decode)
    for table in dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
        yield from table.to_pylist()


def _connect(planned: Any, n_batches: int, config: Config, frames_schema: pa.Schema, decode: Decode) -> Any:
    """The stages as a Ray dataset; nothing runs before it is read."""
    import ray
    from ray.data import ActorPoolStrategy

    actors, threads, wants = share_machine(ray.cluster_resources(), config.encode)
    actors = min(actors, n_batches)  # more would have nothing to do
    if "num_gpus" in wants:  # Ray wants a batch size then; a full block has more rows than that: none waits for others
        wants["batch_size"] = windows_per_block(config.window.grid)
    return (
        planned.repartition(target_num_rows_per_block=1)
        .map_batches(
            _decode,
            batch_size=1,
            batch_format="pyarrow",
            num_cpus=1,
            max_retries=TRIES - 1,
            fn_kwargs={"decode": decode, "config": config.decode, "grid": config.window.grid},
        )
        .map_batches(
            _Encode,
            batch_format="pyarrow",
            zero_copy_batch=True,
            compute=ActorPoolStrategy(size=actors, max_tasks_in_flight_per_actor=2),
            fn_constructor_args=(config.encode, config.store.frames == "all", threads),
            max_task_retries=TRIES - 1,
            **wants,
        )
        .map_batches(
            _write,
            batch_size=None,
            batch_format="pyarrow",
            zero_copy_batch=True,
            num_cpus=0.1,
            max_retries=TRIES - 1,
            fn_kwargs={"path": storage.absolute(config.into), "frames_schema": frames_schema},
        )
    )
