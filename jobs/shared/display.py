"""The progress of a run: a bar on a terminal, lines elsewhere. Both render its record."""

import time
from typing import TYPE_CHECKING

from jobs.shared.output import make_console, show, show_left, to_text
from pipeline.words import count, show_bytes, show_duration

if TYPE_CHECKING:
    from rich.console import Console
    from rich.live import Live

    from pipeline.config import Config
    from pipeline.planning.plan import Plan
    from pipeline.run.progress import Progress
    from pipeline.run.record import Record

LINE_EVERY_S = 5.0
"""Between lines, off a terminal."""

BAR_EVERY_S = 0.2
"""Between updates of the bar."""


def describe(record: "Record") -> str:
    """A record in one line: ``encoding: 12 of 40 files, 30.0 min of about 2.0 h of audio, 31x real time, 3 min left,
    failures: 1 not_audio; decode 200x, encode 31x (busiest: 98%), write 900x``."""
    counted = f"{record.doing}: {record.n_done} of {count(record.n_files, 'file')}" if record.n_files else record.doing
    failures = show_failures(record, at_most=3)
    parts = [counted, *_describe_throughput(record), *([f"failures: {failures}"] if failures else [])]
    return "; ".join(filter(None, [", ".join(parts), _describe_stages(record)]))


def show_failures(record: "Record", at_most: int | None = None) -> str:
    """Failures by reason, the most frequent first: ``12 not_audio, 3 truncated``."""
    by_count = sorted(record.failures.items(), key=lambda failure: -failure[1])
    rest = sum(count for _, count in by_count[at_most:]) if at_most is not None else 0
    shown = [f"{count} {reason}" for reason, count in by_count[:at_most]]
    return ", ".join([*shown, *([f"{rest} {'other' if rest == 1 else 'others'}"] if rest else [])])


def _describe_throughput(record: "Record") -> list[str]:
    about = "" if record.state == "done" else "about "
    hours = f"{show_duration(record.hours_done * 3600)} of {about}{show_duration(record.hours_all * 3600)} of audio"
    found = [
        hours if record.hours_all else "",
        f"{record.hours_per_hour:.0f}x real time" if record.hours_per_hour else "",
        f"{show_left(record.eta_s)} left" if record.eta_s is not None else "",
    ]
    return [part for part in found if part]


def _describe_stages(record: "Record") -> str:
    """Audio per working second of each stage; the busiest one with its share of time at work."""

    def describe_stage(name: str) -> str:
        stage = record.stages[name]
        is_busiest = name == record.bottleneck and stage.busy is not None and record.state == "running"
        return f"{name} {stage.speed:.0f}x" + (f" (busiest: {stage.busy:.0%})" if is_busiest else "")

    return ", ".join(describe_stage(name) for name, stage in record.stages.items() if stage.speed is not None)


def _measure_progress(record: "Record") -> tuple[float, float | None]:
    """How much is done, and of how much, None where that is unknown: hours, for the longest files are encoded first;
    files where there is nothing to encode."""
    if record.hours_all:
        return record.hours_done, record.hours_all
    return record.n_done, record.n_files or None


class Display:
    """On a terminal a progress bar, with the rest of the record below it; elsewhere a line every five seconds.

    Everything goes to stderr, or to ``console``.
    """

    def __init__(self, *, json: bool, console: "Console | None" = None) -> None:
        self._console = console or make_console(to_stderr=True)
        self._quiet = json
        self._live: Live | None = None
        self._shown_at = time.monotonic()

    def __enter__(self) -> "Display":
        from rich.live import Live
        from rich.progress import BarColumn, Progress, SpinnerColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn

        if not self._quiet and self._console.is_terminal:
            self._bar = Progress(
                SpinnerColumn(),
                TextColumn("{task.description}", markup=False),
                BarColumn(bar_width=None),
                TaskProgressColumn(),
                TextColumn("{task.fields[files]}", markup=False),
                TimeElapsedColumn(),
                expand=True,
            )
            self._task = self._bar.add_task("listing", total=None, files="")
            self._live = Live(self._bar, console=self._console, refresh_per_second=5)
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the bar. Its last state stays on the terminal; other text may follow."""
        if self._live is not None:
            self._live.stop()

    def announce(self, plan: "Plan", config: "Config") -> None:
        """Before the work, print what will be encoded and how many bytes will be written."""
        from pipeline.encoder.checkpoint import BUNDLED

        if self._quiet:
            return
        if plan.n_examined:
            hours = show_duration(plan.seconds_examined)
            self._say(
                f"{count(plan.n_examined, 'file')} to examine, whose decoding was corrected: up to {hours} of audio"
                f" to encode again, and {show_bytes(plan.bytes_examined)} to be written"
            )
        if plan.n_to_decode:
            self._say(
                f"{count(plan.n_to_decode, 'file')} to encode, about {show_duration(plan.seconds_to_decode)} of audio;"
                f" about {show_bytes(plan.bytes_to_write)} to be written (frames: {config.store.frames})"
            )
        if plan.lack_of_space:
            self._say(f"warning: {plan.lack_of_space}")
        if plan.n_to_decode and config.encode.clip_model == BUNDLED:
            self._say(
                f"note: {BUNDLED} knows only fourteen synthetic sounds;"
                " for real ones give --model facebook/pe-av-base --frame-model facebook/pe-a-frame-base"
            )

    def update(self, progress: "Progress") -> None:
        """Show the progress, unless it was shown a moment ago."""
        from pipeline.run.record import make_record

        now = time.monotonic()
        due = now - self._shown_at >= (LINE_EVERY_S if self._live is None else BAR_EVERY_S)
        if self._quiet or not (due or (self._live is not None and progress.stage == "done")):
            return
        self._shown_at = now
        record = make_record(progress)
        if self._live is None:
            self._say(describe(record))
            return
        from rich.console import Group

        done, total = _measure_progress(record)
        files = f"{record.n_done:,} of {count(record.n_files, 'file')}" if record.n_files else ""
        self._bar.update(self._task, description=show(record.doing), total=total, completed=done, files=files)
        failures = show_failures(record)
        below = [
            ", ".join(_describe_throughput(record)),
            _describe_stages(record),
            failures and f"failures: {failures}",
        ]
        self._live.update(Group(self._bar, *(to_text(f"  {line}") for line in below if line)))

    def _say(self, line: str) -> None:
        self._console.print(to_text(line), soft_wrap=True)
