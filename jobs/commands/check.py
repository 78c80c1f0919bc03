"""``earshot check``: whether the models do on this machine what they should."""

import shutil
import textwrap
from typing import TYPE_CHECKING, Annotated

import typer

from jobs.shared.options import Json
from jobs.shared.output import print_json, print_line, show

if TYPE_CHECKING:
    from pipeline.encoder.check import Finding
    from pipeline.grid import Waveform

SOUND_S = 2.0


def check(
    model: Annotated[str, typer.Option(help="Model for clips, as in `earshot index`.")] = "earshot-tiny",
    frame_model: Annotated[str | None, typer.Option(help="Model for frames; the clip model if left out.")] = None,
    json: Json = False,
) -> None:
    """Load the models on this machine and say, line by line, whether they do what they should; exit with 1 if not.

    Nothing is indexed. Please run it with the models that you mean to use, and tell the project what it prints.

    Example: earshot check --model facebook/pe-av-small --frame-model facebook/pe-a-frame-small
    """
    from pipeline.config import EncodeConfig
    from pipeline.encoder.check import check as look
    from pipeline.encoder.malloc import keep_freed_memory

    keep_freed_memory()  # as the encoders of a run do
    n_wrong = n_right = 0
    for finding in look(EncodeConfig(clip_model=model, frame_model=frame_model), make_sounds()):
        n_wrong += finding.verdict == "wrong"
        n_right += finding.verdict == "right"
        if json:
            print_json([finding])
        else:
            for line in format_line(finding).splitlines():
                print_line(line)
    if not json:
        for line in summarise(n_right, n_wrong).splitlines():
            print_line(line)
    if n_wrong:
        raise typer.Exit(1)


def make_sounds() -> "list[Waveform]":
    """Three sounds of one length, synthetic; the first is a siren."""
    import numpy as np

    from jobs.tiny.synth import make_sound

    rng = np.random.default_rng(20)
    return [make_sound(label, SOUND_S, rng) for label in ("siren", "drum", "chirps")]


def format_line(finding: "Finding") -> str:
    """The verdict, what it is about, and why, within 80 columns; nothing before what has no right or wrong."""
    width = min(80, shutil.get_terminal_size().columns)
    verdict = "" if finding.verdict == "told" else finding.verdict
    return textwrap.fill(
        show(f"{finding.what}: {finding.said}"),
        width,
        initial_indent=f"{verdict:7}",
        subsequent_indent=" " * 9,
        break_long_words=False,
        break_on_hyphens=False,
    )


def summarise(n_right: int, n_wrong: int) -> str:
    if not n_wrong:
        return f"all {n_right} are right; please tell the project what was printed"
    return (
        f"{n_wrong} of {n_right + n_wrong} are wrong: index nothing with these models here,\n"
        "and please report what was printed (`--json` has all figures)"
    )
