"""Measure what a run costs after a few files of a corpus have changed.

    python -m jobs.bench reindex                     # takes about four minutes

30 of 3,000 files of 1 s get other bytes of the same length: the worst case, since they must be hashed. Indexing the
changed corpus is compared with indexing the 30 files into an index of their own. The tables of that index exist before
the clock starts: checking models and creating tables would only flatter the ratio. The stages run in this process,
without Ray, which would take longer to start than everything that is measured. The first round uses the bundled model,
already loaded; the second an encoder that takes no time, so that only reading, planning and committing are left. Each
is measured in both orders.

The exit code is 1 where a limit is missed.
"""

import os
import shutil
import statistics
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pyarrow as pa
import typer

from jobs.bench.figures import CheapEncoder, Figure, measure_and_report
from jobs.shared.options import Json
from pipeline.config import Config, make_config
from pipeline.index.tables import create_tables, write_rows
from pipeline.run.dispatch import Stages
from pipeline.run.driver import index_corpus
from pipeline.run.prepare import describe_run
from pipeline.schema import Row

CHANGED_FRACTION = 0.01


def measure_change(folder: Path, scale: float = 1.0) -> list[Figure]:
    """A run after 1 % of the files have changed, against indexing that 1 % alone."""
    from pipeline.config import EncodeConfig
    from pipeline.encoder.encoder import load_encoder

    paths = [folder / "in" / f"{number:05d}.wav" for number in range(round(3000 * scale))]
    for seed, path in enumerate(paths):
        _write_noise(path, seed)
    config = make_config({"sources": [str(folder / "in")], "into": str(folder / "index")})
    _, dimension, _ = describe_run(config)
    no_time = _run_here(CheapEncoder(dimension))
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
    import soundfile

    path.parent.mkdir(exist_ok=True)
    soundfile.write(path, np.random.default_rng(seed).integers(-8000, 8000, 48_000, np.int16), 48_000)


def _run_here(encoder: Any) -> Stages:
    """Stages in this process, one batch after the other."""
    from pipeline.run.decode_stage import decode_batch
    from pipeline.run.encode_stage import encode_windows
    from pipeline.run.write_stage import write_windows

    def stages(batches: pa.Table, config: Config, frames_schema: pa.Schema) -> Iterator[Row]:
        for planned in batches.to_pylist():
            for block in decode_batch(planned, config.decode, config.window.grid):
                encoded = encode_windows(block, encoder)
                yield from write_windows(encoded, frames_schema, partial(write_rows, config.into)).to_pylist()

    return stages


def reindex(
    scale: Annotated[float, typer.Option(min=0.001, help="Fraction of the files, to try it out.")] = 1.0,
    json: Json = False,
) -> None:
    """Measure a run over a corpus of which 1 % has changed: four minutes."""
    measure_and_report("what reindexing costs", [partial(measure_change, scale=scale)], json=json)
