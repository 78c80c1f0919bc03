"""Samples in, features out: the codec of PE-Audio's audio tower as an inference path made of the loaded weights.

It computes what transformers' classes compute without a padding mask, arranged for speed (measured with ``python -m
jobs.bench encoder``):

- The channels of a sample lie together in memory. Convolutions of width one are then plain matrix products, and so are
  those that reduce the rate, on two views of their input (except at the ends of a sound).
- Snake, x + sin(ax)^2 / a, loses its a: the convolution before it takes over a factor a, the one after it 1 / a. Where
  Snake reads the residual stream, it scales and shifts that first: the stream omits the biases of its units, so that
  the last matrix product of each unit can add to it in place.
- On a CPU a tile of time passes through a whole block of the codec before the next tile does, with as many neighbouring
  samples as its convolutions see, so that the output of each layer stays in the cache.

Source: transformers' ``models/pe_audio/modeling_pe_audio.py``; the codec is DAC's encoder (Kumar et al. 2023,
arXiv:2306.06546).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.profiler import record_function

from pipeline.encoder.snake import Scale, Snake, fuse_snake, gains_by_fusing, snake

TILE_BYTES = 2**23
"""About the size of one layer's output for one tile on a CPU."""

SMALLEST_ALPHA = 1e-6
"""The least factor of a Snake that is moved into the convolutions around it; smaller ones are replaced by it."""


@dataclass(frozen=True)
class _Unit:
    """A residual unit: x + conv2(snake(conv1(snake(x)))); ``conv1`` sees 7 samples that lie ``dilation`` apart."""

    scale: Scale
    weight1: Tensor  # (channels, channels, 1, 7)
    bias1: Tensor
    weight2: Tensor  # (channels, channels): from, to
    dilation: int

    @property
    def reach(self) -> int:
        return 3 * self.dilation


