"""The activation of PE-Audio's codec, where half of its time goes if it is made of torch's operations as they are.

Source: Ziyin et al. 2020, arXiv:2006.08195; ``Snake1d`` in transformers' ``models/dac/modeling_dac.py``, whose division
by a is left to the convolutions around it (``pipeline.tower``).
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Scale = tuple[Tensor, Tensor]
"""What a Snake's input is multiplied by, and what is added then: float32 of (channels,)."""

Snake = Callable[[Tensor, Scale | None], Tensor]

LEAST_CHANNELS = 32
"""Of a codec (those released have 64) that is worth compiling for on a CPU."""


def choose_snake(device: str, dtype: torch.dtype, channels: int) -> Snake:
    """The faster one: compiled on a GPU, and for a codec of that many ``channels`` on a CPU with AVX-512.

    With AVX2 the compiled one is no faster than three operations on what lies in the cache.
    """
    pays = device == "cuda" or (channels >= LEAST_CHANNELS and torch.cpu.get_capabilities().get("avx512_f", False))
    return fuse_snake(device, dtype) if pays else snake


def snake(x: Tensor, scale: Scale | None) -> Tensor:
    """u + sin(u)^2 of u = ax + b, or of u = x: (n, length, channels)."""
    u = x
    if scale is not None:
        factor, summand = (part.to(x.dtype) for part in scale)
        u = torch.addcmul(summand, x, factor)
    sine = torch.sin(u)
    return torch.addcmul(u, sine, sine, out=sine)


def _activate_scaled(rows: Tensor, factor: Tensor, summand: Tensor) -> Tensor:
    """``snake`` of (rows, channels) as a compiler wants it written; rounded once."""
    u = rows.float() * factor + summand
    return (u + torch.sin(u).square()).to(rows.dtype)


def _activate(values: Tensor) -> Tensor:
    """The same of numbers that are scaled already, (n,)."""
    u = values.float()
    return (u + torch.sin(u).square()).to(values.dtype)


def fuse_snake(device: str, dtype: torch.dtype, backend: str | Callable[..., Any] = "inductor") -> Snake:
    """``snake`` as one kernel, where torch can compile it. Else as it is.

    Sounds and lengths are not the compiled functions' concern: torch makes each anew for whatever it takes as constant,
    and after eight times no more.
    """

    def fused(x: Tensor, scale: Scale | None) -> Tensor:
        rows = x.reshape(-1, x.shape[-1])
        if len(rows) == 1:  # torch would take the 1 as constant
            return snake(x, scale)
        return (activate(rows.view(-1)) if scale is None else activate_scaled(rows, *scale)).view(x.shape)

    x = torch.linspace(-9, 9, 2 * 640 * 64, device=device, dtype=dtype).view(2, 640, 64)
    scale = torch.linspace(0.1, 2, 64, device=device), torch.linspace(-1, 1, 64, device=device)
    options: dict[str, Any] | None = (
        {"compile_threads": 1} if backend == "inductor" else None
    )  # two kernels are not worth a pool of processes
    try:
        activate = torch.compile(_activate, dynamic=True, backend=backend, options=options)
        activate_scaled = torch.compile(_activate_scaled, dynamic=True, backend=backend, options=options)
        with torch.inference_mode():  # as in use: it is compiled for that
            for some in (scale, None):
                error = (fused(x, some) - snake(x, some)).abs().max().item()
                if not error < 64 * torch.finfo(dtype).eps:
                    return snake
    except Exception:  # no compiler, no triton, a driver that is too old: it only costs speed
        return snake
    return fused
