"""Every window comes back in its place, in batches that fit the device."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pipeline.encoder.batching import (
    BATCHES_PER_CALL,
    MOST_GPU_WINDOWS,
    WINDOW_SAMPLES,
    Batches,
    count_fitting,
    equal_batches,
    fit_batch,
)
from pipeline.grid import HOP_SAMPLES, Waveform


class Model:
    """First sample and sum of each sound; out of memory above ``fitting`` samples in a batch."""

    error: RuntimeError = torch.OutOfMemoryError("CUDA out of memory")

    def __init__(self, fitting: int | None = None, frames: bool = True) -> None:
        self.fitting, self.frames, self.n_errors = fitting, frames, 0
        self.largest = 0
        self.batches: list[dict[int, int]] = []
        """Of each batch, how many windows of each number of frames it held."""

    def __call__(self, sounds: Sequence[torch.Tensor]) -> list[tuple[Any, Any]]:
        if self.fitting is not None and sum(each.numel() for each in sounds) > self.fitting:
            self.n_errors += 1
            raise self.error
        counts = Counter[int]()
        for each in sounds:
            counts[each.shape[1] // HOP_SAMPLES] += each.shape[0]
        self.batches.append(counts)
        self.largest = max(self.largest, *(each.numel() for each in sounds))
        return [self.embed(each) for each in sounds]

    def embed(self, samples: torch.Tensor) -> tuple[Any, Any]:
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
    assert model.batches == [{250: 2}, {250: 2}, {250: 1, 100: 2}, {100: 5}]
    assert model.largest == WINDOW_SAMPLES  # that the codec takes at once


@pytest.mark.parametrize("n_windows", [1, 2, 8, 37, MOST_GPU_WINDOWS])
def test_batch_holds_as_many_clips_that_have_a_frame_more(n_windows: int) -> None:
    held = n_windows * WINDOW_SAMPLES
    assert fit_batch([WINDOW_SAMPLES] * 100, held, None) == n_windows
    assert fit_batch([WINDOW_SAMPLES + HOP_SAMPLES] * 100, held, None) == n_windows


@given(length=st.integers(1, 400).map(lambda n: n * HOP_SAMPLES), n=st.integers(2, 100))
def test_half_of_a_batch_that_did_not_fit_is_smaller(length: int, n: int) -> None:
    assert fit_batch([length] * n, max(length, n * length // 2), None) < n


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
    assert model.batches == [{250: 2}] * 4
    assert batches.windows == 2
    first_samples(batches, model, make_windows([250] * 2 + [125] * 4))
    assert model.batches[4:] == [{250: 2}, {125: 4}]


def test_batch_of_a_long_and_a_tiny_window_that_does_not_fit_is_parted() -> None:
    model, batches = Model(WINDOW_SAMPLES), Batches("cpu", 8)
    for _ in range(3):
        assert len(first_samples(batches, model, make_windows([1, 250]))) == 2
    assert model.batches == [{250: 1}, {1: 1}] * 3
    assert model.n_errors == 1


def test_short_windows_behind_long_ones_that_did_not_fit_share_batches() -> None:
    model = Model(2 * WINDOW_SAMPLES - 1)
    first_samples(Batches("cpu", 2), model, make_windows([250, 250, *[5] * 400]))
    assert model.n_errors == 1
    assert model.batches[:2] == [{250: 1}, {250: 1}]
    assert len(model.batches) <= 2 + 2000 // 250


def test_other_errors_are_not_taken_for_lack_of_memory() -> None:
    model = Model(3 * WINDOW_SAMPLES)
    model.error = RuntimeError("CUDA error: an illegal memory access was encountered")
    with pytest.raises(RuntimeError, match="illegal"):
        first_samples(Batches("cpu", 8), model, make_windows([250] * 8))
    assert model.batches == []


def test_gpu_batch_stays_below_the_limit_of_convolutions() -> None:
    assert Batches("cuda", 1024).windows == MOST_GPU_WINDOWS
    assert Batches("cuda", 16).windows == 16
    assert MOST_GPU_WINDOWS * WINDOW_SAMPLES * 64 < 2**31
    assert [count_fitting(free, 10**9) for free in (10**8, 10 * 10**9, 79 * 10**9, 300 * 10**9)] == [1, 8, 63, 64]


def test_a_window_that_never_fits_is_an_error() -> None:
    with pytest.raises(torch.OutOfMemoryError):
        first_samples(Batches("cpu", 8), Model(WINDOW_SAMPLES - 1), make_windows([250] * 4))


class OnGpu(Batches):
    """Notes how many windows each batch of a call on a large GPU holds, and embeds none."""

    def __init__(self) -> None:
        super().__init__("cuda")
        self._samples = MOST_GPU_WINDOWS * WINDOW_SAMPLES
        self.sizes: list[int] = []

    def _embed(self, model: Any, groups: Sequence[Sequence[Waveform]]) -> list[tuple[Any, Any]]:
        self.sizes.append(sum(map(len, groups)))
        return [(None, None)] * len(groups)


def list_sizes(n_frames: list[int]) -> list[int]:
    batches = OnGpu()
    silence = np.broadcast_to(np.float32(0), max(n_frames) * HOP_SAMPLES)
    list(batches._start(Model(), [silence[: n * HOP_SAMPLES] for n in n_frames]))
    return batches.sizes


@given(st.lists(st.integers(1, 375), min_size=1, max_size=60))
def test_call_on_a_gpu_makes_a_few_batches_whatever_the_lengths(n_frames: list[int]) -> None:
    sizes = list_sizes(n_frames)
    assert sum(sizes) == len(n_frames)
    assert len(sizes) <= BATCHES_PER_CALL


@pytest.mark.parametrize(("n", "sizes"), [(32, [8, 8, 8, 8]), (30, [8, 8, 8, 6]), (6, [4, 2]), (2, [2])])
def test_full_windows_of_a_call_make_equal_batches(n: int, sizes: list[int]) -> None:
    assert list_sizes([250] * n) == sizes
