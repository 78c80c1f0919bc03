"""ModernBERT and the text head of a PE-Audio checkpoint in numpy: tokens in, query embeddings out.

A question is a few words, and torch and transformers take seconds to import. So the usual kind of checkpoint is read
here: its weights are mapped from the file, in float32. ``read_text_tower`` returns None for any other kind, which
transformers then loads or refuses. Tests and ``earshot check`` compare both.

Source: ModernBERT (Warner et al. 2024, arXiv 2412.13663), and transformers' ``modeling_modernbert.py`` and
``modeling_pe_audio.py``, whose names the weights have.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.encoder.checkpoint import Checkpoint, Tensor

Array = npt.NDArray[np.float32]

HEAD_EPS = 1e-6
"""Of the layer norm in the text head."""

_DEFAULTS: dict[str, Any] = {
    **dict(hidden_size=1024, intermediate_size=2624, num_hidden_layers=22, num_attention_heads=16),  # PeAudioConfig's
    **dict(vocab_size=50_368, max_position_embeddings=8192, local_attention=128, norm_eps=1e-5),
    **dict(norm_bias=False, attention_bias=False, mlp_bias=False, global_attn_every_n_layers=3),
    **dict(hidden_activation="gelu", layer_types=None, rope_parameters=None, rope_scaling=None),
    **dict(global_rope_theta=160_000.0, local_rope_theta=10_000.0),
}
_FULL, _SLIDING = "full_attention", "sliding_attention"


@dataclass(frozen=True)
class TextSettings:
    """The shape of a text tower."""

    n_tokens: int
    """In the vocabulary."""
    width: int
    mlp_width: int
    n_heads: int
    most_positions: int
    reach: int
    """How many positions to each side a token sees in a layer of local attention."""
    norm_eps: float
    rope_thetas: tuple[float, ...]
    """Of each layer."""
    is_local: tuple[bool, ...]
    """Of each layer, whether its attention is local."""


def read_settings(text: Any) -> TextSettings | None:
    """The settings of a checkpoint's ``text_config``; None if it is of another kind than is read here."""
    if not isinstance(text, dict) or text.get("model_type") != "modernbert":
        return None
    found = {name: default if text.get(name) is None else text[name] for name, default in _DEFAULTS.items()}
    if not all(_is_like(found[name], default) for name, default in _DEFAULTS.items()):
        return None
    if found["hidden_activation"] != "gelu" or found["rope_scaling"] is not None or text.get("head_dim") is not None:
        return None
    if found["norm_bias"] or found["attention_bias"] or found["mlp_bias"]:
        return None
    n_layers, every = found["num_hidden_layers"], found["global_attn_every_n_layers"]
    layer_types = found["layer_types"] or [_SLIDING if n % every else _FULL for n in range(n_layers)]
    thetas = _read_thetas(found)
    if found["num_attention_heads"] < 1 or found["hidden_size"] % (2 * found["num_attention_heads"]) or every < 1:
        return None
    if thetas is None or len(layer_types) != n_layers or not set(layer_types) <= {_FULL, _SLIDING}:
        return None
    return TextSettings(
        n_tokens=found["vocab_size"],
        width=found["hidden_size"],
        mlp_width=found["intermediate_size"],
        n_heads=found["num_attention_heads"],
        most_positions=found["max_position_embeddings"],
        reach=found["local_attention"] // 2,
        norm_eps=found["norm_eps"],
        rope_thetas=tuple(thetas[kind] for kind in layer_types),
        is_local=tuple(kind == _SLIDING for kind in layer_types),
    )


def _is_like(value: Any, default: Any) -> bool:
    if default is None:
        return True
    return isinstance(value, (int, float) if isinstance(default, float) else type(default))


def _read_thetas(found: dict[str, Any]) -> dict[str, float] | None:
    """The base of the rotary embedding for each kind of layer; None for rotary embeddings of another type."""
    thetas = {_FULL: found["global_rope_theta"], _SLIDING: found["local_rope_theta"]}
    for kind, values in (found["rope_parameters"] or {}).items():
        if kind not in thetas or (values or {}).get("rope_type", "default") != "default":
            return None
        if set(values or {}) - {"rope_type", "rope_theta"}:
            return None
        thetas[kind] = (values or {}).get("rope_theta", thetas[kind])
    return thetas


