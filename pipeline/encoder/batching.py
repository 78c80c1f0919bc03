"""Sounds of any lengths in, batches of one length out, each as large as the device takes.

A sound travels with others of its own length only, so nothing is padded. On a CPU a batch holds a few windows' worth
of audio, since larger ones gain nothing there. On a GPU what one window needs is measured, and a batch holds as many as
fit, or fewer so that a call has several: copies to and from the GPU overlap with its work on other batches, and it is
waited for once for each call. Where a batch was too much after all, it is halved and tried again.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from pipeline.grid import HOP_SAMPLES, Waveform

Rows = npt.NDArray[np.floating[Any]]

Output = Literal["float32", "float16"]

Run = Callable[[Any], tuple[Any, Any]]
"""(n, samples) tensor on the device -> (n, D) and (n, frames, D') or None: ``pipeline.encoder.audio_tower.Tower``."""

WINDOW_SAMPLES = 250 * HOP_SAMPLES
"""The window that sizes are counted in: 10 s. Shorter sounds are more in a batch."""

CPU_WINDOWS = 2
"""Not measured at the start, which would take a minute with a model of the default size: in bfloat16, with AVX512, a
window takes 3.76, 3.73 and 3.71 s of one core in batches of 1, 2 and 4."""

BATCHES_PER_CALL = 4
"""On a GPU, where its size is measured: while one is worked on, the next is copied there and the last one back. That
this gains more than larger batches is assumed, not measured."""

LEAST_GPU_WINDOWS = 4
"""But no smaller batch is made for that; assumed likewise: that 40 s of sound keep a GPU busy."""

MOST_GPU_WINDOWS = 64
"""Of 70 windows, what the codec of a released model has between two layers are more than 2^31 numbers. Convolutions of
so many have ended in an illegal memory access (pytorch issue 117736), after which a process can use its GPU no more."""

GPU_SHARE = 0.8
"""How much of a GPU's free memory a batch may be expected to take; the rest is for what was not foreseen."""

OUT_OF_MEMORY = ("unable to find an engine", "ALLOC_FAILED", "out of memory")
"""In errors that have no class of their own: torch's where all of cuDNN's ways failed, mostly for memory, those of
libraries, and the driver's."""


def equal_batches(lengths: Sequence[int], size: int) -> Iterator[list[int]]:
    """Positions in groups of at most ``size``, all of one group having the same length."""
    for group in _group(lengths).values():
        yield from (group[begin : begin + size] for begin in range(0, len(group), size))


def share_call(lengths: Sequence[int]) -> int:
    """How many samples a batch needs to hold, where windows of these lengths are to make some batches of equal size."""
    return max(LEAST_GPU_WINDOWS * WINDOW_SAMPLES, -(-sum(lengths) // BATCHES_PER_CALL))


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether less at once may do: torch's own error, or that of cuDNN where all its ways need more memory."""
    import torch

    return isinstance(error, torch.OutOfMemoryError) or any(said in str(error) for said in OUT_OF_MEMORY)


def count_fitting(free: int, needed: int) -> int:
    """How many windows a batch on a GPU may hold, of bytes that are free and that one window needs."""
    return min(max(1, int(GPU_SHARE * free / needed)), MOST_GPU_WINDOWS)


class Batches:
    """Runs windows through a model on a device, in batches that fit there.

    Args:
        device: ``cpu`` or ``cuda``.
        windows: of 10 s in one batch, where they are not to be measured; on a GPU no more than 64.
        output: what embeddings are given in.
    """

    def __init__(self, device: str, windows: int | None = None, output: Output = "float32") -> None:
        self._device, self._output = device, output
        self._asked = windows
        if windows and device != "cpu":
            windows = min(windows, MOST_GPU_WINDOWS)
        self._samples = (windows or CPU_WINDOWS) * WINDOW_SAMPLES if windows or device == "cpu" else None

    @property
    def windows(self) -> float | None:
        """How many windows of 10 s a batch holds; None before it has been measured."""
        return None if self._samples is None else self._samples / WINDOW_SAMPLES

    def run(self, model: Run, windows: Sequence[Waveform]) -> Iterator[tuple[list[int], tuple[Rows, Any]]]:
        """For each batch the positions of its windows, and their clip embeddings and frame embeddings."""
        lengths = [len(window) for window in windows]
        most = None if self._device == "cpu" or self._asked else share_call(lengths)
        if windows and self._samples is None:
            self._samples = self._measure(model)
        started = [
            (batch, outputs)
            for length, group in _group(lengths).items()
            for batch, outputs in self._start(model, windows, group, length, most)
        ]
        if self._device != "cpu":
            self._streams[1].synchronize()
        for batch, (clips, frames) in started:
            yield batch, (clips.numpy(), None if frames is None else frames.numpy())

    def _start(
        self, model: Run, windows: Sequence[Waveform], group: list[int], length: int, most: int | None
    ) -> Iterator[tuple[list[int], tuple[Any, Any]]]:
        """Batches of the ``group`` of windows of one ``length``, of ``most`` samples where that is given."""
        import torch

        while group:
            assert self._samples is not None
            size = max(1, self._samples // length)
            batch = group[: size if most is None else min(size, -(-most // length))]
            try:
                outputs = self._embed(model, [windows[i] for i in batch])
            except RuntimeError as error:
                if len(batch) == 1 or not is_out_of_memory(error):
                    raise
                outputs = None
            if outputs is None:  # the error is gone, and with it what its frames held
                # For good: what the device has left for us will not grow again by itself.
                self._samples = max(length, len(batch) * length // 2)
                torch.cuda.empty_cache()
                continue
            yield batch, outputs
            group = group[len(batch) :]

    def _embed(self, model: Run, windows: Sequence[Waveform]) -> tuple[Any, Any]:
        clips, frames = model(self._send(windows))
        return self._fetch(clips), None if frames is None else self._fetch(frames)

    def _send(self, windows: Sequence[Waveform]) -> Any:
        """(n, samples) on the device, of windows of one length."""
        import torch

        if self._device == "cpu":
            return torch.from_numpy(np.stack(windows))
        # Of pinned memory a copy waits for nothing but the copies before it: it is made while the last batch is worked
        # on. torch gives the memory to nobody else before the copy is done.
        host = torch.empty((len(windows), len(windows[0])), dtype=torch.float32, pin_memory=True)
        np.stack(windows, out=host.numpy())
        up, work = self._streams[0], torch.cuda.current_stream()
        with torch.cuda.stream(up):
            sent = host.to(self._device, non_blocking=True)
        work.wait_stream(up)
        sent.record_stream(work)
        return sent

    def _fetch(self, tensor: Any) -> Any:
        """On the host; from a GPU it is not there before this call's copies are waited for."""
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
        """For copies to the GPU, and from it."""
        import torch

        up, down = (torch.cuda.Stream() for _ in range(2))  # type: ignore[no-untyped-call]
        return up, down

    def _measure(self, model: Run) -> int:
        """Samples that fit: what a window of silence needs is tried, after a first one that leaves nothing to load."""
        import torch

        for _ in range(2):
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
            model(torch.zeros((1, WINDOW_SAMPLES), device=self._device))
            needed = max(1, torch.cuda.max_memory_allocated() - before)
        torch.cuda.empty_cache()
        free, _ = torch.cuda.mem_get_info()
        return count_fitting(free, needed) * WINDOW_SAMPLES


def _group(lengths: Sequence[int]) -> dict[int, list[int]]:
    """Length -> positions."""
    groups: dict[int, list[int]] = {}
    for i, length in enumerate(lengths):
        groups.setdefault(length, []).append(i)
    return groups
