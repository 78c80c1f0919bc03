"""What a run tells of itself: one record, kept in the index as ``run.json``, which whatever shows progress renders.

The driver counts in a ``Progress``; ``make_record`` makes of it the frozen ``Record`` that bar, log lines, metrics and
``earshot status`` show; a ``Keeper`` writes that now and then, and once more when the run ends, however it ends.
"""

import contextlib
import datetime as dt
import json
import math
import os
import socket
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from itertools import pairwise
from types import TracebackType, UnionType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from pipeline import storage
from pipeline.credentials import without_credentials
from pipeline.errors import EarshotError
from pipeline.processes import find_start, name_processes

STAGES = ("decode", "encode", "write")
"""What workers do; receipts carry the seconds that each took, as ``decode_s`` and so on."""

NAME = "run.json"
WRITE_EVERY_S = 2.0

LUMP_S = 1.0
"""Receipts that arrive within it came together, and tell no rate among themselves."""

WINDOW_S = 300.0
"""What counts as lately."""

JOB_VARIABLE, RUN_VARIABLE, PYTHON_VARIABLE = "EARSHOT_JOB", "EARSHOT_RUN", "EARSHOT_PYTHON"
"""Environment variables in which a submitted job finds its own name, the id of its run, and the interpreter that its
workers are to have, where that is not the one of their node."""

State = Literal["running", "done", "failed", "stopped", "died"]
"""``died`` is found out by readers (``pipeline.run.liveness``): nobody was left to note it."""


# --- counting ---------------------------------------------------------------------------------------------------------


@dataclass
class _Lump:
    """What arrived at about one time: a block of rows comes as many receipts, moments apart."""

    at: float
    room_s: dict[str, float]
    """Seconds that the workers of each stage had since the lump before it."""
    work_s: dict[str, float] = field(default_factory=lambda: dict.fromkeys(STAGES, 0.0))
    audio_s: float = 0.0


@dataclass
class Throughput:
    """How fast work goes, from what receipts report.

    Rates count from the first lump of receipts on, whose work began before. Those of now are of the last minutes, and
    fall while nothing comes for longer than it took between the others.
    """

    busy_s: dict[str, float] = field(default_factory=lambda: dict.fromkeys(STAGES, 0.0))
    """Seconds that workers spent in each stage."""
    _lumps: deque[_Lump] = field(default_factory=deque)
    _workers: Mapping[str, float] = field(default_factory=lambda: dict.fromkeys(STAGES, 0.0))
    _first_at: float | None = None
    _audio_s: float = 0.0

    def add(self, receipt: Mapping[str, Any], now: float, workers: Mapping[str, float]) -> None:
        """Take one RECEIPTS row, at ``now`` (monotonic seconds), from so many ``workers`` in each stage."""
        bursts, self._workers = self._lumps, workers
        if not bursts or now - bursts[-1].at > LUMP_S:
            since_s = now - bursts[-1].at if bursts else 0.0
            bursts.append(_Lump(now, {stage: since_s * workers[stage] for stage in STAGES}))
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
        """When the last lump of receipts came."""
        return self._lumps[-1].at if self._lumps else 0.0

    @property
    def speed(self) -> float:
        """Seconds of audio encoded per second, since workers were ready."""
        took_s = self._lumps[-1].at - self._first_at if self._lumps and self._first_at is not None else 0.0
        return self._audio_s / took_s if took_s else 0.0

    def recent(self, now: float) -> tuple[float, dict[str, float]]:
        """Seconds of audio encoded per second lately, and how much of their time the workers of each stage worked.

        The latter is left out where it is not known; it may pass 1, when many of those that worked have gone.
        """
        bursts = list(self._lumps)
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
    """Where a run is. ``n_files`` counts the files of the corpus, and each of them ends up in one of the counts."""

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
    """Of the unchanged files, those whose metadata is written anew."""
    notes: tuple[str, ...] = ()
    """What a person should know of the metadata, a line each."""
    not_looked_at: dict[str, int] = field(default_factory=dict)
    """What the sources have besides: how many files of which extension (``ignored_files.IgnoredFiles.count``)."""
    n_deleted: int = 0
    """Files of the index that are no longer there."""
    n_clips: int = 0
    n_frames: int = 0
    audio_s: float = 0.0
    """Audio encoded, that of unfinished batches included."""
    planned_s: float = 0.0
    """Audio to encode, as the plan estimates it from file sizes."""
    finished_s: float = 0.0
    """Audio in the files of complete batches."""
    finished_planned_s: float = 0.0
    """What the plan had estimated for these files."""
    throughput: Throughput = field(default_factory=Throughput)
    reasons: Counter[str] = field(default_factory=Counter)
    unpublished: list[str] = field(default_factory=list)
    """For each batch whose files changed while they were read, so that it could not be published: what happened."""
    n_unread: int = 0
    """Files that were indexed and that a rebuild could not read, where they are more than may go unasked."""
    held_back: bool = False
    """Whether a rebuild came to its end, and is not put in the place of the former tables."""
    stage: str = "listing"

    @property
    def n_done(self) -> int:
        return self.n_unchanged + self.n_indexed + self.n_failed

    @property
    def speed(self) -> float:
        """Seconds of audio encoded per second, since workers were ready."""
        return self.throughput.speed

    @property
    def expected_s(self) -> float:
        """Audio to encode, as the plan estimates it, the rest of it by what was in the files that are finished."""
        known_s = min(self.finished_planned_s, self.planned_s)
        ratio = self.finished_s / known_s if self.finished_s and known_s else 1.0
        return max(self.audio_s, self.finished_s + (self.planned_s - known_s) * ratio)

    @property
    def failed_fraction(self) -> float:
        """Of the files of the corpus, those that failed in this run or an earlier one."""
        return (self.n_failed + self.n_failed_before) / max(1, self.n_files)


