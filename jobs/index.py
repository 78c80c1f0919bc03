"""``earshot index``: bring an index up to date with a corpus."""

import sys
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from jobs.output import print_json, show_bytes
from jobs.query import Json

if TYPE_CHECKING:
    from pipeline.config import Config
    from pipeline.plan import Choice, Plan
    from pipeline.run import Progress


Rebuild = Annotated[
    bool,
    typer.Option("--rebuild", help="Encode everything anew, maybe with other settings; queries see the old meanwhile."),
]


def index(
    sources: Annotated[
        list[str], typer.Argument(metavar="SOURCE...", help="Folders, files or globs; or one configuration, *.yaml.")
    ],
    into: Annotated[str | None, typer.Option(help="Folder of the index, made if it does not exist.")] = None,
    model: Annotated[
        str | None,
        typer.Option(help="Model for clips: earshot-tiny, a folder, or a hub name like facebook/pe-av-base."),
    ] = None,
    frame_model: Annotated[
        str | None, typer.Option(help="Model for frames, like facebook/pe-a-frame-base; the clip model if left out.")
    ] = None,
    frames: Annotated[
        str | None, typer.Option(help="all: store every frame, for `locate` (4 GB per 20 hours); none: clips only.")
    ] = None,
    rebuild: Rebuild = False,
    json: Json = False,
) -> None:
    """Index audio files, or add further sources to an index; run again, only what is missing is done.

    A configuration says which sources an index has; sources given here are added to those it has already.

    Example: earshot index ~/sounds --into my-index --model facebook/pe-av-base
    """
    config = _read_config(sources, {"into": into, "model": model, "frame_model": frame_model, "frames": frames})
    finish(config, run(config, json=json, rebuild=rebuild))


def finish(config: "Config", progress: "Progress") -> None:
    """Exit with 1 where a run has left something undone, or too many files failed."""
    complaints = []
    if progress.unpublished:
        n_files = progress.n_files - progress.n_done
        complaints.append(f"{n_files} files are left, run again: {progress.unpublished[0]}")
    if progress.failed_fraction > config.run.max_failed_fraction:
        allowed = f"run.max_failed_fraction allows {config.run.max_failed_fraction:.1%}"
        complaints.append(f"{progress.failed_fraction:.1%} of the files failed, {allowed}")
    if complaints:
        print(f"earshot: {config.into}: {'; '.join(complaints)}", file=sys.stderr)
        raise typer.Exit(1)


def _read_config(sources: list[str], options: dict[str, str | None]) -> "Config":
    from pipeline.config import load_config, make_config
    from pipeline.errors import ConfigError, UsageError
    from pipeline.storage import absolute

    is_file = [source for source in sources if source.lower().endswith((".yaml", ".yml"))]
    if is_file:
        given = [f"--{name.replace('_', '-')}" for name, value in options.items() if value is not None]
        if len(sources) > 1 or given:
            extra = ", ".join([source for source in sources if source != is_file[0]] + given)
            raise UsageError(f"{is_file[0]}: a configuration says everything; leave out {extra}")
        return load_config(is_file[0])
    if options["into"] is None:
        raise ConfigError("--into: say where the index is to be, for example --into my-index")
    values = _stored(options["into"])
    encode, store = dict(values.get("encode", {})), dict(values.get("store", {}))
    for key in ("clip", "frame"):
        if (name := options["model" if key == "clip" else "frame_model"]) is not None:
            encode[f"{key}_model"] = name
            encode.pop(f"{key}_revision", None)
    if options["frames"] is not None:
        store["frames"] = options["frames"]
    given = [absolute(source) for source in sources]
    values |= {"into": options["into"], "sources": list(dict.fromkeys([*values.get("sources", ()), *given]))}
    return make_config(values | {"encode": encode, "store": store}, "earshot index")


def _stored(into: str) -> dict[str, Any]:
    """What an index that exists was made with holds for it, and its sources remain, unless asked otherwise."""
    from pipeline import journal
    from pipeline.run import read_config

    tables = journal.live(into)
    if not journal.exists(tables) or journal.read_config(tables) is None:
        return {}
    return read_config(into).model_dump(mode="json")