class TextTower:
    """A text tower. Made by ``read_text_tower``.

    Args:
        weights: by name, without ``text_model.``; those of the head begin with ``text_audio_head.``.
        normed: whether the final norm comes before the head.
    """

    def __init__(self, settings: TextSettings, weights: dict[str, Array], tokens: "Rows", *, normed: bool) -> None:
        self.settings, self.most_positions = settings, settings.most_positions
        self._weights, self._tokens, self._normed = weights, tokens, normed

    def embed(self, ids: npt.NDArray[np.int64]) -> Array:
        """Tokens (n, t) of n texts of one length -> embeddings (n, D)."""
        weights, eps = self._weights, self.settings.norm_eps
        x: Any = _norm(self._tokens.read(ids), weights["embeddings.norm.weight"], eps)
        for layer in range(len(self.settings.is_local)):
            name = f"layers.{layer}."
            y = x if layer == 0 else _norm(x, weights[f"{name}attn_norm.weight"], eps)
            x = x + self._attend(y, layer)
            y = _norm(x, weights[f"{name}mlp_norm.weight"], eps) @ weights[f"{name}mlp.Wi.weight"].T
            value, gate = np.split(y, 2, axis=-1)
            x = x + (gelu(value) * gate) @ weights[f"{name}mlp.Wo.weight"].T
        x = x[:, 0]
        if self._normed:
            x = _norm(x, weights["final_norm.weight"], eps)
        x = _norm(x, weights["text_audio_head.layer_norm.weight"], HEAD_EPS)
        embeddings: Array = (x + weights["text_audio_head.layer_norm.bias"]) @ weights["text_audio_head.proj.weight"].T
        return embeddings

    def _attend(self, x: Array, layer: int) -> Array:
        settings, name = self.settings, f"layers.{layer}.attn."
        n, length, width = x.shape
        qkv = (x @ self._weights[f"{name}Wqkv.weight"].T).reshape(n, length, 3, settings.n_heads, -1)
        query, key, value = qkv.transpose(2, 0, 3, 1, 4)  # (n, heads, t, width of a head) each
        cos, sin = _turns(length, query.shape[-1], settings.rope_thetas[layer])
        query, key = (each * cos + _rotate_half(each) * sin for each in (query, key))
        scores = query @ key.swapaxes(-1, -2) * np.float32(query.shape[-1] ** -0.5)
        if settings.is_local[layer] and length > settings.reach:
            at = np.arange(length)
            scores[..., np.abs(at[:, None] - at) > settings.reach] = -np.inf
        scores = np.exp(scores - scores.max(axis=-1, keepdims=True))
        scores /= scores.sum(axis=-1, keepdims=True)
        attended = (scores @ value).swapaxes(1, 2).reshape(n, length, width)
        out: Array = attended @ self._weights[f"{name}Wo.weight"].T
        return out


def read_text_tower(checkpoint: Checkpoint) -> TextTower | None:
    """The text tower of a checkpoint; None where its settings or weights are not those of the usual kind."""
    settings = read_settings(checkpoint.settings.get("text_config"))
    if settings is None or (checkpoint.settings["model_type"] == "pe_audio" and _has_unknown_weights(checkpoint)):
        return None
    weights: dict[str, Array] = {}
    tokens: Rows | None = None
    for name, shape in _list_weights(settings):
        tensor = _find(checkpoint, name)
        if tensor is None or tensor.shape != shape or tensor.dtype not in _DTYPES:
            return None
        if name == _TOKENS:
            tokens = Rows(tensor)
        else:
            weights[name.removeprefix("text_model.")] = _to_float32(_map(tensor), tensor.dtype)
    if tokens is None or _count_text_weights(checkpoint) != len(weights) + 1:
        return None
    return TextTower(settings, weights, tokens, normed=checkpoint.reads_normed_text)


_TOKENS = "text_model.embeddings.tok_embeddings.weight"


