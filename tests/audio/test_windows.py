"""Streaming cuts the windows that the grid plans, with the samples of the file, padded at its very end."""

import weakref
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
    Part,
    Span,
    Tail,
    Waveform,
    count_frames,
    first_frame_needed,
    plan_parts,
    plan_windows,
)

TAILS: tuple[Tail, ...] = ("fit", "back")


@settings(max_examples=150, deadline=None)
@given(
    n_samples=st.integers(HOP_SAMPLES, 200 * HOP_SAMPLES),
    grid=st.sampled_from([2, 3, 7, 12, 60]).flatmap(
        lambda w: st.builds(Grid, st.just(w), st.integers(0, w // 2), st.sampled_from(["fit", "back"]))
    ),
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


@pytest.mark.parametrize("tail", ["fit", "back"])
def test_streaming_holds_one_and_a_half_windows_or_two(tail: Tail) -> None:
    grid = Grid(100, 20, tail)
    blocks: list[weakref.ref[Waveform]] = []

    def endless() -> Iterator[Waveform]:
        while True:
            block = np.zeros(HOP_SAMPLES, np.float32)
            blocks.append(weakref.ref(block))
            yield block

    windows = cut_windows(endless(), grid)
    # A window is certain once one and a half windows are there and one block more; or, by the rule `back`, once its
    # successor is complete.
    needed = grid.longest_frames if tail == "fit" else grid.step_frames + grid.length_frames
    for k in range(50):
        span, _ = next(windows)
        assert span.first == k * grid.step_frames
        assert len(blocks) <= span.first + needed + 1
        n_held = sum(block() is not None for block in blocks)
        assert n_held <= len(blocks) - first_frame_needed(k, grid)


@settings(max_examples=60, deadline=None)
@given(n_frames=st.integers(1, 900), n_windows=st.integers(1, 4), tail=st.sampled_from(TAILS))
def test_parts_have_the_windows_of_the_whole(n_frames: int, n_windows: int, tail: Tail) -> None:
    grid = Grid(60, 6, tail)
    wave = np.arange(n_frames * HOP_SAMPLES, dtype=np.float32)
    whole = list(cut_windows([wave], grid))
    cut: list[tuple[Span, Waveform]] = []
    for part in plan_parts(len(wave), grid, n_windows):
        begin = first_frame_needed(part.first, grid) * HOP_SAMPLES
        cut += cut_windows(np.array_split(wave[begin:], 5), grid, part)
    assert [span for span, _ in cut] == [span for span, _ in whole]
    for (_, samples), (_, expected) in zip(cut, whole, strict=True):
        np.testing.assert_array_equal(samples, expected)


@settings(max_examples=60, deadline=None)
@given(n_frames=st.integers(1, 900), first=st.integers(0, 6))
def test_last_part_of_any_length_has_the_windows_of_the_whole(n_frames: int, first: int) -> None:
    """By the rule ``fit``; by ``back``, ``plan_parts`` gives the last part at least two windows."""
    grid = Grid(60, 6)
    wave = np.arange(n_frames * HOP_SAMPLES, dtype=np.float32)
    whole = list(cut_windows([wave], grid))
    begin = first_frame_needed(first, grid) * HOP_SAMPLES
    cut = list(cut_windows(np.array_split(wave[begin:], 5), grid, Part(first)))
    assert [span for span, _ in cut] == [span for span, _ in whole][first:]
    for (_, samples), (_, expected) in zip(cut, whole[first:], strict=True):
        np.testing.assert_array_equal(samples, expected)


@pytest.mark.parametrize("n_samples", [0, 1, HOP_SAMPLES - 1])
def test_less_than_a_frame_gives_no_window(n_samples: int) -> None:
    assert list(cut_windows(iter([np.ones(n_samples, np.float32)]), Grid())) == []


def test_reflect_pad_equals_the_feature_extractor() -> None:
    wave = np.random.default_rng(0).standard_normal(HOP_SAMPLES * 2 + 5).astype(np.float32)
    padded = reflect_pad(wave)
    assert len(padded) == 3 * HOP_SAMPLES
    np.testing.assert_array_equal(padded[len(wave) :], wave[-2 : -2 - (HOP_SAMPLES - 5) : -1])
