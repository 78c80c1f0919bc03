"""``earshot index``: bring an index up to date with a corpus."""

import shlex
from typing import TYPE_CHECKING, Annotated, Any

import typer

from jobs.shared.indexing import exit_on_shortfall, run_index
from jobs.shared.options import AllowDeletions, Json, Rebuild, is_config

if TYPE_CHECKING:
    from pipeline.config import Config


def index(
    context: typer.Context,
    sources: Annotated[
        list[str] | None,
        typer.Argument(metavar="SOURCE", help="Folders, files or globs; or one configuration, *.yaml."),
    ] = None,
    into: Annotated[str | None, typer.Option(help="Folder of the index; created if it does not exist.")] = None,
    model: Annotated[
        str | None,
        typer.Option(help="Model for clips: earshot-tiny, a folder, or a hub name like facebook/pe-av-base."),
    ] = None,
    frame_model: Annotated[
        str | None, typer.Option(help="Model for frames, like facebook/pe-a-frame-base; by default the clip model.")
    ] = None,
    frames: Annotated[
        str | None, typer.Option(help="all: store every frame, for `locate` (4 GB per 20 hours); none: clips only.")
    ] = None,
    metadata: Annotated[
        str | None, typer.Option(help="Table keyed by `uri`; its other columns can be used in --where.")
    ] = None,
    move_source: Annotated[
        tuple[str, str] | None,
        typer.Option(metavar="OLD NEW", help="A source was renamed from OLD to NEW; nothing is encoded again."),
    ] = None,
    forget: Annotated[
        list[str] | None, typer.Option(metavar="SOURCE", help="Remove a source and its files from the index.")
    ] = None,
    allow_deletions: AllowDeletions = False,
    rebuild: Rebuild = False,
    json: Json = False,
) -> None:
    """Index audio files, or add sources to an index. A second run encodes only what is missing.

    A configuration lists all sources of an index; sources given here are added to those it has.

    Example: earshot index ~/sounds --into my-index --model facebook/pe-av-base
    """
    from pipeline.planning.request import RunRequest
    from pipeline.storage import absolute

    options = {"into": into, "model": model, "frame_model": frame_model, "frames": frames, "metadata": metadata}
    config = _read_config(sources or [], options, move_source, forget or [])
    moved = (absolute(move_source[0]), absolute(move_source[1])) if move_source else None
    request = RunRequest(allow_deletions=allow_deletions, moved=moved, forgotten=tuple(map(absolute, forget or [])))
    progress = run_index(config, json=json, request=request, rebuild=rebuild, workers=context.obj)
    exit_on_shortfall(config, progress)


def _read_config(
    sources: list[str], options: dict[str, str | None], moved: tuple[str, str] | None, forgotten: list[str]
) -> "Config":
    """The configuration given as a file; else that of the index, or the default one, with the sources and options."""
    from pipeline.config import load_config, make_config
    from pipeline.corpus.source_changes import change_sources
    from pipeline.errors import ConfigError, UsageError
    from pipeline.index.handle import find_index, open_index
    from pipeline.run.prepare import read_config
    from pipeline.storage import absolute

    if files := list(filter(is_config, sources)):
        changes = {"move_source": moved, "forget": forgotten or None}
        given = [f"--{name.replace('_', '-')}" for name, value in {**options, **changes}.items() if value is not None]
        if len(sources) > 1 or given:
            extra = ", ".join([source for source in sources if source != files[0]] + given)
            raise UsageError(f"{files[0]}: a configuration says everything; leave out {extra}")
        return load_config(files[0])
    into = options["into"]
    if into is None:
        raise ConfigError("--into: name the folder of the index, for example --into my-index")
    if moved or forgotten:
        values = change_sources(read_config(open_index(into)), moved, forgotten, sources).model_dump(mode="json")
    elif sources:
        index = find_index(into)
        values = {} if index.live.config is None else read_config(index).model_dump(mode="json")
        values["sources"] = list(dict.fromkeys([*values.get("sources", ()), *map(absolute, sources)]))
    else:
        raise UsageError(
            f"SOURCE: name what to index; `earshot reindex {shlex.quote(into)}` uses the sources that it has"
        )
    return make_config(_with_options(values, options), "earshot index")


def _with_options(values: dict[str, Any], options: dict[str, str | None]) -> dict[str, Any]:
    """The values of a configuration, changed by the options that are given."""
    from pipeline.storage import absolute

    encode, store, corpus = (dict(values.get(section, {})) for section in ("encode", "store", "corpus"))
    for kind, option in (("clip", "model"), ("frame", "frame_model")):
        if (name := options[option]) is not None:
            encode[f"{kind}_model"] = name
            encode.pop(f"{kind}_revision", None)
    if options["frames"] is not None:
        store["frames"] = options["frames"]
    if options["metadata"] is not None:
        corpus["metadata"] = absolute(options["metadata"])
    return values | {"into": options["into"], "corpus": corpus, "encode": encode, "store": store}
