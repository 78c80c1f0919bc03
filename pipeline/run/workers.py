"""The stages on Ray Data: decode, encode and write. This is wiring; the stages themselves are plain functions.

Tasks on CPUs decode, an actor pool encodes (on GPUs where there are any), and tasks write frame fragments and return
receipts. Decoding, the only stage that multiplies data, is held back by Ray when the encoders are behind. On CPUs each
block travels as it left its stage. For GPUs, Ray joins several; it passes on what it has when no more can come.
"""

import gc
import logging
import math
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import pyarrow as pa

from pipeline import schema, storage
from pipeline.config import Config, DecodeConfig, EncodeConfig
from pipeline.encoder.encoder import check_models, load_for_run
from pipeline.encoder.malloc import keep_freed_memory
from pipeline.errors import TOO_LARGE
from pipeline.grid import Grid
from pipeline.run.causes import find_causes, is_given_up, note_cause
from pipeline.run.decode_stage import decode_batch
from pipeline.run.dispatch import Workers
from pipeline.run.encode_stage import Encoder, encode_windows
from pipeline.run.metrics import METRICS, list_measures
from pipeline.run.ray_health import RayHealth
from pipeline.run.ray_start import TRIES, may_grow, start_ray
from pipeline.run.record import Record
from pipeline.run.resources import (
    Encoders,
    count_writers,
    fit_block_bytes,
    fit_calls_in_flight,
    fit_rows_per_call,
    fit_task,
    fit_windows_per_block,
    limit_encoders,
    share_machine,
    split_into_tables,
)
from pipeline.run.split_stage import is_long, split_batch
from pipeline.run.vector_builds import make_on_ray
from pipeline.run.watchdog import Limits, Watchdog
from pipeline.run.write_stage import error_row, note_seconds, write_windows
from pipeline.schema import Row

SPLIT_CPUS = 0.9
"""Cores that a task reserves to split a long recording: fewer than decoding does, or Ray would fuse the two."""

WRITE_CPUS = 0
"""Cores that a writing task reserves: it mostly waits for the disk. Ray rounds down the cores left to decoding: if a
writer reserved a hundredth of a core, a decoder would stay idle."""

Decode = Callable[[dict[str, Any], DecodeConfig, Grid, int, float], Iterator[pa.Table]]
"""One PLANNED row, the number of windows in a block, and the most hours of a recording -> DECODED tables:
``decode_stage.decode_batch``."""

Load = Callable[[EncodeConfig, bool, int], Encoder]
"""The models, whether with frames, and the number of threads -> an encoder, in the process where it works."""


@dataclass(frozen=True)
class Reading:
    """How the workers of a run read recordings."""

    config: DecodeConfig
    grid: Grid
    max_hours: float
    """Longer recordings fail."""
    silence_s: float
    """How long a decoder may read and give nothing."""
    s_per_byte: float
    """How long decoding may take for each byte, beside ten minutes."""


class _Encode:
    """An encoder process: loads the models once, then calls the stage. Errors become rows."""

    def __init__(self, load: Load, config: EncodeConfig, with_frames: bool, threads: int) -> None:
        self._error: Exception | None = None
        try:
            self._encoder = load(config, with_frames, threads)
        except Exception as error:  # if it were raised, Ray would start another process, and another
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


def _split(planned: pa.Table, reading: Reading, split: Callable[..., list[Row]] = split_batch) -> pa.Table:
    """Split the batch of a long recording into parts; other tables from ``resources.split_into_tables`` pass."""
    if planned.num_rows > 1:
        return planned
    [row] = planned.to_pylist()
    if is_given_up(row["batch_id"]):
        return planned
    dog = _make_watchdog(row, reading)
    parts = dog.call(lambda: split(row, reading.config, reading.grid, max_hours=reading.max_hours))
    return pa.Table.from_pylist(parts, schema=schema.PLANNED)


