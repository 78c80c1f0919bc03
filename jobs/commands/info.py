"""``earshot info``: the contents of an index."""

from jobs.shared.options import Json, Path_
from jobs.shared.output import print_json, print_table


def info(index: Path_, json: Json = False) -> None:
    """Show the contents of an index: files, clips, frames, hours, models, windows and metadata columns.

    Example: earshot info my-index
    """
    import pipeline
    from pipeline.corpus.ignored_files import summarize

    values = {**pipeline.open(index).describe(), "not_looked_at": _read_not_looked_at(index)}
    if json:
        print_json([values])
    else:
        metadata = ", ".join(f"{name} ({kind})" for name, kind in values["metadata"].items())
        not_looked_at = summarize(values["not_looked_at"] or {})
        window = values["window"]
        shown = {
            **values,
            "hours": f"{values['hours']:.3f}",
            "window": f"{window['length_s']:g} s, overlap {window['overlap_s']:g} s, tail: {window['tail']}",
            "metadata": metadata or None,
            "with_note": values["with_note"] or None,
            "not_looked_at": not_looked_at or None,
        }
        print_table(index, ["", ""], [(name, value) for name, value in shown.items() if value is not None])


def _read_not_looked_at(index: str) -> dict[str, int] | None:
    """The files that the newest run ignored; None where its record is missing, as in a copy, or unreadable."""
    from pipeline.errors import EarshotError
    from pipeline.run.record import read_record

    try:
        record = read_record(index)
    except EarshotError:
        return None
    return None if record is None else record.not_looked_at
