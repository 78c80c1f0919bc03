"""Encoders and codecs of small checkpoints, sounds for them, and the same through transformers."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from transformers import PeAudioEncoderConfig, PeAudioFrameLevelModel, PeAudioModel, PeAudioProcessor
from transformers.models.pe_audio.modeling_pe_audio import PeAudioEncoderEmbedder

from pipeline.config import EncodeConfig
from pipeline.encoder.encoder import AudioEncoder, load_encoder
from pipeline.errors import ModelError
from pipeline.grid import HOP_SAMPLES, Waveform

PARITY = 1e-4
"""Rounding of float32 through all layers, relative to the length of an embedding."""


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


TEXTS = ["glass breaking", "a dog barks far away", "rain on a tin roof " * 8, "someone whistles", "wind"]


def make_sound(seed: int, n_samples: int) -> Waveform:
    """A gliding tone that fades in, over noise."""
    generator = np.random.default_rng(seed)
    time_s = np.arange(n_samples) / 48_000
    tone = np.sin(2 * np.pi * (200 + 300 * seed + 2_000 * time_s) * time_s) * np.linspace(0, 1, n_samples)
    return (0.5 * tone + generator.normal(0, 0.05, n_samples)).astype(np.float32)


def make_windows(n_frames: list[int]) -> list[Waveform]:
    return [make_sound(seed, n * HOP_SAMPLES) for seed, n in enumerate(n_frames)]


def load(clip: Path | str, frame: Path | None = None, frames: bool = True, **settings: Any) -> AudioEncoder:
    """An encoder on the CPU, in float32 unless ``settings`` say otherwise."""
    settings = {"device": "cpu", "precision": "float32", **settings}
    return load_encoder(EncodeConfig(clip_model=str(clip), frame_model=frame and str(frame), **settings), frames)


def assert_close(rows: npt.ArrayLike, expected: npt.ArrayLike) -> None:
    rows, expected = np.asarray(rows), np.asarray(expected)
    assert rows.shape == expected.shape
    error = np.linalg.norm(rows - expected, axis=-1) / np.linalg.norm(expected, axis=-1)
    assert error.max(initial=0.0) < PARITY


def cosine(a: np.ndarray[Any, Any], b: np.ndarray[Any, Any]) -> float:
    """The least cosine of corresponding rows."""
    norms = np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1)
    return float(((a * b).sum(-1) / norms).min())


def run_transformers(folder: Path, sound: Waveform, text: str) -> tuple[Any, Any]:
    """The outputs of transformers' clip model and frame model for one sound and one text."""
    inputs = PeAudioProcessor.from_pretrained(folder)(
        audio=[sound], text=[text], sampling_rate=48_000, padding=True, return_tensors="pt"
    )
    with torch.inference_mode():
        clip, frame = (m.from_pretrained(folder).eval()(**inputs) for m in (PeAudioModel, PeAudioFrameLevelModel))
    return clip, frame


def one_line(error: pytest.ExceptionInfo[ModelError]) -> str:
    message = str(error.value)
    assert "\n" not in message
    assert len(message) < 500
    return message
