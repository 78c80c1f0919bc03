"""Measure encoding on a CPU: speed per core, with and without ``keep_freed_memory``, which indexing switches on.

    python -m jobs.bench.encode [--model earshot-tiny]

Windows of 10 s of synthetic sound go through the clip model and its frames, as in an index, in passes of two windows
with one thread. The two ways take turns, each time in a fresh process, since kept memory cannot be given up again.
Printed for each: seconds of audio encoded per CPU second, the median over all passes and the range of the middle half.
"""

import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from jobs.shared.options import Json
from jobs.shared.output import print_json, print_line, print_table

WINDOW_S = 10.0
PASS_WINDOWS = 2
N_PASSES = 10
WARM_UP_PASSES = 2

Keep = Annotated[bool | None, typer.Option("--keep/--give-back", hidden=True)]  # the fresh process: speeds out


def measure(
    model: Annotated[str, typer.Option(help="As in `earshot index`.")] = "earshot-tiny",
    rounds: Annotated[int, typer.Option(min=1, help=f"Processes of each kind, {N_PASSES} passes in each.")] = 3,
    json: Json = False,
    keep: Keep = None,
) -> None:
    """Print seconds of audio encoded per second and core."""
    if keep is not None:
        print_line(" ".join(map(str, measure_here(model, keep))))
        return
    speeds: dict[bool, list[float]] = {False: [], True: []}
    for _ in range(rounds):
        for kept, measured in speeds.items():
            measured += _measure_fresh(model, kept)
    base = statistics.median(speeds[False])
    rows = []
    for kept, measured in speeds.items():
        low, median, high = statistics.quantiles(measured, n=4)
        rows.append({"keep": kept, "x_real_time": median, "low": low, "high": high, "ratio": median / base})
    if json:
        print_json(rows)
        return
    columns = ["freed memory", "x real time", "middle half", "ratio"]
    values = [
        (
            "kept" if row["keep"] else "given back",
            f"{row['x_real_time']:.1f}",
            f"{row['low']:.1f} to {row['high']:.1f}",
            f"{row['ratio']:.2f}",
        )
        for row in rows
    ]
    print_table(f"{model}: audio encoded per second of one core", columns, values, columns[1:])


def measure_here(model: str, keep: bool) -> list[float]:
    """Speed of each pass in this process, in seconds of audio per CPU second."""
    import torch

    from jobs.tiny.synth import draw_scene
    from pipeline.config import EncodeConfig
    from pipeline.encoder.encoder import load_encoder
    from pipeline.encoder.malloc import keep_freed_memory

    torch.set_num_threads(1)
    if keep and not keep_freed_memory():
        raise SystemExit("this C library cannot be told to keep freed memory: it is not glibc")
    encoder = load_encoder(EncodeConfig(clip_model=model, device="cpu", batch_windows=PASS_WINDOWS))
    encoder.compile()
    rng = np.random.default_rng(5)
    windows = [draw_scene(rng, WINDOW_S)[0] for _ in range(PASS_WINDOWS)]
    speeds = []
    for _ in range(WARM_UP_PASSES + N_PASSES):
        begin_s = time.process_time()
        encoder.encode(windows)
        speeds.append(PASS_WINDOWS * WINDOW_S / (time.process_time() - begin_s))
    return speeds[WARM_UP_PASSES:]


def _measure_fresh(model: str, keep: bool) -> list[float]:
    way = "--keep" if keep else "--give-back"
    command = [sys.executable, "-m", "jobs.bench.encode", "--model", model, way]
    root = Path(__file__).parents[2]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=root)
    return [float(speed) for speed in done.stdout.split()]


if __name__ == "__main__":
    typer.run(measure)
