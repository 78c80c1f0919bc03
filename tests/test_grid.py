"""The time grid: which windows a file has, which frames each window owns, and how seconds become frames."""

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.grid import (
    WHOLE,
    Grid,
    Part,
    Span,
    frames_to_seconds,
    list_certain_windows,
    plan_parts,
    plan_windows,
    seconds_to_frames,
)

grids = st.integers(2, 40).flatmap(lambda w: st.builds(Grid, st.just(w), st.integers(0, w // 2)))


@settings(deadline=None)
@given(n_frames=st.integers(1, 300), grid=grids)
def test_every_frame_is_owned_once_by_the_nearest_centre(n_frames: int, grid: Grid) -> None:
    spans = plan_windows(n_frames, grid)
    owned = [frame for span in spans for frame in range(span.own_first, span.own_stop)]
    assert owned == list(range(n_frames))
    for span in spans:
        assert 0 <= span.first <= span.own_first < span.own_stop <= span.first + span.length <= n_frames
    for span in spans:
        for frame in range(span.own_first, span.own_stop):
            # In half frames, so that the comparison is exact; of equals, the earlier window.
            distances = [abs(2 * frame + 1 - (2 * other.first + other.length)) for other in spans]
            assert spans[distances.index(min(distances))] == span


@settings(deadline=None)
@given(n_frames=st.integers(1, 2_000), grid=grids)
def test_windows_are_equally_long_ascending_and_end_with_the_file(n_frames: int, grid: Grid) -> None:
    spans = plan_windows(n_frames, grid)
    assert {span.length for span in spans} == {min(n_frames, grid.length_frames)}
    starts = [span.first for span in spans]
    assert starts == sorted(set(starts))
    assert starts[0] == 0
    assert starts[-1] + spans[-1].length == n_frames
    assert all(b - a == grid.step_frames for a, b in pairwise(starts[:-1]))
    more = max(0, n_frames - grid.length_frames)
    assert len(spans) == 1 + -(-more // grid.step_frames)


def test_known_files_have_known_windows() -> None:
    grid = Grid(250, 10)
    assert plan_windows(250, grid) == [Span(0, 250, 0, 250)]
    assert plan_windows(7, grid) == [Span(0, 7, 0, 7)]
    # One frame over: the second window is moved back on the grid and owns what is nearer to its centre.
    assert plan_windows(251, grid) == [Span(0, 250, 0, 126), Span(1, 250, 126, 251)]
    assert plan_windows(600, grid) == [
        Span(0, 250, 0, 245),
        Span(240, 250, 245, 420),
        Span(350, 250, 420, 600),
    ]


@settings(deadline=None)
@given(n_known=st.integers(0, 300), n_more=st.integers(0, 100), from_window=st.integers(0, 9), grid=grids)
def test_certain_windows_are_those_of_every_longer_file(
    n_known: int, n_more: int, from_window: int, grid: Grid
) -> None:
    certain = list_certain_windows(n_known, grid, Part(from_window))
    assert certain == plan_windows(max(1, n_known + n_more), grid)[from_window : from_window + len(certain)]
    n_regular = max(0, n_known - grid.length_frames - 1) // grid.step_frames  # the last one but one is still open
    assert len(certain) >= max(0, n_regular - from_window)


@settings(deadline=None)
@given(n_known=st.integers(0, 300), first=st.integers(0, 9), n_windows=st.integers(1, 9), grid=grids)
def test_certain_windows_of_a_part_are_those_that_fit(n_known: int, first: int, n_windows: int, grid: Grid) -> None:
    certain = list_certain_windows(n_known, grid, Part(first, first + n_windows))
    stop_frame = (first + n_windows) * grid.step_frames + 2 * grid.length_frames
    expected = plan_windows(stop_frame, grid)[first : first + n_windows]
    assert certain == [span for span in expected if span.first + span.length <= n_known]


def test_a_short_file_is_one_part() -> None:
    assert plan_parts(48_000, Grid(), 10) == [WHOLE]


def test_seconds_and_frames_agree() -> None:
    assert seconds_to_frames(10.0) == 250
    assert frames_to_seconds(250) == 10.0
    assert all(seconds_to_frames(frames_to_seconds(k)) == k for k in range(0, 1_000_000, 997))
