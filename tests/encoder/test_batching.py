"""Every window comes back in its place, in batches of one length that fit the device."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.encoder.batching import (
    BATCHES_PER_CALL,
    MOST_GPU_WINDOWS,
    WINDOW_SAMPLES,
    Batches,
    count_fitting,
    equal_batches,
    fit_batch,
    share_call,
)
from pipeline.grid import HOP_SAMPLES, Waveform


class Model:
    """First sample and sum of each sound; out of memory above ``fitting`` samples."""

    error: RuntimeError = torch.OutOfMemoryError("CUDA out of memory")

    def __init__(self, fitting: int | None = None, frames: bool = True) -> None:
        self.fitting, self.frames = fitting, frames
        self.shapes: list[tuple[int, int]] = []

    def __call__(self, samples: torch.Tensor) -> tuple[Any, Any]:
        if self.fitting is not None and samples.numel() > self.fitting:
            raise self.error
        self.shapes.append((samples.shape[0], samples.shape[1]))
        clips = torch.stack([samples[:, 0], samples.sum(1)], 1)
        return clips, samples.view(len(samples), -1, HOP_SAMPLES)[:, :, :2] if self.frames else None


def make_windows(n_frames: list[int]) -> list[Waveform]:
    return [np.full(n * HOP_SAMPLES, i, np.float32) for i, n in enumerate(n_frames)]


def first_samples(batches: Batches, model: Model, windows: list[Waveform]) -> dict[int, float]:
    found: dict[int, float] = {}
    for batch, (clips, frames) in batches.run(model, windows):
        assert len({len(windows[i]) for i in batch}) == 1
        assert frames is None or frames.shape == (len(batch), len(windows[batch[0]]) // HOP_SAMPLES, 2)
        for i, clip in zip(batch, clips, strict=True):
            assert i not in found
            found[i] = float(clip[0])
    return found


@given(st.lists(st.integers(1, 6), max_size=30), st.integers(1, 7))
def test_equal_batches_hold_each_position_once_and_one_length(lengths: list[int], size: int) -> None:
    batches = list(equal_batches(lengths, size))
    assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
    assert all(len(batch) <= size and len({lengths[i] for i in batch}) == 1 for batch in batches)


@given(st.lists(st.integers(1, 9), max_size=30), st.integers(9, 60))
def test_every_window_comes_back_in_its_place_however_many_fit(n_frames: list[int], fitting: int) -> None:
    model = Model(fitting * HOP_SAMPLES)
    windows = make_windows(n_frames)
    assert first_samples(Batches("cpu", 4), model, windows) == {i: float(i) for i in range(len(windows))}


def test_batch_holds_more_of_shorter_sounds() -> None:
    model = Model(frames=False)
    batches = Batches("cpu", 2)
    assert batches.windows == 2
    assert len(first_samples(batches, model, make_windows([250] * 5 + [100] * 7))) == 12
    assert [n for n, _ in model.shapes] == [2, 2, 1, 5, 2]


@pytest.mark.parametrize("n_windows", [1, 2, 8, 37, MOST_GPU_WINDOWS])
def test_batch_holds_as_many_clips_that_have_a_frame_more(n_windows: int) -> None:
    held = n_windows * WINDOW_SAMPLES
    assert fit_batch(WINDOW_SAMPLES, held, None) == n_windows
    assert fit_batch(WINDOW_SAMPLES + HOP_SAMPLES, held, None) == n_windows


@given(length=st.integers(1, 400).map(lambda n: n * HOP_SAMPLES), n=st.integers(2, 100))
def test_half_of_a_batch_that_did_not_fit_is_smaller(length: int, n: int) -> None:
    assert fit_batch(length, max(length, n * length // 2), None) < n


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("GET was unable to find an engine to execute this computation"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("CUDA error: out of memory"),
    ],
)
def test_batch_size_that_did_not_fit_is_not_tried_again(error: RuntimeError) -> None:
    model = Model(3 * WINDOW_SAMPLES)
    model.error = error
    batches = Batches("cpu", 8)
    first_samples(batches, model, make_windows([250] * 8))
    assert [n for n, _ in model.shapes] == [2, 2, 2, 2]
    assert batches.windows == 2
    first_samples(batches, model, make_windows([250] * 2 + [125] * 4))
    assert [n for n, _ in model.shapes[4:]] == [2, 4]


def test_other_errors_are_not_taken_for_lack_of_memory() -> None:
    model = Model(3 * WINDOW_SAMPLES)
    model.error = RuntimeError("CUDA error: an illegal memory access was encountered")
    with pytest.raises(RuntimeError, match="illegal"):
        first_samples(Batches("cpu", 8), model, make_windows([250] * 8))
    assert model.shapes == []


def test_gpu_batch_stays_below_the_limit_of_convolutions() -> None:
    assert Batches("cuda", 1024).windows == MOST_GPU_WINDOWS
    assert Batches("cuda", 16).windows == 16
    assert MOST_GPU_WINDOWS * WINDOW_SAMPLES * 64 < 2**31
    assert [count_fitting(free, 10**9) for free in (10**8, 10 * 10**9, 79 * 10**9, 300 * 10**9)] == [1, 8, 63, 64]


def test_a_window_that_never_fits_is_an_error() -> None:
    with pytest.raises(torch.OutOfMemoryError):
        first_samples(Batches("cpu", 8), Model(WINDOW_SAMPLES - 1), make_windows([250] * 4))


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(1, 250), min_size=1, max_size=30))
def test_call_on_a_gpu_makes_a_few_batches_of_each_length(n_frames: list[int]) -> None:
    windows = make_windows(n_frames)
    most, model, batches = share_call([len(window) for window in windows]), Model(), Batches("cpu", 1024)
    for length, group in equal_lengths(windows).items():
        model.shapes.clear()
        started = list(batches._start(model, windows, group, length, most))
        assert [i for batch, _ in started for i in batch] == group
        assert len(started) <= BATCHES_PER_CALL
        assert all(n * length < most + length for n, _ in model.shapes)


def equal_lengths(windows: list[Waveform]) -> dict[int, list[int]]:
    groups: dict[int, list[int]] = {}
    for i, window in enumerate(windows):
        groups.setdefault(len(window), []).append(i)
    return groups


@pytest.mark.parametrize(("n", "sizes"), [(32, [8, 8, 8, 8]), (30, [8, 8, 8, 6]), (6, [4, 2]), (2, [2])])
def test_full_windows_of_a_call_make_equal_batches(n: int, sizes: list[int]) -> None:
    windows, model = make_windows([250] * n), Model()
    most = share_call([len(window) for window in windows])
    list(Batches("cpu", 1024)._start(model, windows, list(range(n)), WINDOW_SAMPLES, most))
    assert [size for size, _ in model.shapes] == sizes
