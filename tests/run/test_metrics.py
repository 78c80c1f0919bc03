"""Metrics: the figures of a record, as Prometheus gets them."""

import math

import pytest

from pipeline.run.metrics import METRICS, list_measures
from pipeline.run.progress import Progress
from pipeline.run.record import State, make_record
from tests.helpers.progress import halfway


def test_eta_is_infinite_while_the_speed_is_unknown() -> None:
    def told(progress: Progress, state: State = "running") -> float:
        return {name: value for name, _, value in list_measures(make_record(progress, state))}["earshot_eta_s"]

    assert told(Progress(stage="planning")) == math.inf == told(Progress(planned_s=100.0))
    assert told(Progress(planned_s=100.0, audio_s=100.0, finished_s=100.0, finished_planned_s=100.0)) == 0.0
    assert told(Progress(planned_s=100.0), "stopped") == 0.0


def test_metrics_show_the_record() -> None:
    measures = list_measures(make_record(halfway(), now=15.0))
    assert {name for name, _, _ in measures} == METRICS.keys()
    assert all(tags["index"] == "/ix" and tags["run"] == "a" * 32 for _, tags, _ in measures)
    values = {(name, *sorted(set(tags.values()) - {"/ix", "a" * 32})): value for name, tags, value in measures}
    assert values["earshot_files", "all"] == 40
    assert values["earshot_files", "done"] == 10
    assert values["earshot_eta_s",] == pytest.approx(30.0)
    assert values["earshot_stage_busy", "encode"] == pytest.approx(0.9)
    assert values["earshot_failures", "not_audio"] == 1
    keys: dict[str, set[str]] = {}
    for name, tags, _ in measures:
        assert keys.setdefault(name, set(tags)) == set(tags)  # Ray wants the same tags every time
    names = {name for name, _, _ in list_measures(make_record(Progress()))}
    assert not names & {"earshot_stage_busy", "earshot_stage_speed"}
