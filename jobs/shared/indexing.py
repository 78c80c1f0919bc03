"""A run as commands show it: its progress while it goes on, a summary at the end, and the exit code."""

import os
import shlex
import time
from typing import TYPE_CHECKING, Any

import typer

from jobs.shared.display import Display
from jobs.shared.interrupt import Stopped, leave
from jobs.shared.output import print_error, print_json, print_line
from pipeline.words import count, show_duration

if TYPE_CHECKING:
    from pipeline.config import Config
    from pipeline.errors import RayDied
    from pipeline.planning.plan import Plan
    from pipeline.planning.request import RunRequest
    from pipeline.run.dispatch import Workers
    from pipeline.run.progress import Progress


COUNTS = ("files", "unchanged", "metadata", "indexed", "failed", "failed_before", "deleted", "clips", "frames")
"""Numbers of a run, in the order in which ``--json`` has them."""


def run_index(
    config: "Config",
    *,
    json: bool = False,
    request: "RunRequest | None" = None,
    rebuild: bool = False,
    workers: "Workers | None" = None,
) -> "Progress":
    """Index, show the progress, and print a summary.

    Args:
        workers: Ray's by default; commands take them from ``typer.Context.obj``, where tests put others.
    """
    from pipeline.planning.request import RunRequest
    from pipeline.run.driver import index_corpus
    from pipeline.run.ray_start import RUN_VARIABLE

    began = time.monotonic()
    with Display(json=json) as display:

        def give_up(error: "RayDied") -> None:
            display.close()
            print_error(f"earshot: {error}")
            leave(error.exit_code)

        try:
            progress = index_corpus(
                config,
                display.update,
                lambda plan: display.announce(plan, config),
                workers,
                request or RunRequest(),
                rebuild=rebuild,
                run_id=os.environ.get(RUN_VARIABLE),
                give_up=give_up,
            )
        except KeyboardInterrupt:
            raise Stopped("stopped; what was published stays, run again to go on") from None
    summary = {
        **{name: getattr(progress, f"n_{name}") for name in COUNTS},
        "hours": progress.audio_s / 3600,
        "seconds": time.monotonic() - began,
        "reasons": dict(progress.reasons),
        "not_looked_at": progress.not_looked_at,
        "notes": list(progress.notes),
    }
    if json:
        print_json([summary])
    else:
        _print_summary(config, progress, summary["seconds"])
    return progress


def exit_on_shortfall(config: "Config", progress: "Progress") -> None:
    """Exit with 1 where a run has left something undone, or where too many files failed."""
    from pipeline.run.progress import find_shortfall

    if shortfall := find_shortfall(progress, config.run.max_failed_fraction):
        print_error(f"earshot: {config.into}: {shortfall}")
        raise typer.Exit(1)


def print_notes(noted: "Plan | Progress") -> None:
    """Print the notes of a plan or a run, and the kinds of files that it ignored."""
    from pipeline.corpus.ignored_files import summarize

    for note in noted.notes:
        print_line(f"note: {note}")
    if ignored := summarize(noted.not_looked_at):
        print_line(f"not looked at: {ignored}")


def _print_summary(config: "Config", progress: "Progress", seconds: Any) -> None:
    details = [f"{progress.n_failed_before} of them failed before"] if progress.n_failed_before else []
    details += [f"{progress.n_metadata} with other metadata"] if progress.n_metadata else []
    in_brackets = f" ({', '.join(details)})" if details else ""
    print_line(
        f"{count(progress.n_files, 'file')}: {progress.n_indexed} indexed,"
        f" {progress.n_unchanged} unchanged{in_brackets}, {progress.n_failed} failed, {progress.n_deleted} deleted;"
        f" {count(progress.n_clips, 'clip')} and {count(progress.n_frames, 'frame')}"
        f" of {show_duration(progress.audio_s)} of audio in {seconds:.1f} s"
    )
    print_notes(progress)
    if progress.reasons:
        reasons = ", ".join(f"{count} {reason}" for reason, count in progress.reasons.most_common())
        print_line(f"{reasons}: see `earshot failures {shlex.quote(config.into)}`")
