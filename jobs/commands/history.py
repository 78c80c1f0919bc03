"""``earshot history``: the batches of an index, and when each was published."""

from jobs.shared.options import Json, Path_
from jobs.shared.output import print_json, print_table
from pipeline.words import show_duration


def history(index: Path_, json: Json = False) -> None:
    """List what an index has published: batches of files, and steps of maintenance.

    Example: earshot history my-index
    """
    import pipeline

    rows = pipeline.open(index).history()
    if json:
        print_json(rows)
        return
    columns = ["batch", "when", "what", "files", "clips", "frames", "audio", "speed"]
    values = [
        (
            row["batch"],
            row["committed_at"][:16].replace("T", " "),
            row["kind"],
            *(row[name] for name in ("files", "clips", "frames")),
            show_duration(row["hours"] * 3600),
            "" if row["speed"] is None else f"{row['speed']:.0f}x",
        )
        for row in rows
    ]
    print_table(f"{index}, times in UTC", columns, values, right=columns)
