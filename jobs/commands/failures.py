"""``earshot failures``: files that failed or were indexed in part, and indexed files with a note."""

import shlex
from collections import Counter
from typing import Annotated, Any

import typer

from jobs.shared.options import Json, Path_
from jobs.shared.output import print_json, print_line, print_table
from pipeline.words import count

FAILURES = "status = 'failed' OR (status = 'indexed' AND reason IS NOT NULL)"

MANY = 40
"""More failures are shown by reason, with an example of each."""


def failures(
    index: Path_,
    reason: Annotated[str | None, typer.Option(help="Only files that failed for this reason.")] = None,
    json: Json = False,
) -> None:
    """List files that failed, and files that could be decoded only in part, with the reason.

    Many failures are counted by reason; `--reason` lists those of one. A second table lists indexed files with a note,
    such as that a file has no header.

    Example: earshot failures my-index --reason truncated
    """
    import pipeline

    opened = pipeline.open(index)
    columns = ["uri", "status", "stage", "reason", "message"]
    rows = opened.to_arrow("files", columns=columns, where=FAILURES).sort_by("uri").to_pylist()
    notes = opened.notes().sort_by("uri").to_pylist() if reason is None else []
    if reason is not None:
        rows = _choose(rows, reason, index)
    if json:
        note_of = {row["uri"]: row["note"] for row in notes}
        print_json({**row, "note": note_of.pop(row["uri"], None)} for row in rows)
        print_json(
            {"uri": uri, "status": "indexed", **dict.fromkeys(columns[2:]), "note": note_of[uri]} for uri in note_of
        )
        return
    title = f"{count(len(rows), 'file')} in {index}"
    if len(rows) > MANY and reason is None:
        _print_reasons(title, rows)
        print_line(f"`earshot failures {shlex.quote(index)} --reason NAME` lists the files of one reason, --json all")
    elif rows:
        values = [[row[name] for name in columns] for row in rows]
        print_table(title, ["file", *columns[1:]], values, whole=columns[1:4], paths="file")
    else:
        print_line("no failures")
    if notes:
        _print_notes(notes)


def _print_notes(notes: list[dict[str, Any]]) -> None:
    title = f"{count(len(notes), 'file')} with a note"
    if len(notes) <= MANY:
        print_table(title, ["file", "note"], [[row["uri"], row["note"]] for row in notes], paths="file")
        return
    examples = {row["note"]: row["uri"] for row in reversed(notes)}
    counts = Counter(row["note"] for row in notes)
    values = [[f"{n:,}", examples[note], note] for note, n in counts.most_common()]
    print_table(title, ["files", "for example", "note"], values, right=["files"], paths="for example")


def _choose(rows: list[dict[str, Any]], reason: str, index: str) -> list[dict[str, Any]]:
    from pipeline.errors import UsageError, suggest

    chosen = [row for row in rows if row["reason"] == reason]
    if not chosen:
        counts = Counter(row["reason"] for row in rows)
        there = ", ".join(f"{name} ({n:,})" for name, n in counts.most_common()) or "none"
        raise UsageError(f"--reason {reason}: no such failure in {index}{suggest(reason, counts)}; there are: {there}")
    return chosen


def _print_reasons(title: str, rows: list[dict[str, Any]]) -> None:
    """The reasons, the most frequent first, each with the first file that failed for it."""
    examples: dict[str, dict[str, Any]] = {}
    for row in rows:
        examples.setdefault(row["reason"], row)
    counts = Counter(row["reason"] for row in rows)
    values = [[name, f"{n:,}", examples[name]["uri"], examples[name]["message"]] for name, n in counts.most_common()]
    columns = ["reason", "files", "for example", "message"]
    print_table(title, columns, values, right=["files"], whole=["reason"], paths="for example")
