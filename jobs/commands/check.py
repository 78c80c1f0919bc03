"""``earshot check``: do the models work correctly on this machine?"""

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
    frame_model: Annotated[str | None, typer.Option(help="Model for frames; by default the clip model.")] = None,
    json: Json = False,
) -> None:
    """Load the models on this machine and check them, line by line; exit with 1 if something is wrong.

    It indexes nothing. Please run it with the models that you want to use, and send the output to the project.

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
    """Three synthetic sounds of equal length; the first is a siren."""
    import numpy as np

    from jobs.tiny.synth import make_sound

    rng = np.random.default_rng(20)
    return [make_sound(label, SOUND_S, rng) for label in ("siren", "drum", "chirps")]


def format_line(finding: "Finding") -> str:
    """A finding within 80 columns, with its verdict in front, where it has one."""
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
        return f"all {n_right} are right; please send this output to the project"
    return (
        f"{n_wrong} of {n_right + n_wrong} are wrong: do not index with these models here,\n"
        "and please report this output (`--json` has all figures)"
    )