def _decode(planned: pa.Table, decode: Decode, reading: Reading, block_windows: int) -> Iterator[pa.Table]:
    keep_freed_memory()
    for row in planned.to_pylist():
        if is_given_up(row["batch_id"]):
            return  # and not go on: a task that is tried again must give what it gave before, or a part up to there
        try:
            began = time.perf_counter()
            tables = decode(row, reading.config, reading.grid, block_windows, reading.max_hours)
            for decoded in _make_watchdog(row, reading).watch(tables):
                yield note_seconds(decoded, "decode", time.perf_counter() - began)
                began = time.perf_counter()  # the time until the encoders want more is not work
        except MemoryError:  # which of its files took too much is found when each is tried alone
            _end(row["batch_id"], TOO_LARGE)
        except Exception as error:
            yield error_row(schema.DECODED, row["batch_id"], error)


def _make_watchdog(planned: Row, reading: Reading) -> Watchdog:
    """A watchdog for the decoding of a PLANNED row, which ends this process."""
    n_bytes = sum(audio["size_bytes"] for audio in planned["audios"])
    limits = Limits.for_bytes(n_bytes, reading.silence_s, reading.s_per_byte)
    return Watchdog(limits, partial(_end, planned["batch_id"], is_final=True))


def _end(batch_id: str, why: str, *, is_final: bool = False) -> None:
    """End this process, whose decoder does not return or lacks memory, and note why.

    Args:
        is_final: whether Ray's next tries leave the batch out.
    """
    note_cause(batch_id, why, is_final=is_final)
    print(f"earshot: batch {batch_id}: {why}: this worker ends", file=sys.stderr, flush=True)
    os._exit(70)


def _write(encoded: pa.Table, path: str, frames_schema: pa.Schema) -> pa.Table:
    from pipeline.index.tables import write_rows

    try:
        began = time.perf_counter()
        receipts = write_windows(encoded, frames_schema, partial(write_rows, path))
        return note_seconds(receipts, "write", time.perf_counter() - began)
    except Exception as error:
        return error_row(schema.RECEIPTS, encoded["batch_id"][0].as_py(), error)


def workers_on_ray(decode: Decode = decode_batch, load: Load = load_for_run) -> Workers:
    """The workers of a Ray cluster: of the one that ``RAY_ADDRESS`` names, or of this machine, started when needed."""

    def stages(batches: pa.Table, config: Config, frames_schema: pa.Schema) -> Iterator[dict[str, Any]]:
        start_ray()  # here, in the main thread, so that Ray can handle signals
        return run_stages(batches, config, frames_schema, decode, load)

    return Workers(stages, count_workers, publish, prepare, RayHealth().find_death, make_on_ray, find_causes)


def prepare(config: Config) -> None:
    """Start Ray, and refuse models or a device with which this machine, or the cluster, cannot work.

    Raises:
        ModelError: a model does not load exactly. UsageError: a GPU is asked for and there is none.
    """
    with ThreadPoolExecutor(1) as pool:  # importing torch and reading weights takes seconds, and so does starting Ray
        checked = pool.submit(check_models, config.encode, frames=config.store.frames == "all")
        start_ray()
        _share(config.encode)
        checked.result()


def _share(config: EncodeConfig) -> Encoders:
    import ray

    return share_machine(ray.cluster_resources(), config, may_grow=may_grow())


def count_workers(config: EncodeConfig) -> dict[str, float]:
    """How many workers of each stage the cluster has room for at present, beside those of the other stages."""
    import ray

    resources, encoders = ray.cluster_resources(), _share(config)
    n_encoders = encoders.fit(resources)
    free = max(1.0, resources.get("CPU", 1.0) - n_encoders * encoders.ray_options["num_cpus"])
    n_writers = count_writers(resources, may_grow=may_grow())
    return {"decode": float(int(free)), "encode": float(n_encoders), "write": float(n_writers)}


_gauges: dict[str, Any] = {}


