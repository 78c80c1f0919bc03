"""The measured recall of an index, for people."""

import datetime as dt
from typing import Any

from jobs.shared.output import show_left, show_when
from pipeline.words import count

UNITS = {"locate": "event", "query": "clip", "similar": "clip"}
"""What the recall of each command counts."""


def show_recall(recall: dict[str, Any]) -> dict[str, str]:
    """Lines for a table, by their names, from the ``recall`` of ``Index.describe``."""
    settings = ", ".join(f"{name} {_show(value)}" for name, value in recall["settings"].items() if value is not None)
    former = recall.get("of_former_index", ())
    if recall["measured_at"] is None:
        return {"recall": "never measured; `earshot optimize` measures it", "search settings": settings}
    lines = {
        f"recall of {command}": show_measured(recall[command], unit)
        + ("; of a former vector index: `earshot optimize` measures it again" if command in former else "")
        for command, unit in UNITS.items()
        if command in recall
    }
    if "query" in recall and "similar" not in recall:
        lines["recall of similar"] = "an older version measured it in another way; `earshot optimize` measures it"
    age_s = (dt.datetime.now(dt.UTC) - dt.datetime.fromisoformat(recall["measured_at"])).total_seconds()
    lines["recall measured"] = (
        f"{show_when(recall['measured_at'])} UTC, {show_age(age_s)} ago, in {recall['seconds']:.0f} s;"
        f" wanted {recall['wanted']:.1%}"
    )
    if spread := show_spread(recall):
        lines["recall of other texts"] = spread
    return lines | {"search settings": settings}


def _show(setting: float) -> str:
    return str(setting) if isinstance(setting, int) else f"{setting:.4g}"


def show_measured(measured: dict[str, Any], unit: str) -> str:
    """A recall with its interval, and what it was measured with."""
    questions = f"{count(measured['n_questions'], 'question')} for the best {measured['k']}"
    of = f"of {count(measured['n_answers'], unit)} in {questions}"
    if measured["threshold"] is not None:
        of += f", from a probability of {measured['threshold']:g} on"
    if measured["recall"] is None:
        return f"unknown: {of}"
    return f"{measured['recall']:.1%} ({measured['low']:.1%} to {measured['high']:.1%}) {of}"


def show_spread(recall: dict[str, Any]) -> str | None:
    """Why the recall by texts proves little, if it does; from a mapping of commands to what was measured."""
    from pipeline.search.questions import explain_spread

    texts = [recall[command] for command in ("locate", "query") if command in recall]
    return explain_spread(min(measured["n_dimensions"] for measured in texts)) if texts else None


def show_age(seconds: float) -> str:
    """``90000`` -> ``1 day``."""
    return show_left(seconds) if seconds < 86_400 else count(int(seconds // 86_400), "day")
