"""What a run counts while it works: files, hours, throughput, and how much is left."""

import shlex
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from pipeline.words import count

STAGES = ("decode", "encode", "write")
"""The stages of the workers. Receipts carry the seconds that each one took: ``decode_s`` and so on."""

BURST_S = 1.0
"""Receipts that arrive within this time count as one burst."""

WINDOW_S = 300.0
"""Current rates are those of this time."""


@dataclass
class _Burst:
    """Receipts that arrived together: a block of rows comes as many receipts, moments apart."""

    at: float
    room_s: dict[str, float]
    """Worker time available to each stage since the previous burst."""
    work_s: dict[str, float] = field(default_factory=lambda: dict.fromkeys(STAGES, 0.0))
    audio_s: float = 0.0


@dataclass
class Throughput:
    """How fast the workers are, from the receipts.

    Rates begin at the first burst: its own work began before that. Current rates are those of the last minutes; they
    fall while no receipt comes for longer than the longest time between two bursts.
    """

    busy_s: dict[str, float] = field(default_factory=lambda: dict.fromkeys(STAGES, 0.0))
    """Seconds that workers spent in each stage."""
    _bursts: deque[_Burst] = field(default_factory=deque)
    _workers: Mapping[str, float] = field(default_factory=lambda: dict.fromkeys(STAGES, 0.0))
    _first_at: float | None = None
    _audio_s: float = 0.0

    def add(self, receipt: Mapping[str, Any], now: float, workers: Mapping[str, float]) -> None:
        """Count one RECEIPTS row that came at ``now`` (monotonic seconds), while each stage had so many ``workers``."""
        bursts, self._workers = self._bursts, workers
        if not bursts or now - bursts[-1].at > BURST_S:
            since_s = now - bursts[-1].at if bursts else 0.0
            bursts.append(_Burst(now, {stage: since_s * workers[stage] for stage in STAGES}))
            while len(bursts) > 2 and now - bursts[1].at > WINDOW_S:
                bursts.popleft()
        if self._first_at is None:
            self._first_at = now
        bursts[-1].audio_s += receipt["audio_s"]
        self._audio_s += receipt["audio_s"] if bursts[-1].at > self._first_at else 0.0
        for stage in STAGES:
            bursts[-1].work_s[stage] += receipt[f"{stage}_s"]
            self.busy_s[stage] += receipt[f"{stage}_s"]

    @property
    def last_at(self) -> float:
        """When the last burst began."""
        return self._bursts[-1].at if self._bursts else 0.0

    @property
    def speed(self) -> float:
        """Seconds of audio encoded per second, since workers were ready."""
        took_s = self._bursts[-1].at - self._first_at if self._bursts and self._first_at is not None else 0.0
        return self._audio_s / took_s if took_s else 0.0

    def recent(self, now: float) -> tuple[float, dict[str, float]]:
        """The current seconds of audio per second, and the share of their time that the workers of each stage work.

        A stage whose share is unknown is left out. A share may exceed 1 where many workers have left.
        """
        bursts = list(self._bursts)
        while len(bursts) > 2 and now - bursts[1].at > WINDOW_S:
            del bursts[0]
        if not bursts:
            return 0.0, {}
        usual_s = max((later.at - burst.at for burst, later in pairwise(bursts)), default=0.0)
        late_s = max(0.0, now - bursts[-1].at - usual_s)
        took_s = bursts[-1].at - bursts[0].at + late_s
        work_s, room_s = (
            {stage: sum(getattr(burst, name)[stage] for burst in bursts[1:]) for stage in STAGES}
            for name in ("work_s", "room_s")
        )
        room_s = {stage: room_s[stage] + late_s * self._workers[stage] for stage in STAGES}
        busy = {stage: work_s[stage] / room_s[stage] for stage in STAGES if work_s[stage] and room_s[stage]}
        return sum(burst.audio_s for burst in bursts[1:]) / took_s if took_s else 0.0, busy


