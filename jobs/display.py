"""How a run is shown while it goes on: a bar on a terminal, lines elsewhere. Both render its record."""

import time
from typing import TYPE_CHECKING, Any

from jobs.output import show_bytes, show_hours, show_left

if TYPE_CHECKING:
    from pipeline.config import Config
    from pipeline.plan import Plan
    from pipeline.record import Progress, Record

LINE_EVERY_S = 5.0
"""Off a terminal."""

BAR_EVERY_S = 0.2
"""A bar that changes more often helps nobody."""


def describe(record: "Record") -> str:
    """A record in one line: ``encoding: 12 of 40 files, 0.50 h of about 2.00 h, 31x real time, 3 min left``."""
    parts = [f"{record.n_done} of {record.n_files} files", *_describe_pace(record)]
    return f"{record.doing}: {', '.join(part for part in parts if part)}"


def _describe_pace(record: "Record") -> list[str]:
    about = "" if record.state == "done" else "about "
    hours = f"{show_hours(record.hours_done * 3600)} of {about}{show_hours(record.hours_all * 3600)}"
    stage = record.bottleneck and record.stages[record.bottleneck].busy
    return [
        hours if record.hours_all else "",
        f"{record.hours_per_hour:.0f}x real time" if record.hours_per_hour else "",
        f"{show_left(record.eta_s)} left" if record.eta_s is not None else "",
        f"{record.n_failed} failed" if record.n_failed else "",
        f"{record.bottleneck} is busiest ({stage:.0%})" if stage and record.state == "running" else "",
    ]


class Display:
    """A progress bar on a terminal, a line every five seconds elsewhere; all on stderr."""

    def __init__(self, *, json: bool) -> None:
        from rich.console import Console

        self._console = Console(stderr=True)
        self._quiet = json
        self._bar: Any = None
        self._said_at = time.monotonic()

    def __enter__(self) -> "Display":
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

        if not self._quiet and self._console.is_terminal:
            self._bar = Progress(
                SpinnerColumn(),
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[pace]}"),
                TimeElapsedColumn(),
                console=self._console,
            )
            self._task = self._bar.add_task("listing", total=None, pace="")
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def announce(self, plan: "Plan", config: "Config") -> None:
        """Say what will be done, and how much room it takes, before it is done."""
        from pipeline.checkpoint import BUNDLED, read_identity
        from pipeline.run import estimate_bytes

        if self._quiet or not plan.n_to_decode:
            return
        encode = config.encode
        clip = read_identity(encode.clip_model, encode.clip_revision)
        frame = read_identity(encode.frame_model, encode.frame_revision) if encode.frame_model else clip
        size = show_bytes(estimate_bytes(plan, config, clip.dimension, frame.dimension))
        self._say(
            f"{plan.n_to_decode} files to encode, about {show_hours(plan.seconds_to_decode)};"
            f" about {size} to be written (frames: {config.store.frames})"
        )
        if encode.clip_model == BUNDLED:
            self._say(
                f"note: {BUNDLED} knows fourteen synthetic sounds, to try things out;"
                " for real ones give --model facebook/pe-av-base --frame-model facebook/pe-a-frame-base"
            )

    def update(self, progress: "Progress") -> None:
        """Show where the run is."""
        from pipeline.record import make_record

        now = time.monotonic()
        due = now - self._said_at >= (LINE_EVERY_S if self._bar is None else BAR_EVERY_S)
        if self._quiet or not (due or (self._bar is not None and progress.stage == "done")):
            return
        self._said_at = now
        record = make_record(progress)
        if self._bar is None:
            self._say(describe(record))
            return
        self._bar.update(
            self._task,
            description=record.doing,
            total=record.n_files or None,
            completed=record.n_done,
            pace=", ".join(part for part in _describe_pace(record) if part),
        )

    def _say(self, line: str) -> None:
        self._console.print(line, highlight=False, soft_wrap=True)
