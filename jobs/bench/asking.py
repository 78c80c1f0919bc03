"""A process that asks an index questions given as vectors, and times them.

``ask`` runs in a process of its own (``figures.call_fresh``), so its peak memory is that of one kind of question.
"""

import json
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from jobs.bench.figures import count_reads, read_memory
from jobs.bench.synthetic import Floats
from jobs.bench.truth import Found
from pipeline.index.handle import open_index
from pipeline.index.search_settings import SearchSettings
from pipeline.index.tuning import find_settings
from pipeline.search.clips import find_clips
from pipeline.search.event_reader import EventQuery
from pipeline.search.event_tables import EventTables
from pipeline.search.events import Levels
from pipeline.search.find_events import find_events
from pipeline.search.tables import open_table

MODES = ("exact", "indexed")


@dataclass(frozen=True)
class Job:
    """Questions for an index: ``locate``, ``query`` or ``similar``."""

    index: str
    question: str
    mode: str
    where: str | None
    k: int
    vectors: str
    """A file of vectors (n, D), in numpy's format."""
    levels: list[list[float]]
    """Of ``locate``: the four values of each question's ``Levels``."""
    n: int
    """How many of the questions to ask."""
    n_warming: int = 5
    """Questions asked before the clock starts."""
    is_cold: bool = False
    """Whether the system forgets the files of the index first."""


def ask(text: str) -> dict[str, Any]:
    """Ask the questions of a ``Job`` (JSON): milliseconds and results of each, what they read from files in the mean,
    and the peak memory of this process."""
    job = Job(**json.loads(text))
    vectors: Floats = np.load(job.vectors)
    levels = [Levels(on, off, int(gap), int(least)) for on, off, gap, least in job.levels]
    if job.is_cold:
        forget_files(Path(job.index))
    reads = count_reads()
    began = time.perf_counter()
    index = _Index(job)
    open_ms = 1000 * (time.perf_counter() - began)
    times_ms, results = list[float](), list[list[Found]]()
    for number in range(-min(job.n_warming, len(vectors)), min(job.n, len(vectors))):
        if number == 0 and not job.is_cold:
            reads = count_reads()
        began = time.perf_counter()
        found = index.ask(vectors[number], levels[number] if levels else None)
        if number >= 0:
            times_ms.append(1000 * (time.perf_counter() - began))
            results.append(found)
    n_reads, n_bytes = (after - before for before, after in zip(reads, count_reads(), strict=True))
    return {
        "open_ms": open_ms,
        "times_ms": times_ms,
        "found": results,
        "reads": n_reads / max(1, len(results)),
        "read_mb": n_bytes / 1e6 / max(1, len(results)),
        "peak_mb": read_memory()["VmHWM"] / 1e6,
    }


def to_job(job: Job) -> str:
    return json.dumps(asdict(job))


def forget_files(folder: Path) -> None:
    """Drop the files of a folder from the system's page cache, as far as it allows."""
    for path in folder.rglob("*"):
        if path.is_file():
            descriptor = os.open(path, os.O_RDONLY)
            os.fsync(descriptor)  # a page that is not on the disk yet stays
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(descriptor)


class _Index:
    """The tables that a question needs, as ``pipeline.search.client`` opens them."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._live = open_index(job.index).live
        name = "pools" if job.question == "locate" else "clips"
        self._settings = None if job.mode == "exact" else find_settings(self._live, name)
        if job.question == "locate":
            pools = None if self._settings is None else self._open("pools")
            settings = self._settings or SearchSettings()
            self._events = EventTables(self._open("frames"), self._open("files"), pools, settings)
        else:
            self._clips = self._open("clips")

    def _open(self, name: str) -> Any:
        return open_table(self._live.path, name, self._live.versions[name])

    def ask(self, vector: Floats, levels: Levels | None) -> list[Found]:
        job = self._job
        if levels is not None:
            events = find_events(self._events, EventQuery(vector, levels, job.k, job.where))
            return [Found(event.score, holder.uri, event.first, event.stop) for holder, event in events]
        measure: Any = "cosine" if job.question == "similar" else "dot"
        hits = find_clips(self._clips, vector, k=job.k, where=job.where, measure=measure, settings=self._settings)
        return [Found(hit.score, hit.clip_id) for hit in hits]
