"""Measure what long recordings and uneven corpora do to workers and their memory, with an encoder that costs nothing.

    python -m jobs.bench load                        # all three: takes about half an hour, and 9 GB of disk
    python -m jobs.bench load long --hours 2

``long``: recordings of 12 hours, one after the other: a wav, a wav of silence in stereo that is longer than its header
can say, and a flac, each decoded by several tasks at the same time; an mp3 and an m4a, each streamed by one task. It
measures the largest resident memory that any worker ever had, with its share of the object store, and how many tasks
decoded at the same time. One encoder leaves room for three.

``skew``: 100,000 files of half a second and one recording of 10 hours in one run, with one encoder. It measures how
much of their time workers decoded, over the whole run and in its last tenth: a long file that came last would leave all
but one idle. A task that is held back and takes no core time does not count as decoding.

``pressure``: 20 hours, which are 14 GB of samples, decoded faster than the encoders take them, with default settings
and an object store of 4 GB. It measures the peak use of the store, the bytes spilled to disk, and the memory of the
largest worker, with and without shared memory: the task that decodes beside four encoders touches every block.

Ray is told that there are four cores, so that three tasks may decode beside one encoder on any machine. The exit code
is 1 where a limit is missed. It runs from a checkout: the tests' helpers write long recordings.
"""

import re
import shutil
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import pyarrow as pa
import typer

from jobs.bench.figures import CheapEncoder, Figure, measure_and_report, read_memory
from jobs.shared.options import Json
from pipeline.config import Config, EncodeConfig, make_config
from pipeline.run.driver import index_corpus
from pipeline.run.progress import Progress
from pipeline.run.ray_start import start_ray
from pipeline.run.workers import run_stages

RATE_HZ = 44_100
N_CORES = 4
STORE_BYTES = 4 * 10**9
LONG_MAX_GB, MOST_SPILLED_GB = 1.5, 1e-9
LEAST_BUSY = 0.8
SAMPLE_EVERY_S = 0.25
WORKING_TICKS = 2
"""Core time between two samples, in units of 10 ms: a task that takes less is waiting."""


class What(StrEnum):
    LONG = "long"
    SKEW = "skew"
    PRESSURE = "pressure"


def load_cheap(config: EncodeConfig, with_frames: bool, threads: int, **of_encoder: Any) -> CheapEncoder:
    """In place of ``encoder.load_for_run``."""
    return CheapEncoder(**of_encoder)


# --- corpora ----------------------------------------------------------------------------------------------------------


def write_long(path: Path, hours: float) -> None:
    """A recording of noise: one minute, repeated."""
    from tests.helpers import sounds

    name = path.suffix.removeprefix(".")
    sounds.write_long(path, "wav_s16" if name == "wav" else name, hours * 3_600, RATE_HZ, channels=1)


def write_longer(path: Path, hours: float) -> None:
    """A wav of silence in stereo at 48 kHz, 16 bits, that takes no room on disk. A header cannot state the size of more
    than 6.2 hours; it is left unknown, as in a file written to a pipe."""
    size_bytes = round(hours * 3_600 * 48_000) * 4
    form = struct.pack("<IHHIIHH", 16, 1, 2, 48_000, 48_000 * 4, 4, 16)
    with path.open("wb") as file:
        said = min(size_bytes, 2**32 - 1)
        file.write(b"RIFF" + struct.pack("<I", min(said + 36, 2**32 - 1)) + b"WAVEfmt " + form)
        file.write(b"data" + struct.pack("<I", said))
        file.truncate(file.tell() + size_bytes)


def write_short(folder: Path, n_files: int) -> None:
    """Files of half a second, 16 kHz, 1,000 to a folder, all different."""
    import soundfile

    noise = np.random.default_rng(1).integers(-3_000, 3_000, 8_000 + n_files).astype(np.int16)
    for number in range(n_files):
        if number % 1_000 == 0:
            (inner := folder / f"{number // 1_000:03d}").mkdir(parents=True)
        soundfile.write(inner / f"{number:06d}.wav", noise[number : number + 8_000], 16_000)


# --- watching ---------------------------------------------------------------------------------------------------------