def _list_weights(settings: TextSettings) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Names and shapes of all weights of the text tower and its head."""
    width, mlp_width = settings.width, settings.mlp_width
    yield _TOKENS, (settings.n_tokens, width)
    yield "text_model.embeddings.norm.weight", (width,)
    for layer in range(len(settings.is_local)):
        name = f"text_model.layers.{layer}."
        if layer:
            yield f"{name}attn_norm.weight", (width,)
        yield f"{name}attn.Wqkv.weight", (3 * width, width)
        yield f"{name}attn.Wo.weight", (width, width)
        yield f"{name}mlp_norm.weight", (width,)
        yield f"{name}mlp.Wi.weight", (2 * mlp_width, width)
        yield f"{name}mlp.Wo.weight", (width, mlp_width)
    yield "text_model.final_norm.weight", (width,)
    yield "text_audio_head.layer_norm.weight", (width,)
    yield "text_audio_head.layer_norm.bias", (width,)
    yield "text_audio_head.proj.weight", (width, width)


def _find(checkpoint: Checkpoint, name: str) -> Tensor | None:
    """A weight. In a checkpoint of several models it may be ``audio_model``'s own, or shared by all."""
    return checkpoint.tensors.get(f"audio_model.{name}") or checkpoint.tensors.get(name)


def _count_text_weights(checkpoint: Checkpoint) -> int:
    """The weights that a text tower or its head has in the file, each counted once."""
    names = {name.removeprefix("audio_model.") for name in checkpoint.tensors}
    return sum(name.startswith(("text_model.", "text_audio_head.")) for name in names)


def _has_unknown_weights(checkpoint: Checkpoint) -> bool:
    return not all(name.startswith(_PARTS) for name in checkpoint.tensors)


_PARTS = ("audio_encoder.", "audio_head.", "text_model.", "text_audio_head.", "text_audio_logit_")

# --- weights in the file ----------------------------------------------------------------------------------------------

_DTYPES = {"F32": "<f4", "F16": "<f2", "BF16": "<u2"}


def _map(tensor: Tensor) -> npt.NDArray[Any]:
    """A tensor as it lies in the file: pages are read when they are used."""
    return np.memmap(tensor.file, _DTYPES[tensor.dtype], "r", tensor.start, tensor.shape)


def _to_float32(values: npt.NDArray[Any], dtype: str) -> Array:
    if dtype == "BF16":  # the upper half of a float32
        return (values.astype(np.uint32) << 16).view(np.float32)
    return np.asarray(values, np.float32)


class Rows:
    """Rows of a large table of weights, of which only those that are asked for are read."""

    def __init__(self, tensor: Tensor) -> None:
        self._mapped, self._dtype = _map(tensor), tensor.dtype

    def read(self, numbers: npt.NDArray[np.int64]) -> Array:
        return _to_float32(self._mapped[numbers], self._dtype)


# --- functions --------------------------------------------------------------------------------------------------------


def _norm(x: Array, weight: Array, eps: float) -> Array:
    """Layer norm without a bias."""
    x = x - x.mean(axis=-1, keepdims=True)
    normed: Array = x / np.sqrt(np.square(x).mean(axis=-1, keepdims=True) + np.float32(eps)) * weight
    return normed


_FAR, _STEPS = 6.0, 1 << 14
_AT = np.linspace(-_FAR, _FAR, _STEPS)
_NORMAL = np.array([(1 + math.erf(at / math.sqrt(2))) / 2 for at in _AT.tolist()])


def gelu(x: Array) -> Array:
    """x times the cumulative normal distribution, which is read from a table: off by less than 2e-8."""
    values: Array = x * np.interp(x, _AT, _NORMAL, left=0.0, right=1.0).astype(np.float32)
    return values


def _turns(length: int, width: int, theta: float) -> tuple[Array, Array]:
    """Cosines and sines (length, width) of the rotary position embedding."""
    frequencies = theta ** (-np.arange(0, width, 2, dtype=np.float32) / np.float32(width))
    angles = np.arange(length, dtype=np.float32)[:, None] * frequencies
    angles = np.concatenate([angles, angles], axis=-1).astype(np.float32)
    return np.cos(angles), np.sin(angles)


def _rotate_half(x: Array) -> Array:
    first, second = np.split(x, 2, axis=-1)
    return np.concatenate([-second, first], axis=-1)
