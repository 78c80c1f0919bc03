"""``earshot export``: hits and marks as files for other programs."""

import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from jobs.shared.hits import CUT
from jobs.shared.interrupt import Stopped
from jobs.shared.opening import open_for_question
from jobs.shared.options import AllWindows, Exact, MergeGap, MinDuration, Path_, Threshold, Where
from jobs.shared.output import print_content, print_error, print_json, print_line
from jobs.shared.steps import Steps
from pipeline.words import count

if TYPE_CHECKING:
    from pipeline.export.exporting import Problem
    from pipeline.export.request import Request
    from pipeline.search.client import Index


def export(
    index: Path_,
    form: Annotated[
        str,
        typer.Option(
            "--format",
            metavar="FORMAT",
            help="csv, jsonl or dcase: one file; audacity or raven: one for each recording; wav or flac: cut audio;"
            " clip-vectors or frame-vectors: Parquet.",
        ),
    ],
    query: Annotated[
        list[str] | None, typer.Option(metavar="TEXT", help="Export the clips that match this; may be repeated.")
    ] = None,
    locate: Annotated[
        list[str] | None, typer.Option(metavar="TEXT", help="Export the events that match this; may be repeated.")
    ] = None,
    hits: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Export the hits in this file, as `query`, `locate` and `similar` print them with --json, or in a CSV"
            " with uri, start_s and end_s; - for stdin.",
        ),
    ] = None,
    marks: Annotated[bool, typer.Option("--marks", help="Export the marks.")] = False,
    out: Annotated[
        str | None,
        typer.Option(metavar="PATH", help="File to write, or new folder; - for stdout, where csv, jsonl, dcase go."),
    ] = None,
    verdict: Annotated[
        str | None,
        typer.Option(
            help="With --marks: right, wrong, unsure, or several with commas. By default all; for dcase, right."
        ),
    ] = None,
    label: Annotated[
        str | None, typer.Option(metavar="TEXT", help="The text of hits in a file that have none.")
    ] = None,
    k: Annotated[int, typer.Option("-k", help="Number of results for each text.", min=1)] = 100,
    threshold: Threshold = 0.3,
    min_duration: MinDuration = 0.0,
    merge_gap: MergeGap = 0.2,
    where: Where = None,
    all_windows: AllWindows = False,
    exact: Exact = False,
    padding: Annotated[
        float, typer.Option(help="Cut audio: seconds of the recording before and after each span.", min=0)
    ] = 0.0,
    precision: Annotated[str, typer.Option(help="Vectors: float32, or float16 as they are stored.")] = "float32",
    json: Annotated[bool, typer.Option("--json", help="Print what was done as a JSON line.")] = False,
) -> None:
    """Write hits or marks for other programs: tables, labels, cut audio, vectors with their times.

    Vectors without --query, --locate, --hits and --marks are all of the index.

    If an export into a folder is interrupted, the same command goes on with it.

    Example: earshot export my-index --locate "dog barking" --format audacity --out labels
    """
    from pipeline.errors import UsageError
    from pipeline.export.request import Request
    from pipeline.export.sources import Questions

    questions = Questions(
        tuple(query or ()), tuple(locate or ()), k, where, threshold, min_duration, merge_gap, all_windows, exact
    )
    given = None if hits is None else read_given(hits)
    verdicts = None if verdict is None else tuple(each.strip() for each in verdict.split(","))
    name = "stdin" if hits == "-" else hits or ""
    request = Request(form, questions, given, name, label, marks, verdicts, padding, precision)
    if request.is_one_file and out is not None and os.path.isdir(out):
        raise UsageError(f"--out {out}: is a folder: give the name of a file")
    if not request.is_one_file and out in (None, "-"):
        raise UsageError(f"--out: give a new folder: {form} is several files")
    opened = open_for_question(index, next(iter([*questions.queries, *questions.locates]), index))
    if request.is_one_file:
        write_text(opened, request, out or "-", json=json)
    else:
        fill_folder(opened, request, str(out), json=json)


def read_given(hits: str) -> bytes:
    """The content of a file of hits, or of stdin."""
    from pipeline.errors import UsageError

    try:
        return sys.stdin.buffer.read() if hits == "-" else Path(hits).read_bytes()
    except OSError as error:
        raise UsageError(f"--hits {hits}: {error.strerror}") from None


def write_text(opened: "Index", request: "Request", out: str, *, json: bool) -> None:
    """Write one file of text, or print it."""
    from pipeline.export.folder import write_file
    from pipeline.export.request import find_labels, to_stream

    answer = find_labels(opened, request)
    stream = to_stream(opened, request, answer.labels)
    if out == "-":
        print_content(stream.pieces)
    else:
        write_file(out, stream.pieces)
        n_labels = len(answer.labels) - len(stream.problems)
        _say({"labels": n_labels, "files": [out]}, f"{count(n_labels, 'label')} in {out}", stream.problems, json=json)
    _end(stream.problems, is_cut=answer.is_cut)


def fill_folder(opened: "Index", request: "Request", out: str, *, json: bool) -> None:
    """Write several files into a folder."""
    from pipeline.export.request import CUTS, VECTORS, export_into

    doing, what = ("cutting", "sounds") if request.form in CUTS else ("writing", "steps")
    try:
        with Steps(doing, what, json=json) as steps:
            done, answer = export_into(opened, request, out, steps)
    except KeyboardInterrupt:
        raise Stopped(f"stopped; the same command goes on with {out}") from None
    if request.form in CUTS:
        line = f"{count(len(done.names) - 1, 'sound')} and {done.names[-1]}"
    elif request.form in VECTORS:
        line = f"{count(done.n_rows, 'vector')} in {count(len(done.names), 'file')}"
    else:
        line = f"{count(done.n_labels, 'label')} of {count(len(done.names), 'recording')}"
    values = {"labels": done.n_labels, "rows": done.n_rows, "files": done.names}
    _say(values, f"{line} in {out}", done.problems, json=json)
    _end(done.problems, is_cut=answer.is_cut)


def _say(values: dict[str, Any], line: str, problems: "Sequence[Problem]", *, json: bool) -> None:
    if json:
        print_json([{**values, "problems": [asdict(problem) for problem in problems]}])
    else:
        print_line(line)


def _end(problems: "Sequence[Problem]", *, is_cut: bool) -> None:
    """Print a line for each label that was left out; if there is any, exit with 1."""
    if is_cut:
        print_error(CUT)
    for each in problems:
        print_error(f"earshot: {each.uri} from {each.start_s:.2f} s: {each.reason}: {each.message}")
    if problems:
        raise typer.Exit(1)
