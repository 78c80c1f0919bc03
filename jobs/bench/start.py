"""Measure what starting costs: a run to its first decoded window, a run with nothing to do, and queries.

    python -m jobs.bench.start [--model earshot-tiny] [--rounds 5]

Each command runs in fresh processes; medians. The query is compared with a bare process, by turns, that imports torch,
transformers' ModernBERT and lancedb, loads the text tower and embeds one text. The exit code is 1 where a limit is
missed.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from jobs.bench.figures import Figure, report
from jobs.shared.options import Json

if TYPE_CHECKING:
    import pyarrow as pa

    from pipeline.config import DecodeConfig
    from pipeline.grid import Grid

FILES = 20
TEXT = "a dog barking"
MARK = "EARSHOT_MEASURE_MARK"
"""Environment variable: the file that says when the first window was decoded."""

EARSHOT = [sys.executable, "-m", "jobs.main"]

BARE = f"""
import sys
import lancedb
import torch
from transformers import AutoConfig, AutoTokenizer, ModernBertModel
from transformers.utils import logging
logging.set_verbosity_error()
folder = sys.argv[1]
config = AutoConfig.from_pretrained(folder, trust_remote_code=False).text_config
names = {{r"^text_model\\.": ""}}
model = ModernBertModel.from_pretrained(folder, config=config, key_mapping=names, trust_remote_code=False)
tokens = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)([{TEXT!r}], return_tensors="pt")
with torch.inference_mode():
    model.eval()(**tokens)
"""


def decode_first(
    row: dict[str, Any], config: "DecodeConfig", grid: "Grid", block_windows: int, *, mark: str
) -> "Iterator[pa.Table]":
    """``decode_batch`` that writes the time down, once, when the first table of windows has been made."""
    from pipeline.run.stages import decode_batch

    for table in decode_batch(row, config, grid, block_windows):
        if not os.path.exists(mark):
            Path(mark).write_text(str(time.time()))
        yield table


def index_here(sources: str, into: str, model: str) -> None:
    """``earshot index``, with the mark."""
    from jobs import main
    from jobs.bench.start import decode_first as decode  # workers find it by this name, not by that of a program
    from pipeline.run import workers

    workers.run_stages = partial(workers.run_stages, decode=partial(decode, mark=os.environ[MARK]))
    sys.argv = ["earshot", "index", sources, "--into", into, "--model", model, "--json"]
    main.main()


def measure(model: str, rounds: int, folder: Path) -> Iterator[Figure]:
    """All, as they become known."""
    from pipeline.encoder.checkpoint import find_checkpoint

    yield Figure("earshot --help", "", _median([*EARSHOT, "--help"], rounds), "s", 0.5)

    sounds, index = _write_sounds(folder / "sounds"), folder / "index"
    waits = []
    for number in range(rounds):
        mark, into = folder / f"mark-{number}", index if number == 0 else folder / f"index-{number}"
        command = [sys.executable, "-m", "jobs.bench.start", "--here", str(sounds), str(into), "--model", model]
        began = time.time()
        _call(command, {MARK: str(mark)})
        waits.append(float(mark.read_text()) - began)
    yield Figure("earshot index", "first window is decoded", statistics.median(waits), "s", 12)
    again = [*EARSHOT, "index", str(sounds), "--into", str(index)]
    yield Figure("earshot index", f"again, of {FILES} files none is new", _median(again, rounds), "s", 8)

    asked = [*EARSHOT, "query", str(index), TEXT]
    bare = [sys.executable, "-c", BARE, str(find_checkpoint(model, None).folder)]
    for command in (asked, bare):  # what is read for the first time
        _call(command)
    pairs = [(_call(asked), _call(bare)) for _ in range(rounds)]
    asked_s, bare_s = (statistics.median(times) for times in zip(*pairs, strict=True))
    detail = f"{asked_s:.2f} s / {bare_s:.2f} s"
    yield Figure("earshot query", "beside a bare process", asked_s / bare_s, "", 1.25, detail)
    yield Figure("pipeline.open(...).search", "in a process that stays up", _search_ms(str(index), rounds), "ms", 50)


def _call(command: list[str], environment: dict[str, str] | None = None) -> float:
    """Seconds."""
    began = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True, env={**os.environ, **(environment or {})})
    return time.perf_counter() - began


def _median(command: list[str], rounds: int) -> float:
    _call(command)
    return statistics.median(_call(command) for _ in range(rounds))


def _search_ms(into: str, rounds: int) -> float:
    """A search with words that were not asked before."""
    import pipeline

    index, times = pipeline.open(into), []
    index.search(TEXT)
    for number in range(10 * rounds):
        began = time.perf_counter()
        index.search(f"{TEXT}, {number} of them")
        times.append(time.perf_counter() - began)
    return 1000 * statistics.median(times)


def _write_sounds(folder: Path) -> Path:
    import numpy as np
    import soundfile

    from jobs.tiny.synth import draw_scene

    folder.mkdir()
    rng = np.random.default_rng(6)
    for number in range(FILES):
        soundfile.write(folder / f"{number:02d}.wav", draw_scene(rng, 10.0)[0], 48_000)
    return folder


def main(
    model: Annotated[str, typer.Option(help="As in `earshot index`.")] = "earshot-tiny",
    rounds: Annotated[int, typer.Option(min=1, help="Processes of each kind.")] = 5,
    json: Json = False,
    here: Annotated[tuple[str, str] | None, typer.Option(hidden=True)] = None,  # what a fresh process measures
) -> None:
    """Print what starting costs, with the limits beside it."""
    if here is not None:
        index_here(*here, model)
        return
    with tempfile.TemporaryDirectory(prefix="earshot-start-") as folder:
        report("what starting costs", list(measure(model, rounds, Path(folder))), json=json)


if __name__ == "__main__":
    typer.run(main)
