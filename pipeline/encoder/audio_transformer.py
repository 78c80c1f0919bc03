"""Features of the codec in, embeddings out: the transformer of PE-Audio's audio tower, made of the loaded weights.

Sounds of many lengths share one pass: each product has the rows of all of them, and each sound attends to itself alone.
So its weights, 1 GB in float32 with the default size, are read once for a batch, not once for each length.

Queries, keys and values are one product, gate and up another. RoPE turns halves instead of neighbours: the rows of the
projections are reordered for it, which does not change attention.

Source: transformers' ``models/pe_audio/modeling_pe_audio.py``.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional


class Transformer:
    """Tensors (n, frames, features) from the codec, each of one length -> of each, embeddings of clips (n, D) and of
    frames (n, frames, D)."""

    def __init__(self, model: Any, device: str, dtype: torch.dtype) -> None:
        encoder = model.audio_encoder
        encoder.embedder.dac_encoder = encoder.embedder.bottleneck = None  # the codec has its own copy
        self._encoder = encoder
        config = encoder.config
        self._heads, self._pairs = config.num_attention_heads, config.num_key_value_heads
        self._dimension = config.head_dim
        frequencies = encoder.rotary_emb.inv_freq.to(device, copy=True)
        model.to(device, dtype)
        encoder.rotary_emb.inv_freq = frequencies  # in float32: rounded, they would be half a radian off at far frames
        self._layers = [_Layer(layer, config) for layer in encoder.layers[: config.num_hidden_layers]]
        self._head = model.audio_head

    def __call__(self, features: Sequence[Tensor]) -> list[tuple[Tensor, Tensor]]:
        encoder = self._encoder
        sounds = [encoder.patch_embedder(encoder.embedder.data_proj(each))[0] for each in features]
        shapes = [(each.shape[0], each.shape[1]) for each in sounds]
        x = torch.cat([each.flatten(0, 1) for each in sounds])
        numbers = torch.arange(max(length for _, length in shapes), device=x.device)
        place = torch.cat([numbers[:length].repeat(n) for n, length in shapes])
        cos, sin = (part[0, place, None, : self._dimension // 2] for part in encoder.rotary_emb(x, numbers[None]))
        for layer in self._layers:
            x = layer(x, cos, sin, shapes)
        x = self._head(encoder.output(encoder.norm(x)))
        rows = torch.split(x, [n * length for n, length in shapes])
        of_sounds = [each.view(*shape, -1) for each, shape in zip(rows, shapes, strict=True)]
        return [(each[:, 0], each[:, 1:]) for each in of_sounds]


class _Layer:
    def __init__(self, layer: Any, config: Any) -> None:
        attention, mlp = layer.self_attn, layer.mlp
        self._dimension = attention.head_dim
        self._heads, self._pairs = config.num_attention_heads, config.num_key_value_heads
        # transformers turns neighbours (0, 1), (2, 3), ...; with the even ones first, halves turn instead.
        order = torch.arange(self._dimension).view(-1, 2).t().flatten()

        def by_halves(weight: Tensor) -> Tensor:
            heads = weight.view(-1, self._dimension, *weight.shape[1:])
            return heads[:, order.to(weight.device)].flatten(0, 1)

        projections = attention.q_proj, attention.k_proj, attention.v_proj
        query, key, value = (projection.weight.detach() for projection in projections)
        self._qkv = torch.cat([by_halves(query), by_halves(key), value])
        self._qkv_bias = None
        if attention.q_proj.bias is not None:
            query, key, value = (projection.bias.detach() for projection in projections)
            self._qkv_bias = torch.cat([by_halves(query), by_halves(key), value])
        norms = attention.q_norm, attention.k_norm
        self._norms = [(by_halves(norm.weight.detach()), norm.variance_epsilon) for norm in norms]
        self._out = attention.o_proj
        self._before, self._after = layer.input_layernorm, layer.post_attention_layernorm
        self._gate_up = torch.cat([mlp.gate_proj.weight.detach(), mlp.up_proj.weight.detach()])
        self._activate, self._down = mlp.act_fn, mlp.down_proj
        for projection in (*projections, mlp.gate_proj, mlp.up_proj):
            projection.weight = None  # its copy is in use

    def __call__(self, x: Tensor, cos: Tensor, sin: Tensor, shapes: Sequence[tuple[int, int]]) -> Tensor:
        x = x + self._attend(_normalise(x, self._before.weight, self._before.variance_epsilon), cos, sin, shapes)
        gate, up = functional.linear(
            _normalise(x, self._after.weight, self._after.variance_epsilon), self._gate_up
        ).chunk(2, -1)
        y: Tensor = x + self._down(self._activate(gate) * up)
        return y

    def _attend(self, x: Tensor, cos: Tensor, sin: Tensor, shapes: Sequence[tuple[int, int]]) -> Tensor:
        heads = functional.linear(x, self._qkv, self._qkv_bias).view(len(x), -1, self._dimension)
        query, key, value = torch.split(heads, [self._heads, self._pairs, self._pairs], 1)
        query, key = (
            _turn(_normalise(part, *norm), cos, sin) for part, norm in zip((query, key), self._norms, strict=True)
        )
        sizes = [n * length for n, length in shapes]
        sounds = zip(*(torch.split(part, sizes) for part in (query, key, value)), strict=True)
        heard = [self._attend_within(parts, shape) for parts, shape in zip(sounds, shapes, strict=True)]
        y: Tensor = self._out(torch.cat(heard))
        return y

    def _attend_within(self, parts: Sequence[Tensor], shape: tuple[int, int]) -> Tensor:
        """Attention within each of ``n`` sounds of one length. Query, key and value (n * length, heads, dimension) ->
        (n * length, D)."""
        query, key, value = (part.view(*shape, *part.shape[1:]).transpose(1, 2) for part in parts)
        heard = functional.scaled_dot_product_attention(query, key, value, enable_gqa=self._heads != self._pairs)
        return heard.transpose(1, 2).flatten(2).flatten(0, 1)


def _normalise(x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
    return functional.rms_norm(x, (x.shape[-1],), weight, epsilon)


def _turn(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """RoPE on halves of (rows, heads, dimension); ``cos`` and ``sin`` are (rows, 1, dimension / 2)."""
    first, second = x.chunk(2, -1)
    return torch.cat([first * cos - second * sin, first * sin + second * cos], -1)
