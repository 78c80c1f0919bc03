"""Features of the codec in, embeddings out: the transformer of PE-Audio's audio tower, made of the loaded weights.

Queries, keys and values are one product, gate and up another. RoPE turns halves instead of neighbours: the rows of the
projections are reordered for it, which does not change attention.

Source: transformers' ``models/pe_audio/modeling_pe_audio.py``.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional


class Transformer:
    """(n, frames, features) from the codec -> embeddings of clips (n, D) and of frames (n, frames, D)."""

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

    def __call__(self, features: Tensor) -> tuple[Tensor, Tensor]:
        encoder = self._encoder
        x, _ = encoder.patch_embedder(encoder.embedder.data_proj(features))
        positions = torch.arange(x.shape[1], device=x.device)[None]
        cos, sin = (part[0, :, : self._dimension // 2] for part in encoder.rotary_emb(x, positions))
        for layer in self._layers:
            x = layer(x, cos, sin)
        x = encoder.output(encoder.norm(x))
        return self._head(x[:, 0]), self._head(x[:, 1:])


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

    def __call__(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        x = x + self._attend(_normalise(x, self._before.weight, self._before.variance_epsilon), cos, sin)
        gate, up = functional.linear(
            _normalise(x, self._after.weight, self._after.variance_epsilon), self._gate_up
        ).chunk(2, -1)
        y: Tensor = x + self._down(self._activate(gate) * up)
        return y

    def _attend(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        n, length, _ = x.shape
        heads = functional.linear(x, self._qkv, self._qkv_bias).view(n, length, -1, self._dimension).transpose(1, 2)
        query, key, value = torch.split(heads, [self._heads, self._pairs, self._pairs], 1)
        query, key = (
            _turn(_normalise(part, *norm), cos, sin) for part, norm in zip((query, key), self._norms, strict=True)
        )
        heard = functional.scaled_dot_product_attention(query, key, value, enable_gqa=self._heads != self._pairs)
        y: Tensor = self._out(heard.transpose(1, 2).reshape(n, length, -1))
        return y


def _normalise(x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
    return functional.rms_norm(x, (x.shape[-1],), weight, epsilon)


def _turn(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """RoPE on halves of (..., length, dimension); ``cos`` and ``sin`` are (length, dimension / 2)."""
    first, second = x.chunk(2, -1)
    return torch.cat([first * cos - second * sin, first * sin + second * cos], -1)
