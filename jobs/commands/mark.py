"""``earshot mark``: what people say of sounds: made, listed, read from a file."""

import shlex
import shutil
import sys
from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from jobs.shared.hits import WIDE
from jobs.shared.opening import open_for_question
from jobs.shared.options import Json, Path_
from jobs.shared.output import print_content, print_error, print_json, print_line, print_table, show_time, show_when
from pipeline.words import count, show_path

if TYPE_CHECKING:
    from pipeline.marks.mark import Mark
    from pipeline.search.client import Index

MANY = 40
"""More marks are counted by text."""

ORDER = ("right", "wrong", "unsure", "none")
"""Of verdicts, in counts."""

STDIN = "standard input"


def mark(
    index: Path_,
    file: Annotated[
        str | None, typer.Argument(metavar="[FILE]", help="A file of the index, as `locate` and `query` print it.")
    ] = None,
    start: Annotated[
        str | None, typer.Option(metavar="TIME", help="Start in FILE: seconds, or 1:15.48. By default its start.")
    ] = None,
    end: Annotated[str | None, typer.Option(metavar="TIME", help="End in FILE. By default its end.")] = None,
    text: Annotated[str | None, typer.Option(help="What the sound was taken for.")] = None,
    verdict: Annotated[
        str | None, typer.Option(help="right, wrong or unsure; none takes a mark back. Without FILE, it selects.")
    ] = None,
    score: Annotated[float | None, typer.Option(help="Score of the hit, to be kept with the mark.")] = None,
    who: Annotated[str | None, typer.Option(help="Who says so. By default, the user's name.")] = None,
    from_: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="TABLE",
            help="Make the marks of a CSV file or of JSON lines, all or none; - for standard input. --text, --verdict"
            " and --who hold for lines without.",
        ),
    ] = None,
    history: Annotated[
        bool, typer.Option("--history", help="List also marks that were replaced or taken back, oldest first.")
    ] = False,
    csv: Annotated[bool, typer.Option("--csv", help="Print CSV, which --from reads.")] = False,
    json: Json = False,
) -> None:
    """Say whether a sound is what it was taken for, or list what was said.

    With FILE and --verdict, or with --from, this makes marks. Else it lists them; FILE, --text, --verdict and --who
    select. A mark belongs to the audio: it holds after a move, for every copy, and whatever happens to the index. Once
    no file has that audio any more, its status is gone. The newest mark of the same part and text counts.

    Example: earshot mark my-index bells.wav --start 3.8 --end 4.44 --text "a bell ringing" --verdict right
    """
    said = _Said(file, start, end, text, verdict, score, who)
    _check_call(said, from_, history=history, csv=csv, json=json)
    opened = open_for_question(index, file) if file is not None else _open(index)
    if from_ is not None:
        marks, line = _make_from(opened, from_, said)
    elif said.makes:
        marks, line = _make(opened, said)
    else:
        marks, line = [each for each in opened.marks(file, history=history) if said.selects(each)], None
    if csv:
        from pipeline.marks.mark_files import format_csv

        print_content(line.encode() for line in format_csv(marks))
    elif json:
        print_json(marks)
    elif line is not None:
        print_line(line)
    else:
        _print_list(index, marks, is_selected=said != _Said())


@dataclass(frozen=True)
class _Said:
    """What the arguments say of a sound."""

    uri: str | None = None
    start: str | None = None
    end: str | None = None
    text: str | None = None
    verdict: str | None = None
    score: float | None = None
    who: str | None = None

    @property
    def makes(self) -> bool:
        """Whether they make a mark."""
        return self.uri is not None and self.verdict is not None

    def selects(self, mark: "Mark") -> bool:
        """Whether a mark is one of those to list."""
        text = None if self.text is None else " ".join(self.text.split())
        wanted = {"text": text, "verdict": self.verdict, "who": self.who}
        return all(value is None or getattr(mark, name) == value for name, value in wanted.items())


def _open(index: str) -> "Index":
    import pipeline

    return pipeline.open(index)


def _check_call(said: _Said, from_: str | None, *, history: bool, csv: bool, json: bool) -> None:
    """Refuse options that do not belong together."""
    from pipeline.errors import UsageError
    from pipeline.marks.mark import check_verdict

    if csv and json:
        raise UsageError("--csv and --json: give one of them")
    places = {"FILE": said.uri, "--start": said.start, "--end": said.end, "--score": said.score}
    given = [name for name, value in places.items() if value is not None]
    if from_ is not None and (given or history):
        raise UsageError(f"{[*given, '--history'][0]}: cannot be given with --from, whose lines say all of a mark")
    if from_ is None and not said.makes and (odd := [name for name in given if name != "FILE"]):
        raise UsageError(f"{odd[0]}: to make a mark, give FILE, --text and --verdict, too")
    if said.makes and said.text is None:
        raise UsageError("--text: is missing; say what the sound was taken for")
    if said.makes and history:
        raise UsageError("--history: lists marks; leave out --verdict")
    if said.verdict is not None:
        check_verdict(said.verdict, "--")