def run(config: "Config", *, json: bool = False, choice: "Choice | None" = None, rebuild: bool = False) -> "Progress":
    """Index, show the progress, and say what was done."""
    from pipeline.errors import EarshotError
    from pipeline.plan import Choice
    from pipeline.run import index_corpus

    began = time.monotonic()
    with _Display(json=json) as display:
        try:
            progress = index_corpus(
                config,
                display.update,
                lambda plan: display.announce(plan, config),
                choice=choice or Choice(),
                rebuild=rebuild,
            )
        except KeyboardInterrupt:
            raise EarshotError("stopped; what was published stays, run again to go on") from None
    summary = {
        "files": progress.n_files,
        "unchanged": progress.n_unchanged,
        "indexed": progress.n_indexed,
        "failed": progress.n_failed,
        "failed_before": progress.n_failed_before,
        "deleted": progress.n_deleted,
        "clips": progress.n_clips,
        "frames": progress.n_frames,
        "hours": progress.audio_s / 3600,
        "seconds": time.monotonic() - began,
        "reasons": dict(progress.reasons),
    }
    if json:
        print_json([summary])
    else:
        _print_summary(config, progress, summary)
    return progress


def _print_summary(config: "Config", progress: "Progress", summary: dict[str, Any]) -> None:
    before = f" ({progress.n_failed_before} of them failed before)" if progress.n_failed_before else ""
    print(
        f"{progress.n_files} files: {progress.n_indexed} indexed, {progress.n_unchanged} unchanged{before},"
        f" {progress.n_failed} failed, {progress.n_deleted} gone;"
        f" {progress.n_clips} clips and {progress.n_frames} frames"
        f" of {show_hours(progress.audio_s)} in {summary['seconds']:.1f} s"
    )
    if progress.reasons:
        reasons = ", ".join(f"{count} {reason}" for reason, count in progress.reasons.most_common())
        print(f"{reasons}: see `earshot failures {config.into}`")


def show_hours(seconds: float) -> str:
    return f"{seconds / 3600:.2f} h" if seconds >= 360 else f"{seconds:.0f} s"


class _Display:
    """A progress bar on a terminal, a line every ten seconds elsewhere; all on stderr."""

    def __init__(self, *, json: bool) -> None:
        from rich.console import Console

        self._console = Console(stderr=True)
        self._quiet = json
        self._bar: Any = None
        self._said_at = time.monotonic()

    def __enter__(self) -> "_Display":
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

        if not self._quiet and self._console.is_terminal:
            columns = ("{task.description}", "{task.fields[hours]}", "{task.fields[speed]}", "{task.fields[failed]}")
            self._bar = Progress(
                SpinnerColumn(),
                TextColumn(columns[0]),
                BarColumn(),
                MofNCompleteColumn(),
                *(TextColumn(column) for column in columns[1:]),
                TimeElapsedColumn(),
                console=self._console,
            )
            self._task = self._bar.add_task("listing", total=None, hours="", speed="", failed="")
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
        self._console.print(
            f"{plan.n_to_decode} files to encode, about {show_hours(plan.seconds_to_decode)};"
            f" about {size} to be written (frames: {config.store.frames})",
            highlight=False,
        )
        if encode.clip_model == BUNDLED:
            self._console.print(
                f"note: {BUNDLED} knows fourteen synthetic sounds, to try things out;"
                " for real ones give --model facebook/pe-av-base --frame-model facebook/pe-a-frame-base",
                highlight=False,
            )

    def update(self, progress: "Progress") -> None:
        """Show where the run is."""
        speed = f"{progress.speed:.0f}x real time" if progress.speed else ""
        failed = f"{progress.n_failed} failed" if progress.n_failed else ""
        if self._bar is not None:
            self._bar.update(
                self._task,
                description=progress.stage,
                total=progress.n_files or None,
                completed=progress.n_done,
                hours=show_hours(progress.audio_s),
                speed=speed,
                failed=failed,
            )
        elif not self._quiet and time.monotonic() - self._said_at > 10:
            self._said_at = time.monotonic()
            parts = (f"{progress.n_done} of {progress.n_files} files", show_hours(progress.audio_s), speed, failed)
            self._console.print(f"{progress.stage}: {', '.join(part for part in parts if part)}", highlight=False)
