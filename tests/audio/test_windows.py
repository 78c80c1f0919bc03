"""Streaming cuts the windows that the grid plans, with the samples of the file, padded at its very end."""

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.audio.windows import cut_windows, reflect_pad
from pipeline.grid import HOP_SAMPLES, Grid, Waveform, count_frames, plan_windows


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
