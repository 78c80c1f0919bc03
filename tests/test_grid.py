"""The time grid: which windows a file has, which frames each window owns, and how seconds become frames."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.grid import (
    WHOLE,
    Grid,
    Part,
    Span,
    Tail,
    count_encoded_frames,
    count_frames,
    count_windows,
    first_frame_needed,
    frames_to_seconds,
    list_certain_windows,
    plan_parts,
    plan_windows,
    samples_to_seconds,
    seconds_to_frames,
    seconds_to_samples,
    span_to_frames,
    window_starts,
)

TAILS: tuple[Tail, ...] = ("fit", "back")
DEFAULT = {tail: Grid(250, 10, tail) for tail in TAILS}


def draw_grids(*tails: Tail) -> st.SearchStrategy[Grid]:
    """Small grids, and some that are large enough for the quantum of last windows."""
    lengths = st.one_of(st.integers(2, 40), st.integers(50, 300))
    return lengths.flatmap(lambda w: st.builds(Grid, st.just(w), st.integers(0, w // 2), st.sampled_from(tails)))


@settings(deadline=None)
@given(n_frames=st.integers(1, 1_500), grid=draw_grids(*TAILS))
def test_every_frame_is_owned_once_by_a_window_that_holds_it(n_frames: int, grid: Grid) -> None:
    spans = plan_windows(n_frames, grid)
    owned = [frame for span in spans for frame in range(span.own_first, span.own_stop)]
    assert owned == list(range(n_frames))
    for span in spans:
        assert 0 <= span.first <= span.own_first < span.own_stop <= span.first + span.length <= n_frames
    starts = [span.first for span in spans]
    assert starts == sorted(set(starts)) == window_starts(n_frames, grid)
    assert starts[0] == 0
    assert spans[-1].first + spans[-1].length == n_frames
    assert starts[:-1] == [k * grid.step_frames for k in range(len(spans) - 1)]
    assert all(span.length == grid.length_frames for span in spans[:-1])


@settings(deadline=None)
@given(n_frames=st.integers(1, 300), grid=draw_grids("back"))
def test_frame_belongs_to_the_nearest_centre_where_all_windows_are_equally_long(n_frames: int, grid: Grid) -> None:
    spans = plan_windows(n_frames, grid)
    for span in spans:
        for frame in range(span.own_first, span.own_stop):
            # In half frames, so that the comparison is exact; of equals, the earlier window.
            distances = [abs(2 * frame + 1 - (2 * other.first + other.length)) for other in spans]
            assert spans[distances.index(min(distances))] == span


@settings(deadline=None)
@given(n_frames=st.integers(1, 2_000), grid=draw_grids("fit"))
def test_fitted_windows_share_frames_in_the_middle(n_frames: int, grid: Grid) -> None:
    """Frames at the edge of two windows have the worst embeddings there: each window gives up its half."""
    for earlier, later in pairwise(plan_windows(n_frames, grid)):
        regular_start = earlier.first + grid.step_frames
        assert later.own_first == earlier.own_stop == regular_start + (grid.overlap_frames + 1) // 2


@settings(deadline=None)
@given(n_frames=st.integers(1, 2_000), grid=draw_grids("fit"))
def test_last_window_begins_where_at_most_one_and_a_half_are_left(n_frames: int, grid: Grid) -> None:
    spans = plan_windows(n_frames, grid)
    most, count = grid.length_frames + grid.length_frames // 2, len(spans)
    assert grid.longest_frames == most
    assert n_frames - (count - 1) * grid.step_frames <= most
    assert count == 1 or n_frames - (count - 2) * grid.step_frames > most
    moved_back = (count - 1) * grid.step_frames - spans[-1].first
    assert 0 <= moved_back < grid.quantum_frames
    if count > 1:
        assert spans[-1].length <= most
        assert (most - spans[-1].length) % grid.quantum_frames == 0
    assert spans[-1].first >= first_frame_needed(count - 1, grid)


@settings(deadline=None)
@given(n_frames=st.integers(1, 2_000), grid=draw_grids("back"))
def test_moved_back_windows_are_equally_long(n_frames: int, grid: Grid) -> None:
    spans = plan_windows(n_frames, grid)
    assert {span.length for span in spans} == {min(n_frames, grid.length_frames)}
    more = max(0, n_frames - grid.length_frames)
    assert len(spans) == 1 + -(-more // grid.step_frames)


@settings(deadline=None)
@given(n_frames=st.integers(125, 100_000))
def test_little_is_encoded_twice(n_frames: int) -> None:
    """At most 1.06 times the audio of a file of at least 5 s."""
    assert sum(span.length for span in plan_windows(n_frames, DEFAULT["fit"])) <= 1.06 * n_frames


def test_known_files_have_known_windows() -> None:
    back = DEFAULT["back"]
    assert plan_windows(250, back) == [Span(0, 250, 0, 250)]
    assert plan_windows(7, back) == [Span(0, 7, 0, 7)]
    # One frame over: the second window is moved back on the grid and owns what is nearer to its centre.
    assert plan_windows(251, back) == [Span(0, 250, 0, 126), Span(1, 250, 126, 251)]
    assert plan_windows(600, back) == [
        Span(0, 250, 0, 245),
        Span(240, 250, 245, 420),
        Span(350, 250, 420, 600),
    ]


@pytest.mark.parametrize(
    ("seconds", "windows"),
    [
        (0.04, [(0.0, 0.04)]),
        (8.0, [(0.0, 8.0)]),
        (10.02, [(0.0, 10.04)]),
        (15.0, [(0.0, 15.0)]),
        (15.2, [(0.0, 10.0), (9.4, 5.8)]),  # 5.6 s are left, and 5.8 is a common length
        (24.6, [(0.0, 10.0), (9.6, 15.0)]),
        (25.0, [(0.0, 10.0), (9.6, 10.0), (19.2, 5.8)]),
        (30.0, [(0.0, 10.0), (9.6, 10.0), (19.0, 11.0)]),
    ],
)
def test_known_files_have_known_fitted_windows(seconds: float, windows: list[tuple[float, float]]) -> None:
    spans = plan_windows(count_frames(seconds_to_samples(seconds)), DEFAULT["fit"])
    assert [(frames_to_seconds(span.first), frames_to_seconds(span.length)) for span in spans] == windows


@settings(deadline=None)
@given(
    lengths=st.lists(st.integers(1, 1_500), max_size=5), unused_s=st.sampled_from([0.0, 0.01]), grid=draw_grids(*TAILS)
)
def test_windows_of_many_files_are_counted_by_their_durations(lengths: list[int], unused_s: float, grid: Grid) -> None:
    durations_s = np.array([frames_to_seconds(n) - unused_s for n in lengths])
    assert count_windows(durations_s, grid) == sum(len(plan_windows(n, grid)) for n in lengths)
    encoded = sum(span.length for n in lengths for span in plan_windows(n, grid))
    assert count_encoded_frames(durations_s, grid) == encoded


def test_a_file_has_no_windows_beyond_its_last() -> None:
    for grid in DEFAULT.values():
        count = len(plan_windows(1_000, grid))
        assert len(plan_windows(1_000, grid, count - 1)) == 1
        assert plan_windows(1_000, grid, count) == []


@settings(deadline=None)
@given(n_known=st.integers(0, 300), n_more=st.integers(0, 100), from_window=st.integers(0, 9), grid=draw_grids(*TAILS))
def test_certain_windows_are_those_of_every_longer_file(
    n_known: int, n_more: int, from_window: int, grid: Grid
) -> None:
    certain = list_certain_windows(n_known, grid, Part(from_window))
    assert certain == plan_windows(max(1, n_known + n_more), grid)[from_window : from_window + len(certain)]
    if grid.tail == "fit":  # whatever is not the last one
        n_regular = len(plan_windows(max(1, n_known), grid)) - 1
    else:  # the last one but one is still open
        n_regular = max(0, n_known - grid.length_frames - 1) // grid.step_frames
    assert len(certain) >= max(0, n_regular - from_window)


@settings(deadline=None)
@given(n_known=st.integers(0, 300), first=st.integers(0, 9), n_windows=st.integers(1, 9), grid=draw_grids(*TAILS))
def test_certain_windows_of_a_part_are_those_that_fit(n_known: int, first: int, n_windows: int, grid: Grid) -> None:
    certain = list_certain_windows(n_known, grid, Part(first, first + n_windows))
    stop_frame = (first + n_windows) * grid.step_frames + 2 * grid.longest_frames
    expected = plan_windows(stop_frame, grid)[first : first + n_windows]
    assert certain == [span for span in expected if span.first + span.length <= n_known]


def test_a_short_file_is_one_part() -> None:
    assert plan_parts(48_000, Grid(), 10) == [WHOLE]


def test_seconds_and_frames_agree() -> None:
    assert seconds_to_frames(10.0) == 250
    assert frames_to_seconds(250) == 10.0
    assert all(seconds_to_frames(frames_to_seconds(k)) == k for k in range(0, 1_000_000, 997))


@given(first=st.integers(0, 10**7), length=st.integers(1, 10**7), n_samples=st.integers(1, 1_920))
def test_times_of_frames_give_these_frames(first: int, length: int, n_samples: int) -> None:
    stop = first + length
    assert span_to_frames(frames_to_seconds(first), frames_to_seconds(stop)) == (first, stop)
    ends_s = samples_to_seconds((stop - 1) * 1_920 + n_samples)  # of a file whose last frame may be partial
    assert span_to_frames(frames_to_seconds(first), ends_s) == (first, stop)


def test_span_has_every_frame_that_it_touches() -> None:
    assert span_to_frames(3.79, 4.45) == (94, 112)
    assert span_to_frames(3.8, 4.44) == (95, 111)
