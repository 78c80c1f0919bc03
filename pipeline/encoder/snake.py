"""The activation of PE-Audio's codec: as operations of torch, or as one kernel.

On a CPU with AMX, a codec spends half of its time between matrix products, most of that here.

Source: Ziyin et al. 2020, arXiv:2006.08195; ``Snake1d`` in transformers' ``models/dac/modeling_dac.py``, whose division
by a moves into the convolutions around it (``pipeline.encoder.audio_codec``).
"""

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from pipeline.encoder.batching import is_out_of_memory

Scale = tuple[Tensor, Tensor]
"""The factor of a Snake's input and the summand after it: float32 of (channels,)."""

Snake = Callable[[Tensor, Scale | None], Tensor]

LEAST_CHANNELS = 32
"""With fewer channels, a codec on a CPU is not compiled: the bundled model's has 8, a released model's has 64."""

ROW = {"cpu": None, "cuda": 1024}
"""How many numbers are one row to a compiled kernel; None: the number of channels. Triton loads several numbers at once
if it knows that the width divides by 16, otherwise one by one: on an H100, 0.045 ms became 0.158 (pytorch pull request
193614; not measured here)."""

PROBE_LENGTH = {"cpu": 640, "cuda": 2**17}
"""The length of the two sounds that try a kernel; a GPU chooses its kernels by size. Takes half a GB for a moment."""


def gains_by_fusing(device: str, channels: int) -> bool:
    """Whether ``fuse_snake`` makes a codec faster: on a GPU, and on a CPU with AVX-512.

    With AVX2 one kernel is no faster than three operations on numbers in the cache.
    """
    return device == "cuda" or (channels >= LEAST_CHANNELS and torch.cpu.get_capabilities().get("avx512_f", False))


def snake(x: Tensor, scale: Scale | None) -> Tensor:
    """u + sin(u)^2 of u = ax + b, or of u = x: (n, length, channels)."""
    u = x if scale is None else _scale(x, *(part.to(x.dtype) for part in scale))
    sine = torch.sin(u)
    return torch.addcmul(u, sine, sine, out=sine)


def _scale(x: Tensor, factor: Tensor, summand: Tensor) -> Tensor:
    """ax + b. Narrow rows are joined to wider ones: torch computes rows of 8 numbers six times as slowly."""
    times = max(1, FULL_ROW // len(factor))
    flat, u = x.reshape(-1), torch.empty_like(x, memory_format=torch.contiguous_format)
    whole = len(flat) // (times * len(factor)) * times * len(factor)
    for some, n in ((slice(whole), times), (slice(whole, None), 1)):
        rows, out = (numbers[some].view(-1, n * len(factor)) for numbers in (flat, u.view(-1)))
        torch.addcmul(summand.repeat(n), rows, factor.repeat(n), out=out)
    return u


FULL_ROW = 64
"""Channels from which on torch scales rows at its full speed."""


def _activate_scaled(rows: Tensor, factor: Tensor, summand: Tensor) -> Tensor:
    """``snake`` of (rows, channels), written for a compiler; rounds once."""
    u = rows.float() * factor + summand
    return (u + torch.sin(u).square()).to(rows.dtype)


def _activate(values: Tensor) -> Tensor:
    """The same for numbers (n,) that are scaled already."""
    u = values.float()
    return (u + torch.sin(u).square()).to(values.dtype)


def fuse_snake(device: str, dtype: torch.dtype, backend: str | Callable[..., Any] = "inductor") -> Snake:
    """``snake`` as one kernel, for inference. Where torch cannot compile it: a warning, and ``snake`` itself.

    It takes 4 s, and 14 s for the first time on a machine: torch keeps its kernels in a folder. The compiled functions
    see rows only, not sounds and lengths: torch compiles again for each new value of anything it takes as constant, and
    gives up after eight times.
    """
    options: dict[str, Any] | None = None
    if backend == "inductor":
        # Two kernels are not worth a pool of processes. They are the same with any number of threads.
        options = {"compile_threads": 1, "cpp.dynamic_threads": True}
    try:
        activate = torch.compile(_activate, dynamic=True, backend=backend, options=options)
        activate_scaled = torch.compile(_activate_scaled, dynamic=True, backend=backend, options=options)

        def fused(x: Tensor, scale: Scale | None) -> Tensor:
            channels, row = x.shape[-1], ROW[device]
            known = row is not None and row % channels == 0 and x.numel() % row == 0
            rows = x.reshape(-1, row if known else channels)  # type: ignore[arg-type]
            if len(rows) == 1:  # torch would take the 1 as a constant
                return snake(x, scale)
            if known:
                torch._dynamo.mark_static(rows, 1)
            elif scale is None:
                rows = rows.view(-1)
            if scale is None:
                return activate(rows).view(x.shape)
            factor, summand = (part.repeat(rows.shape[1] // channels) for part in scale)
            return activate_scaled(rows, factor, summand).view(x.shape)

        with torch.inference_mode(), warnings.catch_warnings(action="ignore"):
            scale = torch.linspace(0.1, 2, 64, device=device), torch.linspace(-1, 1, 64, device=device)
            length = PROBE_LENGTH[device]
            x = torch.linspace(-9, 9, 2 * length * 64, device=device, dtype=dtype).view(2, length, 64)
            for given, some in ((x, scale), (x, None), (x[:1, :3], scale), (x[:1, :3], None)):  # two widths of rows
                exact = snake(given.float(), some)
                error = ((fused(given, some) - exact).abs() / exact.abs().clamp(min=1)).max().item()
                if not error < 16 * torch.finfo(torch.float32).eps + torch.finfo(dtype).eps:  # of sine, of rounding
                    raise ArithmeticError(f"the compiled function is wrong by {error:.1g}")
    except Exception as error:  # no compiler, no triton, a driver that is too old, no room for a cache
        if isinstance(error, RuntimeError) and is_out_of_memory(error):
            raise
        said = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
        slow = f"encoding is slower than it could be, torch cannot compile here: {said}"
        warnings.warn(slow, RuntimeWarning, stacklevel=2)
        return snake
    return fused