def _make(opened: "Index", said: _Said) -> tuple[list["Mark"], str]:
    """Make a mark; returns it, and a line that says so."""
    from pipeline.errors import UsageError
    from pipeline.marks.mark_files import parse_seconds

    times = dict[str, float]()
    for name, given in (("start", said.start), ("end", said.end)):
        try:
            times |= {} if given is None else {f"{name}_s": parse_seconds(given)}
        except ValueError as error:
            raise UsageError(f"--{name}: {error}") from None
    mark = opened.mark(said.uri or "", said.text or "", said.verdict or "", score=said.score, who=said.who, **times)
    place = f"{show_path(mark.uri)} from {show_time(mark.start_s)} to {show_time(mark.end_s)}"
    what = "is taken back" if mark.verdict == "none" else f"is {mark.verdict}, says {mark.who}"
    return [mark], f"{place}: {mark.text!r} {what}"


def _make_from(opened: "Index", path: str, said: _Said) -> tuple[list["Mark"], str]:
    """Make the marks of a file; returns them, and a line that counts them."""
    from pipeline.marks.mark_files import Defaults, read_file, read_judgements

    name, data = (STDIN, sys.stdin.buffer.read()) if path == "-" else (path, read_file(path))
    found = read_judgements(name, data, Defaults(said.text, said.verdict, said.who))
    marks = opened.mark_all(found.judgements)
    if found.unknown:
        print_error(f"earshot: {name}: columns that were not read: {', '.join(found.unknown)}")
    n_before, n_gone = len(marks) - marks.n_new, sum(mark.status == "gone" for mark in marks)
    parts = [f"{count(marks.n_new, 'new mark')} from {name}"]
    parts += [f"{n_before:,} that were there already"] if n_before else []
    parts += [f"{n_gone:,} of audio that no file of the index has"] if n_gone else []
    return marks, "; ".join(parts)


# --- lists ------------------------------------------------------------------------------------------------------------


def _print_list(index: str, marks: "list[Mark]", *, is_selected: bool) -> None:
    if not marks:
        print_line(f"no such marks in {index}" if is_selected else f"no marks in {index}")
        return
    verdicts = Counter(mark.verdict for mark in marks)
    n_gone = sum(mark.status == "gone" for mark in marks)
    counts = ", ".join(f"{verdicts[name]:,} {name}" for name in ORDER if verdicts[name])
    title = f"{count(len(marks), 'mark')} in {index}: {counts}"
    title += f"; of {n_gone:,}, the audio is gone" if n_gone else ""
    if len(marks) > MANY and len({mark.text for mark in marks}) > 1:
        _print_texts(title, marks)
        print_line(f"`earshot mark {shlex.quote(index)} --text TEXT` lists the marks of one text, --csv or --json all")
    else:
        _print_marks(title, marks)


def _print_marks(title: str, marks: "list[Mark]") -> None:
    """A row for each mark; those whose audio is gone are dim."""
    is_gone = [mark.status == "gone" for mark in marks]
    is_wide = shutil.get_terminal_size().columns >= WIDE
    columns = ["file", "from", "to", "text", "verdict", "who"]
    columns += ["when", "score"] if is_wide else []
    columns += ["audio"] if any(is_gone) else []
    rows = []
    for mark in marks:
        cells = {
            "file": mark.uri,
            "from": show_time(mark.start_s),
            "to": show_time(mark.end_s),
            "text": mark.text,
            "verdict": mark.verdict,
            "who": mark.who,
            "when": show_when(mark.marked_at.isoformat()),
            "score": "-" if mark.score is None else f"{mark.score:.3f}",
            "audio": mark.status,
        }
        rows.append([cells[name] for name in columns])
    print_table(
        title, columns, rows, ["from", "to", "score"], ["verdict", "audio", "when"], paths="file", is_dim=is_gone
    )


def _print_texts(title: str, marks: "list[Mark]") -> None:
    """A row for each text, the one with the most marks first."""
    by_text: dict[str, Counter[str]] = defaultdict(Counter)
    for mark in marks:
        by_text[mark.text][mark.verdict] += 1
    verdicts = [name for name in ORDER if any(found[name] for found in by_text.values())]
    ranked = sorted(by_text.items(), key=lambda item: (-item[1].total(), item[0]))
    rows = [[text, *(f"{found[name]:,}" for name in verdicts)] for text, found in ranked]
    print_table(title, ["text", *verdicts], rows, right=verdicts)