def find_shortfall(progress: Progress, max_failed_fraction: float) -> str | None:
    """What a run that came to its end has left undone, or why it counts as failed; None if it is complete.

    A run counts as failed where nothing can be searched in the end: all files failed, now or before.
    """
    found = []
    if progress.unpublished:
        n_files = progress.n_files - progress.n_done
        left = "1 file is left" if n_files == 1 else f"{n_files} files are left"
        found.append(f"{left}, run again: {progress.unpublished[0]}")
    if progress.n_files and progress.failed_fraction == 1:
        files = "the only file" if progress.n_files == 1 else f"all {progress.n_files} files"
        found.append(f"{files} failed, so nothing is indexed: see `earshot failures {progress.index}`")
    elif progress.failed_fraction > max_failed_fraction:
        allowed = f"run.max_failed_fraction allows {max_failed_fraction:.1%}"
        found.append(f"{progress.failed_fraction:.1%} of the files failed, {allowed}")
    if progress.n_unread:
        found.append(
            f"{progress.n_unread:,} files that were indexed could not be read, more than run.max_deleted_fraction"
            " allows without --allow-deletions"
        )
    if progress.held_back:
        found.append("so the former tables stay in their place; mend that and run with --rebuild again")
    return "; ".join(found) or None


# --- the record -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class StageRecord:
    """What one stage does."""

    busy_s: float
    """Seconds that its workers have worked, all of them together."""
    speed: float | None
    """Seconds of audio per such second."""
    busy: float | None
    """How much of their time its workers work, 0 to 1, lately."""


@dataclass(frozen=True)
class Record:
    """A run as it was at ``updated_at``. Times are UTC, ISO 8601; what is not known yet is None."""

    index: str
    run_id: str
    job: str | None
    """Name of the job that it runs in, where it was submitted."""
    host: str
    pid: int
    state: State
    error: str | None
    doing: str
    started_at: str
    updated_at: str
    n_files: int
    n_done: int
    n_indexed: int
    n_unchanged: int
    n_failed: int
    n_failed_before: int
    """Of the unchanged files, those that failed in an earlier run, or attempt."""
    hours_done: float
    hours_all: float
    """To encode in this run; an estimate until it is done."""
    hours_per_hour: float
    """Over the last five minutes; when it has ended, since workers were ready."""
    eta_s: float | None
    failures: dict[str, int]
    stages: dict[str, StageRecord]
    bottleneck: str | None
    """The stage whose workers are busiest."""
    not_looked_at: dict[str, int] = field(default_factory=dict)
    """What the sources have besides their files of audio: how many of which extension, how many hidden, and links."""
    processes: str = ""
    """What ``pid`` counts in: see ``processes.name_processes``."""
    began: int | None = None
    """When that process did: see ``processes.find_start``."""