@dataclass(frozen=True)
class _Block:
    """Three residual units, and a convolution over ``2 * stride`` samples that gives one sample for each ``stride``."""

    units: tuple[_Unit, ...]
    scale: Scale
    early: Tensor  # (stride * channels, 2 * channels): for the first half of the samples that the convolution sees
    late: Tensor
    bias: Tensor
    stride: int

    @property
    def reach(self) -> int:
        return sum(unit.reach for unit in self.units)

    @property
    def pad(self) -> int:
        return -(-self.stride // 2)


class Codec:
    """(n, samples) float32 -> (n, frames, features): DAC's encoder and PE-Audio's bottleneck, without quantisation."""

    @torch.inference_mode()  # for its tensors too, or torch would compile once more for tensors of the other mode
    def __init__(self, embedder: Any, device: str, dtype: torch.dtype) -> None:
        codec = embedder.dac_encoder
        self._dtype = dtype

        def ready(tensor: Tensor, dtype: torch.dtype = dtype) -> Tensor:
            return tensor.detach().to(device, dtype).contiguous()

        def conv2d(weight: Tensor) -> Tensor:
            return ready(weight[:, :, None]).to(memory_format=torch.channels_last)

        self._first = conv2d(codec.conv1.weight), ready(codec.conv1.bias)
        self._blocks = [_make_block(block, ready, conv2d) for block in codec.block]
        alpha = _alpha_of(codec.snake1)
        # Nothing lies between the last convolution and the bottleneck: their product is one convolution.
        bottleneck = embedder.bottleneck.weight.detach().float()[:, :, 0]
        self._last_scale = alpha.to(device), torch.zeros_like(alpha, device=device)
        weight = torch.einsum("fc,cik->fik", bottleneck, codec.conv2.weight.detach().float() / alpha[:, None])
        bias = bottleneck @ codec.conv2.bias.detach().float() + embedder.bottleneck.bias.detach().float()
        self._last = conv2d(weight), ready(bias)
        self.tile_bytes = TILE_BYTES if device == "cpu" else None
        self._snake: Snake = snake

    def compile(self, gains: Callable[[str, int], bool] = gains_by_fusing) -> None:
        """Spend some seconds to compile a faster Snake, where ``gains`` says that it is faster."""
        weight, _ = self._first
        if gains(weight.device.type, len(weight)):
            self._snake = fuse_snake(weight.device.type, self._dtype)

    @property
    def compiled(self) -> bool:
        return self._snake is not snake

    def __call__(self, samples: Tensor) -> Tensor:
        x = samples.to(self._dtype)[:, :, None]
        n_samples = x.shape[1]
        first, bias = self._first

        def begin(start: int, stop: int, some: slice) -> Tensor:
            low, high = max(start - 3, 0), min(stop + 3, n_samples)
            piece = functional.pad(x[some, low:high], (0, 0, low - (start - 3), stop + 3 - high))
            return _convolve(piece, first, bias)

        read: Callable[[int, int, slice], Tensor] = begin
        for number, block in enumerate(self._blocks, 1):
            with record_function(f"codec block {number}"):  # the first block includes the first convolution
                x_block = self._run_block(block, read, samples.shape[0], n_samples)
            n_samples //= block.stride
            read = partial(_whole if self.tile_bytes is None else _piece, x_block)
        with record_function("codec end"):
            return _convolve(self._snake(x_block, self._last_scale), *self._last, padding=1)

    def _run_block(self, block: _Block, read: Callable[[int, int, slice], Tensor], n: int, length: int) -> Tensor:
        """(n, length, channels), tile by tile -> (n, length / stride, 2 * channels)."""
        channels = block.scale[0].shape[0]
        out = torch.empty(
            (n, length // block.stride, block.early.shape[1]), dtype=self._dtype, device=block.early.device
        )
        for some, start, stop in self._list_tiles(n, length // block.stride, block.stride * channels):
            begin, end = start * block.stride - block.pad, (stop + 1) * block.stride - block.pad
            low, high = max(begin - block.reach, 0), min(end + block.reach, length)
            x = read(low, high, some)
            for unit in block.units:
                # Each layer sees zeros beyond the ends of the sound; elsewhere it makes the tile shorter.
                left, right = unit.reach * (low == 0), unit.reach * (high == length)
                zeros = max(left, right)  # at both ends; the results of superfluous ones are dropped
                y = _convolve(self._snake(x, unit.scale), unit.weight1, unit.bias1, unit.dilation, zeros)
                y = self._snake(y[:, zeros - left : y.shape[1] - (zeros - right)], None)
                x = x[:, unit.reach - left : x.shape[1] - (unit.reach - right)]
                x.view(-1, channels).addmm_(y.view(-1, channels), unit.weight2)
                del y  # so that the next one can use its memory
                low, high = low + unit.reach - left, high - (unit.reach - right)
            x = self._snake(x[:, max(begin, 0) - low : min(end, length) - low], block.scale)
            y = out[some, start:stop].copy_(block.bias)
            for first, halves in _halve(x, block.stride, max(-begin, 0), max(end - length, 0)):
                _add_products(y, first, halves, block.early)
                _add_products(y, first - 1, halves, block.late)
        return out

    def _list_tiles(self, n: int, length: int, width: int) -> Iterator[tuple[slice, int, int]]:
        """Tiles of a block's output: which of ``n`` sounds, and from where to where of ``length``."""
        if self.tile_bytes is None:
            yield slice(0, n), 0, length
            return
        fitting = max(1, self.tile_bytes // (width * self._dtype.itemsize))
        sounds = max(1, fitting // length)
        for first in range(0, n, sounds):
            # Tiles of equal length: the neighbouring samples of a short one at the end would cost as much as itself.
            pieces = -(-length // fitting)
            edges = [length * k // pieces for k in range(pieces + 1)]
            for start, stop in pairwise(edges):
                yield slice(first, min(first + sounds, n)), start, stop


def _piece(x: Tensor, start: int, stop: int, some: slice) -> Tensor:
    return x[some, start:stop].clone()  # the block changes it in place, and neighbouring tiles share a part of it


def _whole(x: Tensor, start: int, stop: int, some: slice) -> Tensor:
    return x


def _halve(x: Tensor, stride: int, left: int, right: int) -> Iterator[tuple[int, Tensor]]:
    """(n, length, channels) with ``left`` and ``right`` zeros around it, in groups of ``stride`` samples.

    Yields the number of the first group and (n, some, stride * channels). Only the groups with zeros are copies.
    """
    n, length, _ = x.shape
    head, tail = (stride - zeros if zeros else 0 for zeros in (left, right))
    if left:
        yield 0, functional.pad(x[:, :head], (0, 0, left, 0)).view(n, 1, -1)
    if middle := (length - head - tail) // stride:
        yield bool(left), x[:, head : length - tail].view(n, middle, -1)
    if right:
        yield bool(left) + middle, functional.pad(x[:, length - tail :], (0, 0, 0, right)).view(n, 1, -1)


def _add_products(y: Tensor, first: int, halves: Tensor, weight: Tensor) -> None:
    """y[:, first + k] += halves[:, k] @ weight, for each k whose ``first + k`` exists."""
    low, high = max(-first, 0), min(y.shape[1] - first, halves.shape[1])
    if low < high:
        y[:, first + low : first + high].baddbmm_(halves[:, low:high], weight.expand(len(y), -1, -1))


def _convolve(x: Tensor, weight: Tensor, bias: Tensor, dilation: int = 1, padding: int = 0) -> Tensor:
    """(n, length, channels) -> (n, shorter, features), with ``padding`` zeros before and after each sound."""
    image = x[:, None].permute(0, 3, 1, 2)  # one row high, channels last: needs no copy
    made = functional.conv2d(image, weight, bias, padding=(0, padding), dilation=(1, dilation))
    return made.permute(0, 2, 3, 1)[:, 0].contiguous()  # no copy if the library kept the layout of its input


def _alpha_of(snake: Any) -> Tensor:
    alpha: Tensor = snake.alpha.detach().float().reshape(-1)
    return torch.where(alpha.abs() < SMALLEST_ALPHA, torch.full_like(alpha, SMALLEST_ALPHA), alpha)


def _make_block(block: Any, ready: Callable[..., Tensor], conv2d: Callable[[Tensor], Tensor]) -> _Block:
    def scaled(alpha: Tensor, shift: Tensor) -> Scale:
        return ready(alpha, torch.float32), ready(alpha * shift, torch.float32)

    units = []
    shift = torch.zeros(())
    for unit in (block.res_unit1, block.res_unit2, block.res_unit3):
        before, between = _alpha_of(unit.snake1), _alpha_of(unit.snake2)
        weight1 = unit.conv1.weight.detach().float() * between[:, None, None] / before[:, None]
        units.append(
            _Unit(
                scale=scaled(before, shift),
                weight1=conv2d(weight1),
                bias1=ready(unit.conv1.bias.detach().float() * between),
                weight2=ready((unit.conv2.weight.detach().float()[:, :, 0] / between).t()),
                dilation=unit.conv1.dilation[0],
            )
        )
        shift = shift + unit.conv2.bias.detach().float()
    alpha, stride = _alpha_of(block.snake1), block.conv1.stride[0]
    # (features, channels, 2 * stride) -> (2 * stride * channels, features), as the samples lie in memory.
    weight = (block.conv1.weight.detach().float() / alpha[:, None]).permute(2, 1, 0).flatten(0, 1)
    early, late = weight.chunk(2)
    return _Block(tuple(units), scaled(alpha, shift), ready(early), ready(late), ready(block.conv1.bias), stride)


def equal_codecs(one: Any, other: Any) -> bool:
    """Whether two audio encoders of transformers have the same codec, weight by weight."""
    for part in ("dac_encoder", "bottleneck"):
        weights, others = (getattr(encoder.embedder, part).state_dict() for encoder in (one, other))
        if weights.keys() != others.keys():
            return False
        for name, weight in weights.items():
            if weight.shape != others[name].shape or not torch.equal(weight.float(), others[name].float()):
                return False
    return True