class Watch:
    """Watches Ray's workers while a run goes on: what they do, and the most memory that each has ever held."""

    def __init__(self) -> None:
        self.peak_bytes: dict[str, int] = {}
        """The most that one process of each kind held since the watch began."""
        self.own_bytes = 0
        """The most that one process held in any sample, without shared memory: each that touched a block counts it."""
        self.decoding: list[int] = []
        """How many tasks decoded, in each sample ..."""
        self.held: list[int] = []
        """... and how many had something to decode but waited."""
        self.store_bytes = 0
        self._last: dict[str, _Worker] = {}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def __enter__(self) -> "Watch":
        for worker in _list_workers():  # of earlier runs
            with suppress(OSError):  # it has ended
                (worker.folder / "clear_refs").write_text("5")  # proc(5): resets the peak
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    @property
    def largest_gb(self) -> float:
        return max(self.peak_bytes.values()) / 1e9

    def list_peaks(self) -> str:
        """The largest worker of each kind that did some of the work, in GB."""
        return ", ".join(f"{kind} {n_bytes / 1e9:.2f}" for kind, n_bytes in sorted(self.peak_bytes.items()))

    def _sample(self) -> None:
        import ray

        while not self._over.wait(SAMPLE_EVERY_S):
            self._note(list(_list_workers()))
            free = ray.available_resources().get("object_store_memory")
            if free is not None:
                self.store_bytes = max(self.store_bytes, int(ray.cluster_resources()["object_store_memory"] - free))

    def _note(self, workers: "list[_Worker]") -> None:
        n_decoding = n_held = 0
        for worker in workers:
            self.own_bytes = max(self.own_bytes, worker.own_bytes)
            last = self._last.get(worker.folder.name)
            if last is None or worker.peak_bytes > last.peak_bytes:  # while it did this
                self.peak_bytes[worker.kind] = max(worker.peak_bytes, self.peak_bytes.get(worker.kind, 0))
            worked = last is None or worker.ticks - last.ticks >= WORKING_TICKS
            n_decoding += worker.kind == "decode" and worked
            n_held += worker.kind == "decode" and not worked
        self.decoding.append(n_decoding)
        self.held.append(n_held)
        self._last = {worker.folder.name: worker for worker in workers}


class _Worker(NamedTuple):
    """A worker process of Ray: what it does, its peak resident memory with shared memory, its present memory without,
    and its core time."""

    folder: Path
    kind: str
    peak_bytes: int
    own_bytes: int
    ticks: int


def _list_workers() -> Iterator[_Worker]:
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            title = (folder / "cmdline").read_bytes().split(b"\0")[0].decode()
            if title.startswith("ray::"):
                memory = read_memory(folder)
                peak, now, shared = (memory.get(name, 0) for name in ("VmHWM", "VmRSS", "RssShmem"))
                stage = re.search(r"_(split|decode|encode|write)\b", title, re.IGNORECASE)
                times = (folder / "stat").read_text().rpartition(")")[2].split()[11:13]
                kind = stage[1].lower() if stage else "other"
                yield _Worker(folder, kind, peak, now - shared, sum(map(int, times)))
        except OSError:
            continue


def _spilled_bytes() -> int:
    import ray
    from ray._private.internal_api import memory_summary

    said = memory_summary(ray.get_runtime_context().gcs_address, stats_only=True)
    if "Plasma memory usage" not in said:
        raise RuntimeError(f"Ray reports its object store in unknown words: {said!r}")
    found = re.search(r"Spilled (\d+) MiB", said)
    return int(found[1]) * 2**20 if found else 0


# --- runs -------------------------------------------------------------------------------------------------------------


def index(
    sources: list[Path], into: Path, pause_s: float = 0.0, actors: int | None = 1
) -> tuple[Progress, Watch, float]:
    """Run with ``actors`` cheap encoders (None: the default). Returns also the seconds from the first block on."""
    settings = {"encode": {"actors": actors}} if actors else {}
    config = make_config({"sources": list(map(str, sources)), "into": str(into), **settings})
    began = 0.0

    def stages(batches: pa.Table, config: Config, frames_schema: pa.Schema) -> Iterator[dict[str, Any]]:
        nonlocal began
        dimension = frames_schema.field("vector").type.list_size
        load = partial(load_cheap, dimension=dimension, pause_s=pause_s)
        for receipt in run_stages(batches, config, frames_schema, load=load):
            began = began or time.monotonic()
            yield receipt

    with Watch() as watch:
        progress = index_corpus(config, stages=stages)
        seconds = time.monotonic() - began
    shutil.rmtree(into)
    if progress.n_failed or progress.n_indexed != progress.n_files:
        raise typer.Exit(1)
    return progress, watch, seconds


