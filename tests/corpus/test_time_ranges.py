"""Names of time ranges: each range has exactly one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import schema
from pipeline.corpus.time_ranges import TimeRange, recording_of, split_uri

seconds = st.floats(0, 1e7, allow_nan=False).map(lambda value: value or None)


@given(seconds, seconds)
def test_time_range_has_exactly_one_name(start_s: float | None, end_s: float | None) -> None:
    part = TimeRange(start_s, None if end_s is None else end_s + (start_s or 0.0))
    if part.end_s == part.start_s and part:
        return
    assert split_uri(f"a.wav{part}") == ("a.wav", part)
    assert "e" not in str(part)
    assert recording_of({"uri": f"a.wav{part}", "start_s": part.start_s, "end_s": part.end_s}) == "a.wav"
    assert schema.make_audio_id("1", str(part)) != schema.make_audio_id("1") or not part


@pytest.mark.parametrize(
    ("part", "name"),
    [
        (TimeRange(), ""),
        (TimeRange(10.0), "#t=10"),
        (TimeRange(None, 20.0), "#t=,20"),
        (TimeRange(10.5, 100.0), "#t=10.5,100"),
        (TimeRange(0.001, 1e-5 + 1), "#t=0.001,1.00001"),
        (TimeRange(1e-5, 1e16), "#t=0.00001,10000000000000000"),
    ],
)
def test_seconds_are_written_as_the_shortest_decimal(part: TimeRange, name: str) -> None:
    assert str(part) == name
    assert split_uri(f"a{name}") == ("a", part)


@pytest.mark.parametrize(
    "name", ["a", "a#t=", "a#t=,", "a#t=x", "a#t=-1", "a#t=1,2x", "a#t=2,1", "a#t=1e3", "a#t=1:00"]
)
def test_other_names_are_no_time_ranges(name: str) -> None:
    assert split_uri(name) == (name, TimeRange())