@dataclass
class Progress:
    """What a run has done so far. Each of the ``n_files`` files of the corpus ends up in one of the counts."""

    index: str = ""
    run_id: str = ""
    started_at: float = field(default_factory=time.time)
    n_files: int = 0
    n_unchanged: int = 0
    n_indexed: int = 0
    n_failed: int = 0
    n_failed_before: int = 0
    """Of the unchanged files, those that failed in an earlier run."""
    n_metadata: int = 0
    """Of the unchanged files, those whose metadata is rewritten."""
    notes: tuple[str, ...] = ()
    """Notes for a person: on the metadata, and on files that cannot be read. One line each."""
    not_looked_at: dict[str, int] = field(default_factory=dict)
    """What else the sources hold: how many files of each extension (``ignored_files.IgnoredFiles.count``)."""
    n_deleted: int = 0
    """Files of the index that have left the sources."""
    n_clips: int = 0
    n_frames: int = 0
    audio_s: float = 0.0
    """Audio encoded, including that of unfinished batches."""
    planned_s: float = 0.0
    """Audio to encode for certain, estimated by the plan from file sizes."""
    finished_s: float = 0.0
    """Audio in such files of complete batches."""
    finished_planned_s: float = 0.0
    """The plan's estimate for these files."""
    examined_s: float = 0.0
    """Audio to examine, and to encode where it decodes differently now, estimated by the plan."""
    finished_examined_s: float = 0.0
    """The plan's estimate for what has been examined, and encoded where it had to be."""
    found_s: float = 0.0
    """Audio of that which had to be encoded."""
    throughput: Throughput = field(default_factory=Throughput)
    reasons: Counter[str] = field(default_factory=Counter)
    unpublished: list[str] = field(default_factory=list)
    """Why batches could not be published, one line for each: their files changed while they were read."""
    n_unread: int = 0
    """Formerly indexed files that a rebuild could not read, if they exceed ``run.max_deleted_fraction``; else 0."""
    held_back: bool = False
    """Whether a rebuild has ended and must not replace the former tables."""
    stage: str = "listing"
    report: Callable[["Progress"], object] = field(default=lambda progress: None, repr=False, compare=False)
    """Shows the progress: called whenever it has changed."""

    def enter(self, stage: str) -> None:
        """Begin a stage, and report it."""
        self.stage = stage
        self.tell()

    def tell(self) -> None:
        self.report(self)

    @property
    def n_done(self) -> int:
        return self.n_unchanged + self.n_indexed + self.n_failed

    @property
    def expected_s(self) -> float:
        """Audio to encode: the plan's estimate, whose remaining part is scaled by how far off it was so far.

        Of what remains to be examined, as large a part is expected to be encoded as so far; all of it, until something
        has been examined.
        """
        known_s, seen_s = min(self.finished_planned_s, self.planned_s), min(self.finished_examined_s, self.examined_s)
        ratio = self.finished_s / known_s if self.finished_s and known_s else 1.0
        share = self.found_s / seen_s if seen_s else 1.0
        rest_s = (self.planned_s - known_s) * ratio + (self.examined_s - seen_s) * share
        return max(self.audio_s, self.finished_s + self.found_s + rest_s)

    @property
    def failed_fraction(self) -> float:
        """The share of the corpus whose files failed, in this run or an earlier one."""
        return (self.n_failed + self.n_failed_before) / max(1, self.n_files)


def find_shortfall(progress: Progress, max_failed_fraction: float) -> str | None:
    """What a run that ended has left undone, or why it counts as failed; None if it is complete.

    A run also counts as failed if nothing can be searched after it: all files failed, now or before.
    """
    found = []
    if progress.unpublished:
        n_files = progress.n_files - progress.n_done
        left = "1 file is left" if n_files == 1 else f"{n_files} files are left"
        found.append(f"{left}, run again: {progress.unpublished[0]}")
    if progress.n_files and progress.failed_fraction == 1:
        files = "the only file" if progress.n_files == 1 else f"all {progress.n_files} files"
        found.append(f"{files} failed, so nothing is indexed: see `earshot failures {shlex.quote(progress.index)}`")
    elif progress.failed_fraction > max_failed_fraction:
        allowed = f"run.max_failed_fraction allows {max_failed_fraction:.1%}"
        found.append(f"{progress.failed_fraction:.1%} of the files failed, {allowed}")
    if progress.n_unread:
        found.append(
            f"{count(progress.n_unread, 'file')} that were indexed could not be read, more than"
            " run.max_deleted_fraction allows without --allow-deletions"
        )
    if progress.held_back:
        found.append("so the former tables stay in their place; solve that and run with --rebuild again")
    return "; ".join(found) or None
