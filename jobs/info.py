"""``earshot info``: what an index holds."""

from jobs.output import print_json, print_table
from jobs.query import Json, Path_


def info(index: Path_, json: Json = False) -> None:
    """Show what an index holds: files, clips, frames, hours, and the models that made them.

    Example: earshot info my-index
    """
    import pipeline

    values = pipeline.open(index).describe()
    if json:
        print_json([values])
    else:
        metadata = ", ".join(f"{name} ({kind})" for name, kind in values["metadata"].items())
        shown = {**values, "hours": f"{values['hours']:.3f}", "metadata": metadata or None}
        print_table(index, ["", ""], [(name, value) for name, value in shown.items() if value is not None])
