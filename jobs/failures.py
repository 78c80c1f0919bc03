"""``earshot failures``: files that could not be indexed, or only in part."""

from jobs.output import print_json, print_line, print_table, show_path
from jobs.query import Json, Path_

FAILURES = "status = 'failed' OR (status = 'indexed' AND reason IS NOT NULL)"


def failures(index: Path_, json: Json = False) -> None:
    """List the files that failed, and those of which only a part could be decoded, with the reason.

    Example: earshot failures my-index --json
    """
    import pipeline

    columns = ["uri", "status", "stage", "reason", "message"]
    rows = pipeline.open(index).to_arrow("files", columns=columns, where=FAILURES).sort_by("uri").to_pylist()
    if json:
        print_json(rows)
    elif rows:
        values = [(show_path(row["uri"]), *(row[name] for name in columns[1:])) for row in rows]
        print_table(f"{len(rows)} files in {index}", ["file", *columns[1:]], values)
    else:
        print_line("no failures")