def make_record(
    progress: Progress, state: State = "running", error: str | None = None, now: float | None = None
) -> Record:
    """The record of a run as it is ``now`` (monotonic seconds)."""
    throughput = progress.throughput
    # What comes after the last receipt of a run that has ended is no work of the workers.
    speed, busy = throughput.recent(
        (time.monotonic() if now is None else now) if state == "running" else throughput.last_at
    )
    speed = speed if state == "running" else throughput.speed
    stages = {
        stage: StageRecord(
            round(throughput.busy_s[stage], 3),
            progress.audio_s / throughput.busy_s[stage] if throughput.busy_s[stage] else None,
            min(1.0, busy[stage]) if stage in busy else None,
        )
        for stage in STAGES
    }
    all_s = progress.audio_s if state == "done" else progress.expected_s
    left_s = all_s - progress.audio_s
    return Record(
        index=progress.index,
        run_id=progress.run_id,
        job=os.environ.get(JOB_VARIABLE),
        host=socket.gethostname(),
        pid=os.getpid(),
        state=state,
        error=error and without_credentials(" ".join(error.split())),
        doing=progress.stage,
        started_at=_show(progress.started_at),
        updated_at=_show(time.time()),
        n_files=progress.n_files,
        n_done=progress.n_done,
        n_indexed=progress.n_indexed,
        n_unchanged=progress.n_unchanged,
        n_failed=progress.n_failed,
        n_failed_before=progress.n_failed_before,
        hours_done=progress.audio_s / 3600,
        hours_all=all_s / 3600,
        hours_per_hour=speed,
        eta_s=left_s / speed if state == "running" and speed and left_s > 0 else None,
        failures=dict(progress.reasons),
        stages=stages,
        bottleneck=max(busy, key=lambda stage: busy[stage]) if busy else None,
        not_looked_at=progress.not_looked_at,
        processes=name_processes(),
        began=find_start(os.getpid()),
    )


def _show(seconds: float) -> str:
    return dt.datetime.fromtimestamp(seconds, dt.UTC).isoformat(timespec="milliseconds")


def age_s(record: Record) -> float:
    """Seconds since a record was written."""
    return time.time() - dt.datetime.fromisoformat(record.updated_at).timestamp()


METRICS = {
    "earshot_files": "Files of the corpus: all, and so far done, indexed, unchanged, failed",
    "earshot_hours": "Hours of audio to encode in this run (all, an estimate) and encoded so far (done)",
    "earshot_hours_per_hour": "Hours of audio encoded per hour, over the last five minutes",
    "earshot_eta_s": "Seconds left, by that speed; infinite while nothing is known of it",
    "earshot_failures": "Files that failed or were cut short in this run, by reason",
    "earshot_stage_speed": "Seconds of audio per second of work in a stage",
    "earshot_stage_busy": "How much of their time the workers of a stage work, 0 to 1",
}
"""Names and meanings of the metrics."""

Measure = tuple[str, dict[str, str], float]
"""Name, tags and value of a metric."""


def list_measures(record: Record) -> list[Measure]:
    """A record as metrics; what is not known is left out."""
    files = {state: getattr(record, f"n_{state}") for state in ("done", "indexed", "unchanged", "failed")}
    found: list[tuple[str, dict[str, str], float | None]] = [
        *(("earshot_files", {"state": state}, count) for state, count in {"all": record.n_files, **files}.items()),
        ("earshot_hours", {"state": "done"}, record.hours_done),
        ("earshot_hours", {"state": "all"}, record.hours_all),
        ("earshot_hours_per_hour", {}, record.hours_per_hour),
        ("earshot_eta_s", {}, _eta_s(record)),
        *(("earshot_failures", {"reason": reason}, count) for reason, count in record.failures.items()),
        *(("earshot_stage_speed", {"stage": stage}, each.speed) for stage, each in record.stages.items()),
        *(("earshot_stage_busy", {"stage": stage}, each.busy) for stage, each in record.stages.items()),
    ]
    shared = {"index": record.index, "run": record.run_id}
    return [(name, shared | tags, float(value)) for name, tags, value in found if value is not None]


