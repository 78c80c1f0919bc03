"""The measured recall, for people."""

import datetime as dt
from dataclasses import asdict, replace

import pytest

from jobs.shared.recall import show_age, show_measured, show_recall, show_spread
from pipeline.index.search_settings import SearchSettings
from tests.helpers.tuning import TUNING


def test_recall_is_shown_with_its_interval_age_and_settings() -> None:
    moment = dt.datetime.now(dt.UTC) - dt.timedelta(hours=3)
    said = show_recall(
        {
            "measured_at": moment.isoformat(),
            "seconds": 35.1,
            "wanted": 0.98,
            "locate": asdict(TUNING.measured["locate"]),
            "settings": {"clip_refine": 16, "clip_probes": None},
        }
    )
    assert said["recall of locate"] == (
        "99.3% (98.5% to 99.7%) of 1,512 events in 320 questions for the best 20, from a probability of 0.3 on"
    )
    assert said["recall measured"].endswith("UTC, 3 h 0 min ago, in 35 s; wanted 98.0%")
    assert said["search settings"] == "clip_refine 16"


def test_recall_of_a_former_index_names_the_command_that_measures_again() -> None:
    measured = {name: asdict(each) for name, each in TUNING.measured.items()}
    moment = dt.datetime.now(dt.UTC).isoformat()
    about = {"measured_at": moment, "seconds": 1.0, "wanted": 0.98, "settings": {}, "of_former_index": ["locate"]}
    said = show_recall({**about, **measured})
    assert said["recall of locate"].endswith("; of a former vector index: `earshot optimize` measures it again")
    assert "former" not in said["recall of query"]


def test_similar_that_an_older_version_measured_is_said_to_be_due() -> None:
    measured = {"query": asdict(TUNING.measured["query"])}
    moment = dt.datetime.now(dt.UTC).isoformat()
    said = show_recall({"measured_at": moment, "seconds": 1.0, "wanted": 0.98, "settings": {}, **measured})
    assert said["recall of similar"].endswith("`earshot optimize` measures it")


def test_recall_that_was_never_measured_names_the_command() -> None:
    said = show_recall({"measured_at": None, "settings": {"clip_refine": 4}})
    assert said["recall"] == "never measured; `earshot optimize` measures it"


def test_recall_with_many_answers_and_at_a_low_threshold_is_told_from_the_usual_one() -> None:
    measured = asdict(replace(TUNING.measured["locate"], k=500, threshold=0.03))
    assert show_measured(measured, "event").endswith("in 320 questions for the best 500, from a probability of 0.03 on")


def test_settings_that_are_not_used_are_left_out() -> None:
    settings = SearchSettings(clip_probe_share=1 / 16, similar_candidates=12_800)
    said = show_recall({"measured_at": None, "settings": asdict(settings)})["search settings"]
    assert said == "pools_per_event 5, clip_probe_share 0.0625, clip_refine 4, similar_candidates 12800"


def test_recall_without_answers_is_unknown() -> None:
    assert (
        show_measured(asdict(TUNING.measured["query"]), "clip")
        == "unknown: of 0 clips in 320 questions for the best 20"
    )


def test_questions_that_are_much_alike_get_a_warning() -> None:
    measured = {name: asdict(each) for name, each in TUNING.measured.items()}
    assert "3.5 effective dimensions" in (show_spread(measured) or "")
    assert show_spread({"locate": measured["locate"]}) is None
    assert show_spread({"similar": measured["query"]}) is None
    moment = dt.datetime.now(dt.UTC).isoformat()
    said = show_recall({"measured_at": moment, "seconds": 1.0, "wanted": 0.98, **measured, "settings": {}})
    assert said["recall of other texts"] == show_spread(measured)


@pytest.mark.parametrize(("seconds", "said"), [(30, "less than a minute"), (7_200, "2 h 0 min"), (90_000, "1 day")])
def test_age_is_rounded(seconds: float, said: str) -> None:
    assert show_age(seconds) == said
