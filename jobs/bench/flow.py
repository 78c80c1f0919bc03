"""Measure what the pipeline costs around the stages: decoding as fast as a bare loop, and next to no padding.

    python -m jobs.bench.flow [--hours 6]

``decode``: stereo flac files through the whole pipeline, with an encoder that does nothing, so that decoding is all
there is to do; beside it, a bare loop in a process for each core: ``soundfile.read``, the mean of the channels, nothing
kept. The pipeline also hashes the bytes, cuts windows, and hands them on. Both count from when their workers have
started. Beside them, ``soundfile.read`` alone, which leaves two channels.

``padding``: of the samples that are encoded, those that no file has.

Ray is told of one core more than there is, for the encoder, which does nothing. The exit code is 1 where a limit is
missed.
"""

import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pyarrow as pa
import typer

import pipeline
from jobs.bench.figures import Figure, report
from jobs.shared.options import Json
from pipeline.config import Config, EncodeConfig, make_config
from pipeline.grid import HOP_SAMPLES, SAMPLE_RATE_HZ, Waveform
from pipeline.run.driver import index_corpus
from pipeline.run.ray_start import start_ray
from pipeline.run.workers import run_stages

FILE_S = 90.7
MOST_TIMES, MOST_PADDED = 1 / 0.8, 1.0  # of a bare loop's time, and percent


def write_files(folder: Path, hours: float) -> list[str]:
    """Flac files of swelling noise in stereo, all different."""
    import soundfile

    n_samples = round(FILE_S * SAMPLE_RATE_HZ)
    loud = np.abs(np.sin(np.linspace(0, 40 * np.pi, n_samples)))[:, None]
    sound = (np.random.default_rng(0).integers(-2_000, 2_000, (n_samples, 2)) * loud).astype(np.int16)
    folder.mkdir()
    paths = []
    for number in range(max(8, round(hours * 3600 / FILE_S))):
        paths.append(str(folder / f"{number:05d}.flac"))
        soundfile.write(paths[-1], np.roll(sound, number, axis=0), SAMPLE_RATE_HZ)
    return paths


def read_bare(paths: Sequence[str]) -> float:
    """Seconds of audio that soundfile reads."""
    import soundfile

    return sum(len(soundfile.read(path, dtype="float32")[0]) for path in paths) / SAMPLE_RATE_HZ


def read_mono(paths: Sequence[str]) -> float:
    """Seconds of audio that a bare loop decodes to what an encoder takes."""
    import soundfile

    return sum(len(soundfile.read(path, dtype="float32")[0].mean(axis=1)) for path in paths) / SAMPLE_RATE_HZ


def measure_loop(read: Callable[[Sequence[str]], float], paths: Sequence[str], cores: int) -> float:
    """Seconds of audio per second, by a process for each core."""
    with ProcessPoolExecutor(cores, get_context("spawn")) as pool:
        list(pool.map(read, [paths[:1]] * 4 * cores))
        began = time.perf_counter()
        audio_s = sum(pool.map(read, [paths[at : at + 4] for at in range(0, len(paths), 4)]))
        return audio_s / (time.perf_counter() - began)


class NoEncoder:
    """Embeddings of nothing, for nothing."""

    precision = "float32"

    def __init__(self, dimension: int) -> None:
        self._dimension = dimension

    def encode(self, windows: Sequence[Waveform]) -> tuple[Any, None]:
        return np.ones((len(windows), self._dimension), np.float32), None


def load_nothing(config: EncodeConfig, with_frames: bool, threads: int, dimension: int) -> NoEncoder:
    """In place of ``encoder.load_for_run``."""
    return NoEncoder(dimension)


def measure_flow(folder: Path, into: Path) -> tuple[float, float]:
    """Seconds of audio per second, and of the samples encoded the share that is padding, in percent."""
    values = {"encode": {"actors": 1}, "store": {"frames": "none"}}

    def stages(batches: pa.Table, config: Config, frames_schema: pa.Schema) -> Iterator[dict[str, Any]]:
        load = partial(load_nothing, dimension=frames_schema.field("vector").type.list_size)
        return run_stages(batches, config, frames_schema, load=load)

    progress = index_corpus(make_config({"sources": [str(folder)], "into": str(into), **values}), stages=stages)
    files = pipeline.open(str(into)).to_arrow("files", ["duration_s"]).to_pylist()
    samples = [round(row["duration_s"] * SAMPLE_RATE_HZ) for row in files]
    padded = sum(-n % HOP_SAMPLES for n in samples)
    shutil.rmtree(into)
    return progress.speed, 100 * padded / (sum(samples) + padded)


def main(
    hours: Annotated[float, typer.Option(help="Of audio.")] = 6.0,
    rounds: Annotated[int, typer.Option(min=1)] = 3,
    json: Json = False,
) -> None:
    """Print what was measured."""
    cores = len(os.sched_getaffinity(0))
    start_ray(num_cpus=cores + 1)
    with tempfile.TemporaryDirectory(prefix="earshot-") as scratch:
        folder = Path(scratch)
        paths = write_files(folder / "in", hours)
        bare, loop, flow, padded = [], [], [], 0.0
        for _ in range(rounds):
            bare.append(measure_loop(read_bare, paths, cores))
            loop.append(measure_loop(read_mono, paths, cores))
            speed, padded = measure_flow(folder / "in", folder / "index")
            flow.append(speed)
    shares = [one / other for one, other in zip(flow, loop, strict=True)]
    detail = f"{np.median(flow):,.0f} x real time beside {np.median(loop):,.0f}; soundfile alone {np.median(bare):,.0f}"
    figures = [
        Figure("decode", "time, bare loops taking 1", 1 / float(np.median(shares)), "", MOST_TIMES, detail),
        Figure("padding", f"of what is encoded, files of {FILE_S} s", padded, "%", MOST_PADDED),
    ]
    report("what the pipeline costs around its stages", figures, json=json)


if __name__ == "__main__":
    typer.run(main)
