"""Measure what reindexing costs.

    python -m jobs.bench reindex                     # both: takes about five minutes
    python -m jobs.bench reindex plan change

``plan``: 100,000 small files, all unchanged. A fresh process plans them, another one runs; seconds and memory count
from when its modules are loaded. The files lie in 1,000 folders, 8 to 23 bytes each; their rows were committed without
decoding anything, with one clip and one frame each.

``change``: 30 of 3,000 files of 1 s get other bytes of the same length: the worst case, since they must be hashed.
Indexing the changed corpus is compared with indexing the 30 files into an index of their own. The tables of that index
exist before the clock starts: checking models and creating tables would only flatter the ratio. The stages run in this
process, without Ray, which would take longer to start than everything that is measured. The first round uses the
bundled model, already loaded; the second an encoder that takes no time, so that only reading, planning and committing
are left. Each is measured in both orders.

The exit code is 1 where a limit is missed.
"""

import hashlib
import os
import shutil
import statistics
import tempfile
import time
import uuid
import wave
from collections.abc import Iterator, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pyarrow as pa
import typer

from jobs.bench.figures import Figure, call_fresh, indexed_row, make_batch, report
from jobs.shared.options import Json
from pipeline.config import Config, anchor, make_config
from pipeline.grid import HOP_SAMPLES, Waveform
from pipeline.index.maintenance import refresh_indexes
from pipeline.index.tables import create_tables, write_frames
from pipeline.index.writer import Writer
from pipeline.run.dispatch import Stages
from pipeline.run.driver import index_corpus
from pipeline.run.prepare import describe_run, plan_corpus
from pipeline.schema import Row

FILES_PER_FOLDER = 100
CHANGED_FRACTION = 0.01


class What(StrEnum):
    """A measurement; the module describes each."""

    plan = "plan"
    change = "change"


def reindex(
    what: Annotated[list[What] | None, typer.Argument(help="Measurements; by default both.")] = None,
    scale: Annotated[float, typer.Option(min=0.001, help="Fraction of the files, to try it out.")] = 1.0,
    json: Json = False,
) -> None:
    """Measure reindexing a corpus that has not changed, and one where 1 % has: five minutes."""
    figures: list[Figure] = []
    measurements = {What.plan: measure_plan, What.change: measure_change}
    for each in what or list(What):
        with tempfile.TemporaryDirectory() as folder:
            figures += measurements[each](Path(folder), scale)
    report("what reindexing costs", figures, json=json)


# --- plan -------------------------------------------------------------------------------------------------------------


def measure_plan(folder: Path, scale: float = 1.0) -> list[Figure]:
    """Time and memory of planning 100,000 unchanged files, and of a run over them."""
    config = make_config({"sources": [str(folder / "in")], "into": str(folder / "index")})
    n_files = _note_files(config, _write_small_files(folder / "in", round(1000 * scale)))
    figures = []
    for what, limit_s, limit_mb in (("plan", 15.0, 1000.0), ("run", None, None)):
        measured = call_fresh(measure_here, what, config.sources[0], config.into)
        if measured["n_unchanged"] != n_files or measured["n_others"]:
            raise SystemExit(f"{what}: {n_files:,} files should be unchanged, and not {measured}")
        figures += [
            Figure("plan", f"{what}: {n_files:,} unchanged files", measured["seconds"], "s", limit_s),
            Figure("plan", f"{what}: peak memory after start-up", measured["extra_bytes"] / 1e6, "MB", limit_mb),
            Figure("plan", f"{what}: peak memory in all", measured["peak_bytes"] / 1e6, "MB"),
        ]
    return figures


def measure_here(what: str, source: str, into: str) -> dict[str, float]:
    """Plan an unchanged corpus, or run over it, in this process, which should have done nothing else."""
    config = make_config({"sources": [source], "into": into})
    start_bytes = _read_status("VmRSS")
    begin_s = time.monotonic()
    if what == "plan":
        plan = plan_corpus(config)
        n_unchanged, n_others = plan.n_unchanged, len(plan.actions) - plan.n_unchanged
    else:
        progress = index_corpus(config)
        n_unchanged, n_others = progress.n_unchanged, progress.n_files + progress.n_deleted - progress.n_unchanged
    seconds, peak_bytes = time.monotonic() - begin_s, _read_status("VmHWM")
    return {
        "seconds": seconds,
        "extra_bytes": peak_bytes - start_bytes,
        "peak_bytes": peak_bytes,
        "n_unchanged": n_unchanged,
        "n_others": n_others,
    }


