"""``earshot similar``: clips that sound like an audio file."""

from typing import Annotated

import typer

from jobs.shared.hits import print_hits
from jobs.shared.opening import Question
from jobs.shared.options import AllWindows, Exact, Json, NoServer, Path_, Top, Verbose, Where


def similar(
    index: Path_,
    sound: Annotated[
        str,
        typer.Argument(metavar="SOUND", help="An audio file, a member (shard.tar#member) or a range (file#t=10,20)."),
    ],
    start: Annotated[float, typer.Option(help="Start of the part to compare, in seconds.", min=0.0)] = 0.0,
    end: Annotated[float | None, typer.Option(help="End of the part to compare, in seconds.", min=0.0)] = None,
    k: Top = 10,
    where: Where = None,
    all_windows: AllWindows = False,
    exact: Exact = False,
    json: Json = False,
    no_server: NoServer = False,
    verbose: Verbose = False,
) -> None:
    """Find the clips that sound most like SOUND, ranked by cosine.

    Example: earshot similar my-index bark.wav --start 1.5 --end 3
    """
    from pipeline.errors import EarshotError, FileFailure, UsageError

    if end is not None and end <= start:
        raise UsageError(f"--end: {end} s is not after --start ({start} s)")
    question = Question(index, sound, use_server=not no_server, verbose=verbose)
    try:
        hits = question.similar_to_file(
            sound, k, start_s=start, end_s=end, where=where, all_windows=all_windows, exact=exact
        )
    except FileFailure as failure:
        wrong_call = failure.reason in ("vanished", "too_short", "out_of_range")
        raise (UsageError if wrong_call else EarshotError)(f"{sound}: {failure.message}") from None
    print_hits(f"like {sound} in {index}", hits, json=json, where=where)
