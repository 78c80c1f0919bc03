"""``earshot failures``: files that failed or were indexed in part, and indexed files with a note."""

from jobs.shared.options import Json, Path_
from jobs.shared.output import print_json, print_line, print_table, show_count, show_path

FAILURES = "status = 'failed' OR (status = 'indexed' AND reason IS NOT NULL)"


def failures(index: Path_, json: Json = False) -> None:
    """List files that failed, and files that could be decoded only in part, with the reason.

    A second table lists indexed files with a note, such as that a file has no header.

    Example: earshot failures my-index --json
    """
    import pipeline

    opened = pipeline.open(index)
    columns = ["uri", "status", "stage", "reason", "message"]
    rows = opened.to_arrow("files", columns=columns, where=FAILURES).sort_by("uri").to_pylist()
    notes = opened.notes().sort_by("uri").to_pylist()
    if json:
        note_of = {row["uri"]: row["note"] for row in notes}
        print_json({**row, "note": note_of.pop(row["uri"], None)} for row in rows)
        print_json(
            {"uri": uri, "status": "indexed", **dict.fromkeys(columns[2:]), "note": note_of[uri]} for uri in note_of
        )
        return
    if rows:
        values = [(show_path(row["uri"]), *(row[name] for name in columns[1:])) for row in rows]
        print_table(f"{show_count(len(rows), 'file')} in {index}", ["file", *columns[1:]], values)
    else:
        print_line("no failures")
    if notes:
        values = [(show_path(row["uri"]), row["note"]) for row in notes]
        print_table(f"{show_count(len(notes), 'file')} with a note", ["file", "note"], values)