def _read_status(name: str) -> int:
    """Bytes of memory, as the kernel counts them: ``ru_maxrss`` would begin with the memory of the parent."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith(f"{name}:"))


def _write_small_files(folder: Path, n_folders: int) -> Iterator[Row]:
    """Write the files, and yield the ledger row of each. Their sizes are not all equal, nor all distinct."""
    for number in range(n_folders * FILES_PER_FOLDER):
        path = folder / f"{number // FILES_PER_FOLDER:04d}" / f"{number % FILES_PER_FOLDER:03d}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        data = f"{number:08d}".encode() + b"." * (number % 16)
        path.write_bytes(data)
        row = indexed_row(str(path), hashlib.sha256(data).hexdigest(), n_frames=1)
        yield row | {"size_bytes": len(data), "modified_ns": path.stat().st_mtime_ns}


def _note_files(config: Config, rows: Iterator[Row]) -> int:
    """Commit these rows as a run over the files would; returns their number."""
    settings, dimension, _ = describe_run(config)
    create_tables(config.into, settings, clip_dimension=dimension, frame_dimension=dimension)
    writer = Writer(config.into, uuid.uuid4().hex)
    writer.configure(anchor(config).model_dump(mode="json"))
    listed = list(rows)
    rng = np.random.default_rng(1)
    for first in range(0, len(listed), 10_000):
        part = listed[first : first + 10_000]
        vectors = rng.standard_normal((len(part), dimension)).astype(np.float16)
        writer.commit([make_batch(config.into, f"{first:032d}", part, vectors)])
    refresh_indexes(writer)
    return len(listed)


# --- change -----------------------------------------------------------------------------------------------------------


def measure_change(folder: Path, scale: float = 1.0) -> list[Figure]:
    """A run after 1 % of the files have changed, against indexing that 1 % alone."""
    from pipeline.config import EncodeConfig
    from pipeline.encoder.encoder import load_encoder

    paths = [folder / "in" / f"{number:05d}.wav" for number in range(round(3000 * scale))]
    for seed, path in enumerate(paths):
        _write_noise(path, seed)
    config = make_config({"sources": [str(folder / "in")], "into": str(folder / "index")})
    _, dimension, _ = describe_run(config)
    no_time = _run_here(_NoTimeEncoder(dimension))
    index_corpus(config, stages=no_time)
    figures = []
    encoders = {
        "bundled model": (_run_here(load_encoder(EncodeConfig(device="cpu"))), 6, 1.3),
        "encoder of no time": (no_time, 20, None),
    }
    for name, (stages, n_rounds, limit) in encoders.items():
        changed, alone = _measure_changes(config, paths, stages, n_rounds)
        ratio = statistics.median(a / b for a, b in zip(changed, alone, strict=True))
        detail = f"{statistics.median(changed):.2f} s, alone {statistics.median(alone):.2f} s; median of {n_rounds}"
        what = f"{name}: {round(len(paths) * CHANGED_FRACTION)} of {len(paths):,} files"
        figures.append(Figure("change", what, ratio, "x", limit, detail))
    return figures


def _measure_changes(
    config: Config, paths: Sequence[Path], stages: Stages, n_rounds: int
) -> tuple[list[float], list[float]]:
    """Seconds of each round: of the changed corpus, and of the changed files alone. They take turns in going first;
    a round before the others is not counted."""
    n_changed = round(len(paths) * CHANGED_FRACTION)
    apart = Path(config.into).parent / "alone"
    alone = config.model_copy(update={"sources": (str(apart / "in"),), "into": str(apart / "index")})
    settings, dimension, _ = describe_run(config)
    seconds: dict[str, list[float]] = {config.into: [], alone.into: []}
    for number in range(n_rounds + 1):
        (apart / "in").mkdir(parents=True)
        create_tables(alone.into, settings, clip_dimension=dimension, frame_dimension=dimension)
        for path in (chosen := paths[number::n_rounds][:n_changed]):
            _write_noise(path, time.time_ns())
            os.link(path, apart / "in" / path.name)
        for run in (config, alone) if number % 2 else (alone, config):
            begin_s = time.monotonic()
            progress = index_corpus(run, stages=stages)
            seconds[run.into].append(time.monotonic() - begin_s)
            if progress.n_indexed != len(chosen):
                raise SystemExit(f"{len(chosen)} files should be indexed, and not {progress}")
        shutil.rmtree(apart)
    return seconds[config.into][1:], seconds[alone.into][1:]


def _write_noise(path: Path, seed: int) -> None:
    """One second of noise, 16 bits at 48 kHz."""
    path.parent.mkdir(exist_ok=True)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(48_000)
        file.writeframes(np.random.default_rng(seed).integers(-8000, 8000, 48_000, np.int16).tobytes())


class _NoTimeEncoder:
    """Embeds every window as ones."""

    precision = "float32"

    def __init__(self, dimension: int) -> None:
        self._dimension = dimension

    def encode(self, windows: Sequence[Waveform]) -> tuple[Any, list[Any] | None]:
        frames = [np.ones((len(window) // HOP_SAMPLES, self._dimension), np.float32) for window in windows]
        return np.ones((len(windows), self._dimension), np.float32), frames


def _run_here(encoder: Any) -> Stages:
    """Stages in this process, one batch after the other."""
    from pipeline.run.decode_stage import decode_batch
    from pipeline.run.encode_stage import encode_windows
    from pipeline.run.write_stage import write_windows

    def stages(batches: pa.Table, config: Config, frames_schema: pa.Schema) -> Iterator[Row]:
        for planned in batches.to_pylist():
            for block in decode_batch(planned, config.decode, config.window.grid):
                yield from write_windows(
                    encode_windows(block, encoder),
                    frames_schema,
                    lambda rows: write_frames(config.into, rows, frames_schema),
                ).to_pylist()

    return stages