def _eta_s(record: Record) -> float:
    """Infinite while there is no speed to tell it by: a gauge that is left alone keeps what it last said."""
    if record.eta_s is not None:
        return record.eta_s
    return 0.0 if record.state != "running" or 0 < record.hours_all <= record.hours_done else math.inf


# --- written and read -------------------------------------------------------------------------------------------------


def write_record(path: str, record: Record) -> None:
    """Put the record into the index at ``path``, a folder or a URL. Readers see the former one or this one, whole."""
    data = json.dumps(asdict(record), ensure_ascii=False, indent=1).encode()
    if storage.is_url(path):
        fs, root = storage.find_store(path)
        fs.pipe_file(f"{root}/{NAME}", data)  # an object store shows an object when all of it is there
        return
    beside = os.path.join(path, f"{NAME}.new")
    with open(beside, "wb") as file:
        file.write(data)
    os.replace(beside, os.path.join(path, NAME))


def read_record(path: str) -> Record | None:
    """The record of the newest run on the index at ``path``; None where there is none.

    Raises:
        EarshotError: it is there, or may be, and cannot be read.
    """
    try:
        fs, root = storage.find_store(path)
        values = json.loads(fs.cat_file(f"{root}/{NAME}"))
        stages = {stage: StageRecord(**each) for stage, each in values["stages"].items()}
        record = replace(Record(**values), stages=stages)
        _check_types(record, *stages.values())
        return record
    except FileNotFoundError:
        return None
    except EarshotError:  # there is no driver for such a URL
        raise
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError):
        # Half a file, of another version, or of values that are none.
        raise EarshotError(f"{_place(path)}: is no record of a run of this version of Earshot") from None
    except Exception as error:  # each kind of store has its own errors
        raise EarshotError(f"{_place(path)}: cannot be read: {' '.join(str(error).split())[:300]}") from None


def _place(path: str) -> str:
    return f"{path.rstrip('/')}/{NAME}"


def _check_types(record: Record, *stages: StageRecord) -> None:
    """Raises TypeError, ValueError or OverflowError where a value is not what its field is declared to be."""
    for each in (record, *stages):
        for name, kind in get_type_hints(type(each)).items():
            if not _fits(getattr(each, name), kind):
                raise TypeError(name)
    for moment in (record.started_at, record.updated_at):
        dt.datetime.fromisoformat(moment).timestamp()


def _fits(value: object, kind: Any) -> bool:
    """Whether ``value``, from JSON, is of a type as the fields of a record have them."""
    kinds = get_args(kind)
    if get_origin(kind) is Literal:
        return value in kinds
    if get_origin(kind) is UnionType:
        return any(_fits(value, each) for each in kinds)
    if get_origin(kind) is dict:
        return isinstance(value, dict) and all(_fits(each, kinds[1]) for each in value.values())
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return isinstance(value, kind) and not (kind is int and isinstance(value, bool))


class Keeper:
    """Writes the record of a run while the context is open, and how it ended on leaving. It never stops the run.

    Args:
        publish: also called with each record.
        shortfall: what keeps a run that came to its end from being done.
    """

    def __init__(
        self,
        path: str,
        progress: Progress,
        publish: Callable[[Record], None] = lambda record: None,
        shortfall: Callable[[], str | None] = lambda: None,
    ) -> None:
        self._path, self._progress, self._publish, self._shortfall = path, progress, publish, shortfall
        self._written_at = float("-inf")

    def __enter__(self) -> "Keeper":
        self.note()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            shortfall = self._shortfall()
            self._write("failed" if shortfall else "done", shortfall)
        elif isinstance(error, KeyboardInterrupt | SystemExit):
            self._write("stopped", None)
        else:
            self._write("failed", str(error) or type(error).__name__)

    def note(self) -> None:
        """Write the record, unless that was done a moment ago."""
        if time.monotonic() - self._written_at >= WRITE_EVERY_S:
            self._write("running", None)

    def fail(self, error: Exception) -> None:
        """Write, from any thread, that the run has failed: its process may end before the context does."""
        self._write("failed", str(error))

    def _write(self, state: State, error: str | None) -> None:
        record = make_record(self._progress, state, error)
        with contextlib.suppress(Exception):
            self._publish(record)
        with contextlib.suppress(Exception):
            write_record(self._path, record)
        self._written_at = time.monotonic()
