"""``earshot info``: the contents of an index."""

from typing import Any

from jobs.shared.options import Json, Path_
from jobs.shared.output import fit_beside, print_json, print_table, show_when
from jobs.shared.recall import show_recall
from pipeline.words import count, show_bytes, show_duration

MOST_SOURCES = 20
"""More are counted; `--json` lists them all."""

MODELS = ("clip_model", "frame_model")
"""They may be folders."""

LABELS = {"updated_at": "updated", "written_by": "written by", "bytes": "on disk", "hours": "audio"}
"""Names of rows, where they are not those of the JSON fields."""


def info(index: Path_, json: Json = False) -> None:
    """Show an index: sources, size, files, hours, codecs, models, windows, metadata columns, and the recall.

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
        window, codecs = values["window"], values["codecs"]
        shown = {
            **values,
            "sources": values["sources"] or None,
            "updated_at": show_when(values["updated_at"]),
            "written_by": values["written_by"] and f"Earshot {values['written_by']}",
            "bytes": show_bytes(values["bytes"]),
            "codecs": ", ".join(f"{name} {n:,}" for name, n in codecs.items()) or None,
            **{name: f"{values[name]:,}" for name in ("files", "indexed", "failed", "deleted", "clips", "frames")},
            "hours": show_duration(3600 * values["hours"]),
            "window": f"{window['length_s']:g} s, overlap {window['overlap_s']:g} s, tail: {window['tail']}",
            "metadata": metadata or None,
            "with_note": values["with_note"] or None,
            "marks": f"{values['marks']:,}" if values["marks"] else None,
            "not_looked_at": not_looked_at or None,
        }
        for name, found in shown.pop("vector_indexes").items():
            shown[f"vector index of {name}"] = _show_vector_index(found)
        recall = shown.pop("recall")
        shown |= show_recall(recall) if recall else {}
        print_table(index, ["", ""], _list_rows({LABELS.get(name, name): value for name, value in shown.items()}))


def _list_rows(shown: dict[str, Any]) -> list[tuple[str, object]]:
    """A row for each value that there is, and for each source. Paths have a line each."""
    rows, names = list[tuple[str, object]](), [name for name, value in shown.items() if value is not None]
    for name, value in shown.items():
        if name == "sources" and value:
            lines: list[object] = [*fit_beside(names, value[:MOST_SOURCES])]
            lines += [f"and {count(len(value) - MOST_SOURCES, 'other')}"] if len(value) > MOST_SOURCES else []
            rows += zip([name] + [""] * (len(lines) - 1), lines, strict=True)
        elif name in MODELS and value:
            rows += [(name, line) for line in fit_beside(names, [value])]
        elif value is not None:
            rows.append((name, value))
    return rows


def _show_vector_index(found: dict[str, Any]) -> str:
    covered = count(found["rows_indexed"], "row")
    left_out = f" ({found['rows_unindexed']:,} newer ones are scanned)" if found["rows_unindexed"] else ""
    segments, size = count(found["segments"], "segment"), show_bytes(found["bytes"])
    return f"{covered}{left_out}, {segments}, {size}, since {show_when(found['built_at'])}"


def _read_not_looked_at(index: str) -> dict[str, int] | None:
    """The files that the newest run ignored; None where its record is missing, as in a copy, or unreadable."""
    from pipeline.errors import EarshotError
    from pipeline.run.record import read_record

    try:
        record = read_record(index)
    except EarshotError:
        return None
    return None if record is None else record.not_looked_at
