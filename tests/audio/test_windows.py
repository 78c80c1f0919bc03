"""The grid: cover, count, order, no overrun; and streaming cuts exactly what the plan says."""

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.audio.windows import cut_windows, reflect_pad
from pipeline.grid import (
    HOP_SAMPLES,
    Grid,
    Span,
    Waveform,
    count_frames,
    frames_to_seconds,
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


def test_known_files() -> None:
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


@settings(max_examples=150, deadline=None)
@given(
    n_samples=st.integers(HOP_SAMPLES, 60 * HOP_SAMPLES),
    grid=st.integers(2, 12).flatmap(lambda w: st.builds(Grid, st.just(w), st.integers(0, w // 2))),
    cuts=st.lists(st.floats(0, 1), max_size=12),
)
def test_streaming_cuts_what_the_plan_says(n_samples: int, grid: Grid, cuts: list[float]) -> None:
    wave = np.arange(n_samples, dtype=np.float32)  # every sample says where it comes from
    edges = sorted({0, n_samples, *(int(cut * n_samples) for cut in cuts)})
    blocks = [wave[a:b] for a, b in pairwise(edges)]
    windows = list(cut_windows(iter(blocks), grid))
    assert [span for span, _ in windows] == plan_windows(count_frames(n_samples), grid)
    padded = np.pad(wave, (0, -n_samples % HOP_SAMPLES), "reflect")
    for span, samples in windows:
        expected = padded[span.first * HOP_SAMPLES : (span.first + span.length) * HOP_SAMPLES]
        np.testing.assert_array_equal(samples, expected)


def test_streaming_holds_little_more_than_a_window() -> None:
    grid = Grid(10, 2)
    drawn = 0

    def endless() -> Iterator[Waveform]:
        nonlocal drawn
        while True:
            drawn += HOP_SAMPLES
            yield np.zeros(HOP_SAMPLES, np.float32)

    windows = cut_windows(endless(), grid)
    for k in range(50):
        span, _ = next(windows)
        assert span.first == k * grid.step_frames
        # One window is held back until its successor is complete, and one block shows that it goes on.
        assert drawn <= ((k + 1) * grid.step_frames + grid.length_frames + 1) * HOP_SAMPLES


@pytest.mark.parametrize("n_samples", [0, 1, HOP_SAMPLES - 1])
def test_less_than_a_frame_gives_no_window(n_samples: int) -> None:
    assert list(cut_windows(iter([np.ones(n_samples, np.float32)]), Grid())) == []


def test_reflect_pad_equals_the_feature_extractor() -> None:
    wave = np.random.default_rng(0).standard_normal(HOP_SAMPLES * 2 + 5).astype(np.float32)
    padded = reflect_pad(wave)
    assert len(padded) == 3 * HOP_SAMPLES
    np.testing.assert_array_equal(padded[len(wave) :], wave[-2 : -2 - (HOP_SAMPLES - 5) : -1])


def test_seconds_and_frames_agree() -> None:
    assert seconds_to_frames(10.0) == 250
    assert frames_to_seconds(250) == 10.0
    assert all(seconds_to_frames(frames_to_seconds(k)) == k for k in range(0, 1_000_000, 997))
