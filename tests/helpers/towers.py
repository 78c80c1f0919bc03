"""Codecs of transformers with random weights, sounds for them, and the distance between two results."""

from typing import Any

import torch
from transformers import PeAudioEncoderConfig
from transformers.models.pe_audio.modeling_pe_audio import PeAudioEncoderEmbedder

PARITY = 1e-4


def make_embedder(ratios: list[int], alpha: float | None = None, channels: int = 8) -> Any:
    torch.manual_seed(4)
    dac = {"model_type": "dac", "downsampling_ratios": ratios, "encoder_hidden_size": channels, "hidden_size": 24}
    embedder = PeAudioEncoderEmbedder(
        PeAudioEncoderConfig(dac_config={**dac, "codebook_dim": 6}, hidden_size=16)
    ).eval()
    for module in embedder.modules():
        if hasattr(module, "alpha"):
            drawn = torch.rand_like(module.alpha) * 3 - 1.5
            module.alpha.copy_(drawn if alpha is None else torch.full_like(drawn, alpha))
    return embedder


def run_plainly(embedder: Any, samples: torch.Tensor) -> torch.Tensor:
    features: torch.Tensor = embedder.bottleneck(embedder.dac_encoder(samples[:, None])).transpose(1, 2)
    return features


def error(found: torch.Tensor, expected: torch.Tensor) -> float:
    assert found.shape == expected.shape
    return float((found - expected).norm() / expected.norm())


def noise(n: int, length: int) -> torch.Tensor:
    return torch.randn(n, length, generator=torch.Generator().manual_seed(n + length)) * 0.3
