"""The record of a run: made from its ``Progress``, kept in the index as ``run.json``, and read again.

Progress bar, log lines, metrics and ``earshot status`` all show this record. A ``Keeper`` writes it every few seconds
while the run works, and once more when the run ends, however it ends.
"""

import contextlib
import datetime as dt
import json
import os
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields, replace
from types import TracebackType
from typing import Literal

from pydantic import ConfigDict, TypeAdapter

from pipeline import storage
from pipeline.credentials import without_credentials
from pipeline.errors import EarshotError
from pipeline.index.lease import is_held
from pipeline.processes import find_start, has_ended, name_processes
from pipeline.run.progress import STAGES, Progress
from pipeline.run.ray_start import JOB_VARIABLE

NAME = "run.json"
WRITE_EVERY_S = 2.0

LOCK_S = 2.0
"""How long one thread waits for another that is writing the record."""

State = Literal["running", "done", "failed", "stopped", "died"]
"""A run that was killed cannot write ``died``: its readers find that out (``judge``)."""


# --- the record -------------------------------------------------------------------------------------------------------


_STRICT = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)
"""How a record is checked when it is read: it may be cut off, of another version, or edited."""


@dataclass(frozen=True)
class StageRecord:
    """The work of one stage."""

    __pydantic_config__ = _STRICT

    busy_s: float
    """Seconds of work, summed over its workers."""
    speed: float | None
    """Seconds of audio per second of work."""
    busy: float | None
    """The share of their time that its workers work at present, 0 to 1."""


@dataclass(frozen=True)
class Record:
    """A run as it was at ``updated_at``. Times are UTC, ISO 8601; unknown values are None."""

    __pydantic_config__ = _STRICT

    index: str
    run_id: str
    job: str | None
    """The name of its job, if it was submitted."""
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
    """Of the unchanged files, those that failed in an earlier run or attempt."""
    hours_done: float
    hours_all: float
    """Hours to encode in this run: an estimate until the run is done."""
    hours_per_hour: float
    """Over the last five minutes; after the end, over the whole time since workers were ready."""
    eta_s: float | None
    failures: dict[str, int]
    stages: dict[str, StageRecord]
    bottleneck: str | None
    """The stage whose workers are busiest."""
    not_looked_at: dict[str, int] = field(default_factory=dict)
    """What else the sources hold: how many files of each extension, how many hidden files, and links."""
    notes: tuple[str, ...] = ()
    """What a person should know that is no failure, one line each."""
    processes: str = ""
    """The processes among which ``pid`` is unique: see ``processes.name_processes``."""
    began: int | None = None
    """When that process began: see ``processes.find_start``."""


_OF_PROGRESS = {each.name for each in fields(Record) if hasattr(Progress(), each.name)} - {"started_at", "notes"}
"""The fields that a record takes from ``Progress`` by their names, as they are."""


def make_record(
    progress: Progress, state: State = "running", error: str | None = None, now: float | None = None
) -> Record:
    """The record of a run as it is ``now`` (monotonic seconds)."""
    throughput = progress.throughput
    # The workers of a run that has ended worked until the last receipt.
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
        **{name: getattr(progress, name) for name in _OF_PROGRESS},
        job=os.environ.get(JOB_VARIABLE),
        host=socket.gethostname(),
        pid=os.getpid(),
        state=state,
        error=error and without_credentials(" ".join(error.split())),
        notes=tuple(map(without_credentials, progress.notes)),
        doing=progress.stage,
        started_at=_show(progress.started_at),
        updated_at=_show(time.time()),
        hours_done=progress.audio_s / 3600,
        hours_all=all_s / 3600,
        hours_per_hour=speed,
        eta_s=left_s / speed if state == "running" and speed and left_s > 0 else None,
        failures=dict(progress.reasons),
        stages=stages,
        bottleneck=max(busy, key=lambda stage: busy[stage]) if busy else None,
        processes=name_processes(),
        began=find_start(os.getpid()),
    )


def _show(seconds: float) -> str:
    return dt.datetime.fromtimestamp(seconds, dt.UTC).isoformat(timespec="milliseconds")


