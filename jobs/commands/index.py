"""``earshot index``: bring an index up to date with a corpus."""

import os
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from jobs.shared.display import Display
from jobs.shared.interrupt import Stopped, leave
from jobs.shared.options import AllowDeletions, Json, Rebuild
from jobs.shared.output import print_error, print_json, print_line, show_count, show_hours

if TYPE_CHECKING:
    from pipeline.config import Config
    from pipeline.errors import RayDied
    from pipeline.planning.request import RunRequest
    from pipeline.run.progress import Progress


def index(
    sources: Annotated[
        list[str] | None,
        typer.Argument(metavar="SOURCE", help="Folders, files or globs; or one configuration, *.yaml."),
    ] = None,
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
    metadata: Annotated[
        str | None, typer.Option(help="Table with a column uri: what its others say of files can be asked for.")
    ] = None,
    move_source: Annotated[
        tuple[str, str] | None,
        typer.Option(metavar="OLD NEW", help="A source of the index was renamed: its files are found again at NEW."),
    ] = None,
    forget: Annotated[
        list[str] | None, typer.Option(metavar="SOURCE", help="Give up a source of the index: its files go.")
    ] = None,
    allow_deletions: AllowDeletions = False,
    rebuild: Rebuild = False,
    json: Json = False,
) -> None:
    """Index audio files, or add further sources to an index; run again, only what is missing is done.

    A configuration says which sources an index has; sources given here are added to those it has already.

    Example: earshot index ~/sounds --into my-index --model facebook/pe-av-base
    """
    from pipeline.planning.request import RunRequest
    from pipeline.storage import absolute

    options = {"into": into, "model": model, "frame_model": frame_model, "frames": frames, "metadata": metadata}
    config = _read_config(sources or [], options, move_source, forget or [])
    moved = (absolute(move_source[0]), absolute(move_source[1])) if move_source else None
    request = RunRequest(allow_deletions=allow_deletions, moved=moved, forgotten=tuple(map(absolute, forget or [])))
    finish(config, run(config, json=json, request=request, rebuild=rebuild))


def finish(config: "Config", progress: "Progress") -> None:
    """Exit with 1 where a run has left something undone, or too many files failed."""
    from pipeline.run.progress import find_shortfall

    if shortfall := find_shortfall(progress, config.run.max_failed_fraction):
        print_error(f"earshot: {config.into}: {shortfall}")
        raise typer.Exit(1)


def _read_config(
    sources: list[str], options: dict[str, str | None], moved: tuple[str, str] | None, forgotten: list[str]
) -> "Config":
    from pipeline.config import load_config, make_config
    from pipeline.corpus.source_changes import change_sources
    from pipeline.errors import ConfigError, UsageError
    from pipeline.index.handle import open_index
    from pipeline.run.prepare import read_config
    from pipeline.storage import absolute

    is_file = [source for source in sources if source.lower().endswith((".yaml", ".yml"))]
    if is_file:
        changes = {"move_source": moved, "forget": forgotten or None}
        given = [f"--{name.replace('_', '-')}" for name, value in {**options, **changes}.items() if value is not None]
        if len(sources) > 1 or given:
            extra = ", ".join([source for source in sources if source != is_file[0]] + given)
            raise UsageError(f"{is_file[0]}: a configuration says everything; leave out {extra}")
        return load_config(is_file[0])
    if options["into"] is None:
        raise ConfigError("--into: say where the index is to be, for example --into my-index")
    if moved or forgotten:
        config = change_sources(read_config(open_index(options["into"])), moved, forgotten, sources)
        values = config.model_dump(mode="json")
    elif sources:
        values = _stored(options["into"])
        given = [absolute(source) for source in sources]
        values["sources"] = list(dict.fromkeys([*values.get("sources", ()), *given]))
    else:
        raise UsageError(f"SOURCE: say what to index; `earshot reindex {options['into']}` looks at the sources it has")
    encode, store = dict(values.get("encode", {})), dict(values.get("store", {}))
    for key in ("clip", "frame"):
        if (name := options["model" if key == "clip" else "frame_model"]) is not None:
            encode[f"{key}_model"] = name
            encode.pop(f"{key}_revision", None)
    if options["frames"] is not None:
        store["frames"] = options["frames"]
    corpus = dict(values.get("corpus", {}))
    if options["metadata"] is not None:
        corpus["metadata"] = absolute(options["metadata"])
    values |= {"into": options["into"], "corpus": corpus, "encode": encode, "store": store}
    return make_config(values, "earshot index")


def _stored(into: str) -> dict[str, Any]:
    """What an index that exists was made with holds for it, and its sources remain, unless asked otherwise."""
    from pipeline.index.handle import find_index
    from pipeline.run.prepare import read_config

    index = find_index(into)
    return {} if index.live.config is None else read_config(index).model_dump(mode="json")


def run(
    config: "Config", *, json: bool = False, request: "RunRequest | None" = None, rebuild: bool = False
) -> "Progress":
    """Index, show the progress, and say what was done."""
    from pipeline.planning.request import RunRequest
    from pipeline.run.driver import index_corpus
    from pipeline.run.environment import RUN_VARIABLE

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
                request=request or RunRequest(),
                rebuild=rebuild,
                run_id=os.environ.get(RUN_VARIABLE),
                give_up=give_up,
            )
        except KeyboardInterrupt:
            raise Stopped("stopped; what was published stays, run again to go on") from None
    summary = {
        "files": progress.n_files,
        "unchanged": progress.n_unchanged,
        "metadata": progress.n_metadata,
        "indexed": progress.n_indexed,
        "failed": progress.n_failed,
        "failed_before": progress.n_failed_before,
        "deleted": progress.n_deleted,
        "clips": progress.n_clips,
        "frames": progress.n_frames,
        "hours": progress.audio_s / 3600,
        "seconds": time.monotonic() - began,
        "reasons": dict(progress.reasons),
        "not_looked_at": progress.not_looked_at,
        "notes": list(progress.notes),
    }
    if json:
        print_json([summary])
    else:
        _print_summary(config, progress, summary)
    return progress


def _print_summary(config: "Config", progress: "Progress", summary: dict[str, Any]) -> None:
    from pipeline.corpus.ignored_files import summarize

    of_them = [f"{progress.n_failed_before} of them failed before"] if progress.n_failed_before else []
    of_them += [f"{progress.n_metadata} with other metadata"] if progress.n_metadata else []
    before = f" ({', '.join(of_them)})" if of_them else ""
    print_line(
        f"{show_count(progress.n_files, 'file')}: {progress.n_indexed} indexed,"
        f" {progress.n_unchanged} unchanged{before}, {progress.n_failed} failed, {progress.n_deleted} gone;"
        f" {show_count(progress.n_clips, 'clip')} and {show_count(progress.n_frames, 'frame')}"
        f" of {show_hours(progress.audio_s)} of audio in {summary['seconds']:.1f} s"
    )
    for note in progress.notes:
        print_line(f"note: {note}")
    if said := summarize(progress.not_looked_at):
        print_line(f"not looked at: {said}")
    if progress.reasons:
        reasons = ", ".join(f"{count} {reason}" for reason, count in progress.reasons.most_common())
        print_line(f"{reasons}: see `earshot failures {config.into}`")
