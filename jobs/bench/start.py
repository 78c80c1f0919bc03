"""Measure what starting costs: a run to its first decoded window, a run with nothing to do, and queries.

    python -m jobs.bench start [--model earshot-tiny] [--rounds 5]

Each command runs in fresh processes; the figures are medians. The query takes turns with two bare processes: one only
imports torch, the other imports torch, transformers' ModernBERT and lancedb, loads the text tower and embeds one text.
The exit code is 1 where a limit is missed.
"""

import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from jobs.bench.figures import Figure, measure_and_report
from jobs.bench.sounds import make_sounds, write_sounds
from jobs.shared.options import Json

if TYPE_CHECKING:
    import pyarrow as pa

    from pipeline.config import DecodeConfig
    from pipeline.grid import Grid

FILES = 20
TEXT = "a dog barking"
EARSHOT = [sys.executable, "-m", "jobs.main"]

MARKED = """
import sys
from functools import partial
from jobs.bench.start import decode_first
from jobs.main import main
from pipeline.run import workers

main(obj=workers.workers_on_ray(decode=partial(decode_first, mark=sys.argv.pop(1))))
"""
"""``earshot`` with ``decode_first`` as its decoder. The first argument is the file for the mark."""

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
    row: dict[str, Any], config: "DecodeConfig", grid: "Grid", *limits: Any, mark: str
) -> "Iterator[pa.Table]":
    """``decode_batch``, which also writes the time of the first table of windows to ``mark``."""
    from pipeline.run.decode_stage import decode_batch

    for table in decode_batch(row, config, grid, *limits):
        if not os.path.exists(mark):
            Path(mark).write_text(str(time.time()))
        yield table


def measure(folder: Path, model: str, rounds: int) -> Iterator[Figure]:
    """All figures, as they become known."""
    from pipeline.encoder.checkpoint import find_checkpoint

    yield Figure("earshot --help", "", _median([*EARSHOT, "--help"], rounds), "s", 0.5)

    sounds, index = write_sounds(folder / "sounds", make_sounds(FILES, 10.0)), folder / "index"
    waits = []
    for number in range(rounds):
        mark, into = folder / f"mark-{number}", index if number == 0 else folder / f"index-{number}"
        options = ["--into", str(into), "--model", model, "--json"]
        began = time.time()
        _call([sys.executable, "-c", MARKED, str(mark), "index", str(sounds), *options])
        waits.append(float(mark.read_text()) - began)
    yield Figure("earshot index", "first window is decoded", statistics.median(waits), "s", 12)
    again = [*EARSHOT, "index", str(sounds), "--into", str(index)]
    yield Figure("earshot index", f"again, of {FILES} files none is new", _median(again, rounds), "s", 8)

    by_transformers = [sys.executable, "-c", BARE, str(find_checkpoint(model, None).folder)]
    commands = ([*EARSHOT, "query", str(index), TEXT], by_transformers, [sys.executable, "-c", "import torch"])
    for command in commands:  # the first process of each reads files that the system caches
        _call(command)
    turns = [tuple(map(_cost, commands)) for _ in range(rounds)]
    query, bare, torch = (Cost(*map(statistics.median, zip(*costs, strict=True))) for costs in zip(*turns, strict=True))
    for what, of in (("importing torch", torch), ("embedding a text by transformers", bare)):
        detail = f"{query.elapsed_s:.2f} s / {of.elapsed_s:.2f} s"
        detail += f"; processor time {query.processor_s:.2f} s / {of.processor_s:.2f} s"
        yield Figure("earshot query", f"beside {what}", query.elapsed_s / of.elapsed_s, "", 1.67, detail)
    yield Figure("pipeline.open(...).search", "in a process that stays up", _search_ms(str(index), rounds), "ms", 50)


class Cost(NamedTuple):
    """The seconds that a command took, and those of processors, which a busy machine changes less."""

    elapsed_s: float
    processor_s: float


def _cost(command: list[str]) -> Cost:
    before, began = _processor_s(), time.perf_counter()
    _call(command)
    return Cost(time.perf_counter() - began, _processor_s() - before)


def _processor_s() -> float:
    """Of the processes that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _call(command: list[str]) -> None:
    subprocess.run(command, check=True, capture_output=True)


def _median(command: list[str], rounds: int) -> float:
    _call(command)
    return statistics.median(_cost(command).elapsed_s for _ in range(rounds))


def _search_ms(into: str, rounds: int) -> float:
    """Milliseconds of a search with words that were not asked before."""
    import pipeline

    index, times = pipeline.open(into), []
    index.search(TEXT)
    for number in range(10 * rounds):
        began = time.perf_counter()
        index.search(f"{TEXT}, {number} of them")
        times.append(time.perf_counter() - began)
    return 1000 * statistics.median(times)


def start(
    model: Annotated[str, typer.Option(help="As in `earshot index`.")] = "earshot-tiny",
    rounds: Annotated[int, typer.Option(min=1, help="Processes of each kind.")] = 5,
    json: Json = False,
) -> None:
    """Measure how long commands take to start: two minutes."""
    measure_and_report("what starting costs", [partial(measure, model=model, rounds=rounds)], json=json)
