"""The speed of each stage of a run by itself on this machine: decode, encode, write, in seconds of audio per second."""

import math
import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from threading import BrokenBarrierError
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.schema import Row

if TYPE_CHECKING:
    from pipeline.config import Config
    from pipeline.grid import Grid, Waveform
    from pipeline.run.resources import Encoders

MOST_S = 60.0
"""Seconds of a file that are decoded, and held for the encoder."""

LEAST_S = 4.0
"""A stage is measured for at least this long."""


@dataclass(frozen=True)
class Decoded:
    """A decoded file: its format, seconds of audio and of core time, and its windows."""

    uri: str
    codec: str
    audio_s: float
    cpu_s: float
    windows: "list[Waveform]"


def shorten(row: Row) -> Row:
    """The LISTED row, or one of the first minute where the recording seems to be longer than two."""
    from pipeline.corpus.corpus_file import CorpusFile
    from pipeline.corpus.time_ranges import TimeRange, range_of, recording_of

    if CorpusFile.of_listed(row).estimated_s <= 2 * MOST_S:
        return row
    part: TimeRange = range_of(row).narrow(0.0, MOST_S)
    return {**row, "uri": f"{recording_of(row)}{part}", "start_s": part.start_s, "end_s": part.end_s}


def decode_files(rows: Sequence[Row], config: "Config") -> Iterator[Decoded]:
    """Decode LISTED rows by the stage of a run, without hashing them. Broken files are left out."""
    from pipeline.corpus.corpus_file import CorpusFile
    from pipeline.planning.batches import pack
    from pipeline.run.decode_stage import decode_batch

    for row in rows:
        file = CorpusFile.of_listed(row)
        file.content_hash = "0" * 64
        [planned] = pack([[file]], config.run.batch_s, "0" * 32).to_pylist()
        began, windows, files = time.process_time(), [], []
        for table in decode_batch(planned, config.decode, config.window.grid):
            for found in table.to_pylist():
                if found["files"] is None:
                    windows.append(np.frombuffer(found["pcm"], np.float32))
                else:
                    files += found["files"]
        took = time.process_time() - began
        if files and files[0]["status"] == "indexed":
            yield Decoded(row["uri"], files[0]["codec"] or "?", files[0]["duration_s"], took, windows)


RAY_SHARE = 0.7
"""Ray gives this share of the free memory to processes; the rest is for the blocks between them."""


def machine_resources(device: str) -> dict[str, float]:
    """The resources that Ray would find on this machine, without starting it; for ``share_machine``."""
    import torch
    from ray._private.utils import estimate_available_memory

    gpus = torch.cuda.device_count() if device == "cuda" else 0
    cores = max(2, len(os.sched_getaffinity(0)))
    return {"CPU": cores, "GPU": gpus, "memory": RAY_SHARE * estimate_available_memory()}


def count_gpus(encoders: "Encoders") -> int:
    """The number of GPUs that these encoder processes hold."""
    return math.ceil(encoders.most * float(encoders.ray_options.get("num_gpus", 0.0)) - 1e-9)


def encode_speed(
    config: "Config",
    windows: "Sequence[Waveform]",
    precision: str,
    batch: int,
    encoders: "Encoders",
    least_s: float = LEAST_S,
) -> tuple[float, float]:
    """Seconds of windows encoded per second by all processes of a run together, each with its threads or its share of
    the GPUs, and how many windows of 10 s their batches held: fewer than ``batch`` where that did not fit.

    The speed in files is lower: the audio that consecutive windows share is encoded twice.

    Raises:
        RuntimeError: not even one window fits (``batching.is_out_of_memory``), or another error of torch.
    """
    from pipeline.grid import SAMPLE_RATE_HZ
    from pipeline.run.resources import CALL_S

    settings = config.encode.model_copy(update={"precision": precision, "batch_windows": batch})
    frames, n_processes = config.store.frames == "all", encoders.most
    gpus = list_gpus(count_gpus(encoders))
    context = get_context("spawn")
    barrier = context.Barrier(n_processes)
    # A run gives a GPU several batches at once: it works on one while others are copied.
    n_windows = max(batch, int(CALL_S * SAMPLE_RATE_HZ / len(windows[0]))) if gpus else batch
    some = [windows[i % len(windows)] for i in range(n_windows)]
    calls = [
        (settings, frames, some, encoders.threads, gpus[i % len(gpus)] if gpus else None, least_s)
        for i in range(n_processes)
    ]
    with ProcessPoolExecutor(n_processes, context, initializer=_hold, initargs=(barrier,)) as pool:
        speeds, held = zip(*pool.map(_encode_here, *zip(*calls, strict=True)), strict=True)
    return sum(speeds), min(held)


def list_gpus(count: int) -> list[str]:
    """The first ``count`` GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return (visible.split(",") if visible else [str(i) for i in range(count)])[:count]


_barrier: Any = None


def _hold(barrier: Any) -> None:
    global _barrier
    _barrier = barrier


def _encode_here(
    settings: Any, frames: bool, windows: "Sequence[Waveform]", threads: int, gpu: str | None, least_s: float
) -> tuple[float, float]:
    """Seconds of windows encoded per second in this process, at the same time as the others, and windows in a batch."""
    if gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu  # before torch is loaded
    from pipeline.encoder.encoder import load_for_run
    from pipeline.grid import SAMPLE_RATE_HZ

    try:
        encoder: Any = load_for_run(settings, frames, threads)
        encoder.encode(windows)
    except BaseException:
        _barrier.abort()  # or the others would wait for ever
        raise
    try:
        _barrier.wait()
    except BrokenBarrierError:  # another process raises the error
        return 0.0, 0.0
    began, n_samples = time.perf_counter(), 0
    while (took := time.perf_counter() - began) < least_s or not n_samples:
        encoder.encode(windows)
        n_samples += sum(map(len, windows))
    return n_samples / SAMPLE_RATE_HZ / took, encoder.batch_windows


def write_speed(into: str, dimension: int, grid: "Grid", least_s: float = LEAST_S) -> float:
    """Seconds of audio whose frames and pools are written per second, a fragment for each block of windows."""
    from pipeline import schema
    from pipeline.grid import FRAME_S
    from pipeline.index.frame_rows import frame_rows
    from pipeline.index.pools import pool_rows
    from pipeline.index.tables import write_rows
    from pipeline.run.decode_stage import windows_per_block

    rng, frames_schema = np.random.default_rng(0), schema.frames_schema(dimension)
    windows = [rng.normal(0, 1, (grid.length_frames, dimension)).astype(np.float16)] * windows_per_block(grid)
    began, n_written = time.perf_counter(), 0
    while (took := time.perf_counter() - began) < least_s or not n_written:
        rows = [frame_rows("0" * 32, "0" * 32, 0, vectors, frames_schema) for vectors in windows]
        write_rows(into, "frames", rows)
        write_rows(into, "pools", [pool_rows(own) for own in rows])
        n_written += sum(own.num_rows for own in rows)
    return n_written * FRAME_S / took


def by_format(decoded: Sequence[Decoded]) -> dict[str, tuple[int, float]]:
    """For each format, the number of files, and seconds of audio decoded per second of one core."""
    found: dict[str, tuple[int, float]] = {}
    for codec in sorted({each.codec for each in decoded}):
        some = [each for each in decoded if each.codec == codec]
        found[codec] = len(some), sum(each.audio_s for each in some) / max(1e-9, sum(each.cpu_s for each in some))
    return found
