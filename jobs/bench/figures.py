"""What the measurements share: figures with limits, functions in fresh processes, an encoder that costs nothing."""

import json as jsonlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import typer

from jobs.shared.output import print_json, print_table
from pipeline.grid import HOP_SAMPLES, Waveform

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Figure:
    """A measured value, and the limit that it must stay below, if there is one."""

    measurement: str
    what: str
    value: float
    unit: str
    limit: float | None = None
    detail: str = ""

    @property
    def is_missed(self) -> bool:
        return self.limit is not None and self.value >= self.limit


def measure_and_report(title: str, measurements: Iterable[Callable[[Path], Iterable[Figure]]], *, json: bool) -> None:
    """Print the figures of each measurement as soon as it has ended, with their limits beside them.

    Each is made in a folder of its own.

    Raises:
        typer.Exit: 1, a limit is missed.
    """
    is_missed = False
    for measure in measurements:
        with tempfile.TemporaryDirectory(prefix="earshot-") as folder:
            figures = list(measure(Path(folder)))
        if json:
            print_json({**asdict(figure), "missed": figure.is_missed} for figure in figures)
        else:
            columns = ["", "what", "measured", "limit", "details"]
            print_table(title, columns, map(_show, figures), ["measured"])
        is_missed |= any(figure.is_missed for figure in figures)
    if is_missed:
        raise typer.Exit(1)


def _show(figure: Figure) -> tuple[str, ...]:
    limit = "" if figure.limit is None else f"< {figure.limit:g} {'MISSED' if figure.is_missed else 'ok'}"
    digits = 0 if float(figure.value).is_integer() and figure.unit == "" else 2
    value = f"{figure.value:,.{digits}f} {figure.unit}".strip()
    return figure.measurement, figure.what, value, limit, figure.detail


def call_fresh(function: Callable[..., Any], *arguments: str) -> Any:
    """Call a function of a module in a process of its own, which has done nothing else; returns its result as JSON."""
    program = (
        f"import sys; from {function.__module__} import {function.__name__} as measured\n"
        "from jobs.shared.output import print_json; print_json([measured(*sys.argv[1:])])"
    )
    command = [sys.executable, "-c", program, *arguments]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    return jsonlib.loads(done.stdout)


def read_memory(process: Path = Path("/proc/self")) -> dict[str, int]:
    """Bytes of memory of a process by the kernel's names, such as VmHWM for the peak.

    ``ru_maxrss`` would begin with the memory of the parent.
    """
    lines = (line.split() for line in (process / "status").read_text().splitlines())
    return {words[0].rstrip(":"): int(words[1]) * 1024 for words in lines if words[-1] == "kB"}


def count_reads() -> tuple[int, int]:
    """How often this process has read from files so far, and how many bytes, be they from the system's page cache."""
    lines = (line.split() for line in Path("/proc/self/io").read_text().splitlines())
    counts = {name: int(value) for name, value in lines}
    return counts["syscr:"], counts["rchar:"]


class CheapEncoder:
    """Embeds every window as ones, which takes no time, and waits ``pause_s`` for each window."""

    precision = "float32"

    def __init__(self, dimension: int, pause_s: float = 0.0) -> None:
        self._dimension, self._pause_s = dimension, pause_s

    def encode(self, windows: Sequence[Waveform]) -> tuple[Any, list[Any] | None]:
        time.sleep(self._pause_s * len(windows))
        clips = np.ones((len(windows), self._dimension), np.float32)
        return clips, [np.ones((len(window) // HOP_SAMPLES, self._dimension), np.float32) for window in windows]
