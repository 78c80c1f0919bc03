"""The figures of a run that Ray offers to Prometheus, made from its record."""

import math

from pipeline.run.record import Record

METRICS = {
    "earshot_files": "Files of the corpus: all, and so far done, indexed, unchanged, failed",
    "earshot_hours": "Hours of audio to encode in this run (all, an estimate) and encoded so far (done)",
    "earshot_hours_per_hour": "Hours of audio encoded per hour, over the last five minutes",
    "earshot_eta_s": "Seconds left, by that speed; infinite while nothing is known of it",
    "earshot_failures": "Files that failed or were cut short in this run, by reason",
    "earshot_stage_speed": "Seconds of audio per second of work in a stage",
    "earshot_stage_busy": "How much of their time the workers of a stage work, 0 to 1",
}
"""Name and meaning of each metric."""

Measure = tuple[str, dict[str, str], float]
"""Name, tags and value of a metric."""


def list_measures(record: Record) -> list[Measure]:
    """A record as metrics. Unknown values are left out."""
    files = {state: getattr(record, f"n_{state}") for state in ("done", "indexed", "unchanged", "failed")}
    found: list[tuple[str, dict[str, str], float | None]] = [
        *(("earshot_files", {"state": state}, count) for state, count in {"all": record.n_files, **files}.items()),
        ("earshot_hours", {"state": "done"}, record.hours_done),
        ("earshot_hours", {"state": "all"}, record.hours_all),
        ("earshot_hours_per_hour", {}, record.hours_per_hour),
        ("earshot_eta_s", {}, _eta_s(record)),
        *(("earshot_failures", {"reason": reason}, count) for reason, count in record.failures.items()),
        *(("earshot_stage_speed", {"stage": stage}, each.speed) for stage, each in record.stages.items()),
        *(("earshot_stage_busy", {"stage": stage}, each.busy) for stage, each in record.stages.items()),
    ]
    shared = {"index": record.index, "run": record.run_id}
    return [(name, shared | tags, float(value)) for name, tags, value in found if value is not None]


def _eta_s(record: Record) -> float:
    """Infinite while the speed is unknown: a gauge that is not set keeps its last value."""
    if record.eta_s is not None:
        return record.eta_s
    return 0.0 if record.state != "running" or 0 < record.hours_all <= record.hours_done else math.inf
