"""``earshot bench``: how fast this machine indexes your files, and how long a corpus will take."""

import os
from typing import TYPE_CHECKING, Annotated

import typer

from jobs.shared.options import Json
from jobs.shared.output import print_json, print_line, print_table
from pipeline.words import show_bytes

if TYPE_CHECKING:
    from pipeline.schema import Row

LINES = {
    "decode": "decode  {format}: {x_per_core:,.0f}x real time per core ({files} files)",
    "encode": "encode  {precision}, {batch} windows a batch, {processes} processes: {x:,.2f}x real time{note}",
    "write": "write   frames of {dimension} numbers: {x:,.0f}x real time",
    "run": "run     {files} files, {audio_s:,.0f} s of audio: {x:,.2f}x real time, {of_what_parts_allow:.0%} of the"
    " ceiling that the stages predict (windows overlap: {encoded_per_audio:.2f}x the audio is encoded);"
    " {start_s:.1f} s to start and end, {write_share:.1%} of the work is writing, bottleneck {bottleneck}",
}


def bench(
    sources: Annotated[
        list[str] | None,
        typer.Argument(metavar="SOURCE", help="As in `earshot index`; by default synthetic sounds."),
    ] = None,
    model: Annotated[
        str,
        typer.Option(help="Model for clips, as in `earshot index`; `random`: default size, without a download."),
    ] = "earshot-tiny",
    frame_model: Annotated[str | None, typer.Option(help="Model for frames; by default the clip model.")] = None,
    hours: Annotated[float, typer.Option(help="Hours of audio in the corpus to project.", min=0)] = 1e4,
    seconds: Annotated[float, typer.Option(help="Encode for about so long in the whole run.", min=1)] = 60.0,
    profile: Annotated[bool, typer.Option("--profile", help="Show where the encoder spends its time.")] = False,
    json: Json = False,
) -> None:
    """Measure decoding, encoding, writing and a whole run on this machine, and project the time for a corpus.

    It samples the files, uses the first minute of long ones, and leaves nothing behind.

    Example: earshot bench ~/sounds --model facebook/pe-av-small --hours 20000
    """
    from jobs.bench.profile import print_profile
    from jobs.bench.projection import project
    from pipeline.encoder.encoder import resolve_device
    from pipeline.encoder.parity import describe_machine

    machine = f"{len(os.sched_getaffinity(0))} cores; {describe_machine(resolve_device('auto'))}"
    if not json:
        print_line(machine)
    profiled = []
    for figure in project(sources or [], model, frame_model, hours, profile=profile, run_s=seconds):
        if json:
            print_json([{"machine": machine, **figure}])
        elif figure["part"] == "profile":
            profiled.append(figure)
        else:
            print_figure(figure)
    if profiled:
        print_profile(profiled)


def print_figure(figure: "Row") -> None:
    """Print one figure as a line, or the projection as a table."""
    if figure["part"] == "corpus":
        _print_projection(figure)
        return
    if figure["part"] == "run" and figure["x"] is None:
        print_line(
            f"run     {figure['files']} files, {figure['audio_s']:,.0f} s of audio: too few to measure a run;"
            " the projection below uses the ceiling that the stages predict"
        )
        return
    if figure["part"] == "encode":
        held = figure["batch_held"]
        figure = {**figure, "note": "" if held >= figure["batch"] else f" ({held:g} fit)"}
        if not held:
            print_line(f"encode  {figure['precision']}, {figure['batch']} windows a batch: does not fit")
            return
    print_line(LINES[figure["part"]].format(**figure))


def _print_projection(figure: "Row") -> None:
    columns = ["hours of audio", "days", "core hours", *(["GPU hours"] if "gpu_h" in figure else []), "index"]
    values = [f"{figure['hours']:,.0f}", f"{figure['wall_h'] / 24:,.1f}", f"{figure['core_h']:,.0f}"]
    values += [f"{figure['gpu_h']:,.0f}"] if "gpu_h" in figure else []
    values.append(show_bytes(figure["index_gb"] * 1e9))
    print_table("a corpus on this machine", columns, [values], right=columns)