def publish(record: Record) -> None:
    """Set the metrics that Ray offers to Prometheus, if Ray runs."""
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
    """PLANNED -> RECEIPTS rows, in any order, through decode, encode and write. Ray must have been started.

    Batches whose worker died ``TRIES`` times are missing from the receipts.
    """
    from ray.data import DataContext

    logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # errors reach us as exceptions
    warnings.filterwarnings("ignore", message="The m(in|ax)imum number of concurrent")  # if all batches were lost
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    # A block is lost only with its worker, for errors become rows. The driver sees which batches are missing.
    context.max_errored_blocks = -1
    context.execution_options.verbose_progress = False
    # By default half an hour without a result ends a run. Waiting for a node that long is no reason to fail, nor is a
    # slow CPU. The record shows how long no receipt has come.
    context.execution_no_progress_timeout_s = -1

    with warnings.catch_warnings():
        # Ray 2.63 bounds retries by these arguments only, and is going to rename them.
        warnings.filterwarnings("ignore", message="`ray_remote_args` is deprecated")
        dataset = _connect(batches, config, frames_schema, decode, load)
    try:
        for table in dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
            yield from table.to_pylist()
    finally:
        # Ray ends encoders once nothing refers to them. After an error, tracebacks do, in cycles. The encoders of a run
        # that lost a node would then keep their GPUs, and those that retry the lost batches would wait for ever.
        del dataset
        gc.collect()


def _connect(batches: pa.Table, config: Config, frames_schema: pa.Schema, decode: Decode, load: Load) -> Any:
    """The stages as a Ray dataset. Nothing runs until it is read."""
    import ray
    from ray.data import ActorPoolStrategy, DataContext, TaskPoolStrategy, from_arrow

    [longest] = batches.slice(0, 1).to_pylist()

    resources, grid, arrow = ray.cluster_resources(), config.window.grid, {"batch_format": "pyarrow"}
    encoders = limit_encoders(batches, _share(config.encode), grid)
    run = config.run
    reading = Reading(config.decode, grid, run.max_file_hours, run.decoder_silence_s, run.decoder_s_per_byte)
    n_together = fit_task(batches, resources.get("CPU", 1), may_grow=may_grow())
    planned = from_arrow(batches)
    if is_long(longest):
        planned = from_arrow(split_into_tables(batches, n_together)).map_batches(
            _split,
            batch_size=None,
            num_cpus=SPLIT_CPUS,
            max_retries=TRIES - 1,
            fn_kwargs={"reading": reading},
            **arrow,
        )
    block_windows = fit_windows_per_block(batches, encoders, grid)
    DataContext.get_current().target_max_block_size = fit_block_bytes(block_windows, grid)
    decoding = {"decode": decode, "reading": reading, "block_windows": block_windows}
    decoded = planned.repartition(target_num_rows_per_block=n_together).map_batches(
        _decode, batch_size=n_together, num_cpus=1, max_retries=TRIES - 1, fn_kwargs=decoding, **arrow
    )
    loading = (load, config.encode, config.store.frames == "all", encoders.threads)
    n_calls = fit_calls_in_flight(batches)
    pool = ActorPoolStrategy(min_size=encoders.least, max_size=encoders.most, max_tasks_in_flight_per_actor=n_calls)
    # On GPUs, Ray joins blocks until they have so many rows, or until no more can come.
    n_rows = fit_rows_per_call(batches, encoders, grid, resources.get("object_store_memory", math.inf))
    ray_options = {
        **encoders.ray_options,
        "batch_size": n_rows,
        "compute": pool,
        "max_task_retries": TRIES - 1,
        **arrow,
    }
    encoded = decoded.map_batches(_Encode, fn_constructor_args=loading, zero_copy_batch=True, **ray_options)
    writing = {"path": storage.absolute(config.into), "frames_schema": frames_schema}
    writers = TaskPoolStrategy(count_writers(resources, may_grow=may_grow()))
    ray_options = {"compute": writers, "num_cpus": WRITE_CPUS, "max_retries": TRIES - 1, **arrow}
    return encoded.map_batches(_write, batch_size=None, zero_copy_batch=True, fn_kwargs=writing, **ray_options)
