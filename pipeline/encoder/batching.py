"""Sounds of any lengths in, batches out, each as large as the device takes.

Nothing is padded: a batch holds a tensor or more for each length, and the longest windows share the first batch. On a
CPU it holds a few windows' worth of audio, of which the codec takes one after the other, since larger ones gain little
there. On a GPU, Earshot measures the memory that one window needs. A batch then holds as many windows as fit, or fewer
so that a call has several batches: copies to and from the GPU overlap with its work on other batches, and each call
waits for the GPU once. A batch that does not fit after all is halved and tried again.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from itertools import islice
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from pipeline.grid import HOP_SAMPLES, Waveform

Rows = npt.NDArray[np.floating[Any]]

Output = Literal["float32", "float16"]

Run = Callable[[Sequence[Any]], Sequence[tuple[Any, Any]]]
"""Tensors (n, samples) on the device, each of one length -> of each, (n, D) and (n, frames, D') or None:
``pipeline.encoder.audio_tower.Tower.embed``."""

WINDOW_SAMPLES = 250 * HOP_SAMPLES
"""The unit of batch sizes: a window of 10 s. Of shorter sounds, a batch holds more."""

SLACK_SAMPLES = WINDOW_SAMPLES // 25
"""0.4 s: a batch may hold so much more than it is meant to, and a large one a frame more for each window of 10 s."""

LONGEST_SAMPLES = WINDOW_SAMPLES * 3 // 2
"""The longest window that a file has with windows of 10 s: memory is measured with it."""

CPU_WINDOWS = 4
"""Fixed, since measuring at the start would take a minute with a model of the default size. With four, windows of many
lengths are encoded 2 % faster than with two."""

CODEC_SAMPLES = WINDOW_SAMPLES
"""On a CPU, the codec takes so much at once: it needs most of the memory, and gains nothing from more."""

BATCHES_PER_CALL = 4
"""On a GPU, if batches are measured: it works on one batch while the next is copied there and the last one back. That
this gains more than larger batches is an assumption, not measured."""

LEAST_GPU_WINDOWS = 4
"""The smallest batch that such a split may make. That 40 s of sound keep a GPU busy is an assumption, too."""

MOST_GPU_WINDOWS = 64
"""With 70 windows, a layer of a released model's codec has an output of more than 2^31 numbers. Convolutions of so many
have ended in an illegal memory access (pytorch issue 117736), after which a process can no longer use its GPU."""

GPU_SHARE = 0.8
"""The share of a GPU's free memory that a batch is planned to take; the rest is a reserve."""

OUT_OF_MEMORY = ("unable to find an engine", "ALLOC_FAILED", "out of memory")
"""Messages of errors without a class of their own: torch's when every cuDNN algorithm failed, mostly for lack of
memory, those of libraries, and the driver's."""


def equal_batches(lengths: Sequence[int], size: int) -> Iterator[list[int]]:
    """Positions in groups of at most ``size`` and of one length."""
    for group in _group(range(len(lengths)), lengths):
        yield from (group[begin : begin + size] for begin in range(0, len(group), size))


def share_call(lengths: Sequence[int]) -> int:
    """How many samples a batch holds, so that windows of these lengths make ``BATCHES_PER_CALL`` batches, or fewer."""
    return max(LEAST_GPU_WINDOWS * WINDOW_SAMPLES, -(-sum(lengths) // BATCHES_PER_CALL))


def fit_batch(lengths: Iterable[int], held: int, most: int | None, too_many: float = math.inf) -> int:
    """How many windows of these ``lengths`` in samples, longest first, share a batch that holds ``held`` samples, or
    about ``most``, and fewer than ``too_many``; at least one.

    Clips of 10 s often decode to a frame more: such a batch holds no fewer of them than of exactly 10 s.
    """
    n, samples = 0, 0
    for length in lengths:
        # Less of short ones: half of a batch that did not fit must be a smaller batch.
        slack = max(min(SLACK_SAMPLES, length // 10), held // WINDOW_SAMPLES * HOP_SAMPLES)
        is_full = samples + length > held + slack or (most is not None and samples >= most)
        if n and (is_full or samples + length >= too_many):
            break
        n, samples = n + 1, samples + length
    return n


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether a smaller batch may help: torch's own error, or one with a message of ``OUT_OF_MEMORY``."""
    import torch

    return isinstance(error, torch.OutOfMemoryError) or any(said in str(error) for said in OUT_OF_MEMORY)


def count_fitting(free: int, needed: int) -> int:
    """How many windows a batch on a GPU may hold, given the free bytes and the bytes that one window needs."""
    return min(max(1, int(GPU_SHARE * free / needed)), MOST_GPU_WINDOWS)


class Batches:
    """Runs windows through a model on a device, in batches that fit there.

    Args:
        device: ``cpu`` or ``cuda``.
        windows: of 10 s in one batch, on a GPU at most 64; None measures how many fit.
        output: the type of the embeddings.
    """

    def __init__(self, device: str, windows: int | None = None, output: Output = "float32") -> None:
        self._device, self._output = device, output
        self._asked = windows
        if windows and device != "cpu":
            windows = min(windows, MOST_GPU_WINDOWS)
        self._samples = (windows or CPU_WINDOWS) * WINDOW_SAMPLES if windows or device == "cpu" else None
        self._too_many: float = math.inf
        """The samples of the smallest batch that did not fit."""

    @property
    def windows(self) -> float | None:
        """How many windows of 10 s a batch holds; None before it has been measured."""
        return None if self._samples is None else self._samples / WINDOW_SAMPLES

    def run(self, model: Run, windows: Sequence[Waveform]) -> Iterator[tuple[list[int], tuple[Rows, Any]]]:
        """Yield, for the windows of one length in a batch, their positions, clip embeddings and frame embeddings."""
        if windows and self._samples is None:
            self._samples = self._measure(model)
        started = list(self._start(model, windows))
        if self._device != "cpu":
            self._streams[1].synchronize()
        for group, (clips, frames) in started:
            yield group, (clips.numpy(), None if frames is None else frames.numpy())

    def _start(self, model: Run, windows: Sequence[Waveform]) -> Iterator[tuple[list[int], tuple[Any, Any]]]:
        """Start the batches of a call."""
        import torch

        lengths = [len(window) for window in windows]
        most = None if self._device == "cpu" or self._asked else share_call(lengths)
        order = sorted(range(len(windows)), key=lambda i: -lengths[i])
        begin = 0
        while begin < len(order):
            assert self._samples is not None
            waiting = (lengths[i] for i in islice(order, begin, None))
            batch = order[begin : begin + fit_batch(waiting, self._samples, most, self._too_many)]
            groups = list(self._cut(_group(batch, lengths), lengths))
            try:
                outputs = self._embed(model, [[windows[i] for i in group] for group in groups])
            except RuntimeError as error:
                if len(batch) == 1 or not is_out_of_memory(error):
                    raise
                outputs = None
            if outputs is None:  # only here: the error's traceback held memory
                # For good: the memory that the device has left will not grow again by itself.
                self._too_many = n_samples = sum(lengths[i] for i in batch)
                self._samples = max(lengths[batch[0]], n_samples // 2)
                torch.cuda.empty_cache()
                continue
            yield from zip(groups, outputs, strict=True)
            begin += len(batch)

    def _cut(self, groups: list[list[int]], lengths: Sequence[int]) -> Iterator[list[int]]:
        """Groups of windows that the codec takes at once."""
        for group in groups:
            size = len(group)
            if self._device == "cpu":
                size = fit_batch((lengths[i] for i in group), CODEC_SAMPLES, None)
            yield from (group[begin : begin + size] for begin in range(0, len(group), size))

    def _embed(self, model: Run, groups: Sequence[Sequence[Waveform]]) -> list[tuple[Any, Any]]:
        outputs = model([self._send(windows) for windows in groups])
        return [(self._fetch(clips), None if frames is None else self._fetch(frames)) for clips, frames in outputs]

    def _send(self, windows: Sequence[Waveform]) -> Any:
        """(n, samples) on the device, of windows of one length."""
        import torch

        if self._device == "cpu":
            return torch.from_numpy(np.stack(windows))
        # From pinned memory, a copy waits only for the copies before it, so it overlaps with the work on the last
        # batch. torch reuses the memory only after the copy.
        host = torch.empty((len(windows), len(windows[0])), dtype=torch.float32, pin_memory=True)
        np.stack(windows, out=host.numpy())
        up, work = self._streams[0], torch.cuda.current_stream()
        with torch.cuda.stream(up):
            sent = host.to(self._device, non_blocking=True)
        work.wait_stream(up)
        sent.record_stream(work)
        return sent

    def _fetch(self, tensor: Any) -> Any:
        """The tensor on the host. From a GPU, its values arrive only once ``run`` has waited for the copies."""
        import torch

        tensor = tensor.to(getattr(torch, self._output))
        if self._device == "cpu":
            return tensor
        host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
        down = self._streams[1]
        down.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(down):
            host.copy_(tensor, non_blocking=True)
        tensor.record_stream(down)
        return host

    @cached_property
    def _streams(self) -> tuple[Any, Any]:
        """One for copies to the GPU, one for copies from it."""
        import torch

        up, down = (torch.cuda.Stream() for _ in range(2))  # type: ignore[no-untyped-call]
        return up, down

    def _measure(self, model: Run) -> int:
        """Samples that fit, by the memory that silence needs; a first pass loads whatever loads lazily."""
        import torch

        for _ in range(2):
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
            model([torch.zeros((1, LONGEST_SAMPLES), device=self._device)])
            needed = max(1, torch.cuda.max_memory_allocated() - before)
        torch.cuda.empty_cache()
        free, _ = torch.cuda.mem_get_info()
        return count_fitting(free, needed * WINDOW_SAMPLES // LONGEST_SAMPLES) * WINDOW_SAMPLES


def _group(positions: Iterable[int], lengths: Sequence[int]) -> list[list[int]]:
    """Positions in groups of one length."""
    groups: dict[int, list[int]] = {}
    for i in positions:
        groups.setdefault(lengths[i], []).append(i)
    return list(groups.values())