def age_s(record: Record) -> float:
    """Seconds since a record was written."""
    return time.time() - dt.datetime.fromisoformat(record.updated_at).timestamp()


# --- written and read -------------------------------------------------------------------------------------------------


def write_record(path: str, record: Record) -> None:
    """Write the record into the index at ``path``, a folder or a URL. Readers see the old or the new one, whole."""
    data = json.dumps(asdict(record), ensure_ascii=False, indent=1).encode()
    if storage.is_url(path):
        fs, root = storage.find_store(path)
        fs.pipe_file(f"{root}/{NAME}", data)  # an object store shows an object once all of it is there
        return
    beside = os.path.join(path, f"{NAME}.new")
    with open(beside, "wb") as file:
        file.write(data)
    os.replace(beside, os.path.join(path, NAME))


def read_record(path: str) -> Record | None:
    """The record of the newest run on the index at ``path``; None if there is none.

    Raises:
        EarshotError: a record exists, or may exist, and cannot be read.
    """
    try:
        fs, root = storage.find_store(path)
        record = TypeAdapter(Record).validate_json(fs.cat_file(f"{root}/{NAME}"))
        for moment in (record.started_at, record.updated_at):
            dt.datetime.fromisoformat(moment).timestamp()
        return record
    except FileNotFoundError:
        return None
    except EarshotError:  # there is no driver for such a URL
        raise
    except (ValueError, OverflowError):
        # Cut off, of another version, or edited.
        raise EarshotError(f"{_place(path)}: is no record of a run of this version of Earshot") from None
    except Exception as error:  # each kind of store has its own errors
        raise EarshotError(f"{_place(path)}: cannot be read: {' '.join(str(error).split())[:300]}") from None


def _place(path: str) -> str:
    return f"{path.rstrip('/')}/{NAME}"


class Keeper:
    """Writes the record of a run while the context is open, and on leaving how the run ended.

    Errors of writing never stop the run.

    Args:
        publish: also called with each record.
        shortfall: why a run that came to its end is not done; None if it is.
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
        self._lock = threading.Lock()
        self._has_failed = False

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
        """Write the record, unless it was written a moment ago."""
        if time.monotonic() - self._written_at >= WRITE_EVERY_S and not self._has_failed:
            self._write("running", None)

    def fail(self, error: Exception) -> None:
        """Write that the run has failed, from any thread: the process may end before the context does."""
        self._has_failed = True
        self._write("failed", str(error))

    def _write(self, state: State, error: str | None) -> None:
        is_alone = self._lock.acquire(timeout=LOCK_S)  # if the other thread hangs, this one writes nevertheless
        try:
            record = make_record(self._progress, state, error)
            with contextlib.suppress(Exception):
                write_record(self._path, record)
            with contextlib.suppress(Exception):
                self._publish(record)
            self._written_at = time.monotonic()
        finally:
            if is_alone:
                self._lock.release()


# --- whether a run that did not write its end is alive ----------------------------------------------------------------


SILENT_S = 60.0
"""A run whose record is older than this may be dead, or busy with one long step."""


def judge(
    record: Record,
    path: str,
    *,
    here: str | None = None,
    start_of: Callable[[int], int | None] = find_start,
    held: Callable[[str], bool] = is_held,
) -> Record:
    """The record of the index at ``path``, with the state ``died`` if its run is dead.

    On the machine of the run, its process decides. Elsewhere, and in another container, a fresh record shows that the
    run is alive; otherwise the lease decides, which a thread of the run renews even during one long step. A lease that
    looks old is watched for some seconds, for the clocks of two machines may differ.

    Args:
        here, start_of, held: replace ``name_processes``, ``find_start`` and ``is_held`` in tests.
    """
    if record.state != "running":
        return record
    if record.processes == (here or name_processes()):
        is_dead = has_ended(record.pid, record.began, start_of)
    else:
        is_dead = abs(age_s(record)) > SILENT_S and not held(path)
    return replace(record, state="died", eta_s=None) if is_dead else record