def measure_long(folder: Path, hours: float) -> Iterator[Figure]:
    for kind in ("wav", "stereo wav", "flac", "mp3", "m4a"):
        path = folder / f"long.{kind.removeprefix('stereo ')}"
        (write_longer if kind == "stereo wav" else write_long)(path, hours)
        progress, watch, seconds = index([path], folder / "index")
        path.unlink()
        what = f"{hours:g} h of {kind}"
        if abs(progress.audio_s / 3_600 - hours) > 0.002 * hours:
            raise RuntimeError(f"{what}: {progress.audio_s / 3_600:.3f} h were indexed")
        yield Figure("long", f"{what}: largest worker", watch.largest_gb, "GB", LONG_MAX_GB, watch.list_peaks())
        yield Figure("long", f"{what}: tasks that decoded at once", max(watch.decoding), "")
        yield Figure("long", f"{what}: time", seconds, "s", detail=f"{progress.audio_s / seconds:,.0f} x real time")


def measure_skew(folder: Path, n_files: int, hours: float) -> Iterator[Figure]:
    write_short(folder / "short", n_files)
    write_long(folder / "long.wav", hours)
    _, watch, seconds = index([folder], folder / "index")
    first = next(at for at, n in enumerate(watch.decoding) if n)
    last = max(at for at, n in enumerate(watch.decoding) if n)
    samples, held = watch.decoding[first : last + 1], watch.held[first : last + 1]
    room = N_CORES - 1  # the encoder holds a core
    tenth = max(1, len(samples) // 10)
    for name, n in (("over the run", len(samples)), ("in its last tenth", tenth)):
        part, waited = samples[-n:], held[-n:]
        idle = 100 * (1 - sum(part) / (room * len(part)))
        detail = f"at work: {sum(part) / len(part):.2f} of {room}; held back: {sum(waited) / len(part):.2f}"
        yield Figure("skew", f"decoders idle {name}", idle, "%", 100 * (1 - LEAST_BUSY), detail)
    yield Figure("skew", "time", seconds, "s")


def measure_pressure(folder: Path, hours: float) -> Iterator[Figure]:
    write_long(folder / "long.flac", hours)
    _, watch, seconds = index([folder], folder / "index", pause_s=0.02 * N_CORES, actors=None)
    yield Figure("pressure", "spilled", _spilled_bytes() / 1e9, "GB", MOST_SPILLED_GB)
    yield Figure("pressure", "object store used at most", watch.store_bytes / 1e9, "GB", STORE_BYTES / 1e9)
    yield Figure("pressure", "largest worker, the object store aside", watch.own_bytes / 1e9, "GB", LONG_MAX_GB)
    yield Figure("pressure", "largest worker with its share of that", watch.largest_gb, "GB", None, watch.list_peaks())
    yield Figure("pressure", "time", seconds, "s")


def load(
    what: Annotated[list[What] | None, typer.Argument(help="Measurements; by default all three.")] = None,
    hours: Annotated[float | None, typer.Option(help="Length of the long recordings; by default 12, 10, 20.")] = None,
    files: Annotated[int, typer.Option(help="Number of short files.")] = 100_000,
    json: Json = False,
) -> None:
    """Measure the memory and the idle time of workers with long recordings and uneven corpora: half an hour."""
    if what is None or len(what) > 1:  # each with a Ray of its own
        calls = [[sys.executable, "-m", "jobs.bench", "load", each, "--files", str(files)] for each in what or What]
        calls = [[*call, *(["--hours", str(hours)] if hours else []), *(["--json"] if json else [])] for call in calls]
        raise typer.Exit(max(subprocess.run(call, check=False).returncode for call in calls))
    start_ray(num_cpus=N_CORES, object_store_memory=STORE_BYTES)
    measurements: dict[What, Callable[[Path], Iterator[Figure]]] = {
        What.LONG: partial(measure_long, hours=hours or 12.0),
        What.SKEW: partial(measure_skew, n_files=files, hours=hours or 10.0),
        What.PRESSURE: partial(measure_pressure, hours=hours or 20.0),
    }
    measure_and_report("long and uneven corpora", [measurements[each] for each in what], json=json)
