"""Stage 1 of training, the codec: it learns each frame's log-mel spectrum, its fine structure in time and its classes.

transformers runs the codec without gradients, so its modules are called here directly. The heads are thrown away.
"""

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PeAudioModel

from jobs.shared.output import print_error
from jobs.tiny.scenes import Pool, Recipe
from pipeline.grid import HOP_SAMPLES, SAMPLE_RATE_HZ


class _Snake(torch.autograd.Function):
    """The codec's activation at its start value alpha = 1, x + sin(x)^2, in a quarter of the memory traffic."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor) -> Tensor:
        ctx.save_for_backward(hidden)
        return torch.sin(hidden).square_().add_(hidden)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (hidden,) = ctx.saved_tensors
        return torch.sin(2 * hidden).add_(1).mul_(gradients[0])


def snake(hidden: Tensor) -> Tensor:
    """x + sin(x)^2; alpha stays at 1, the convolutions around it scale."""
    activated: Tensor = _Snake.apply(hidden)  # type: ignore[no-untyped-call]
    return activated


def codec_features(model: PeAudioModel, waveforms: Tensor) -> Tensor:
    """Codec features (batch, frames, 64) of (batch, samples), with gradients.

    The residual units of the first block run at the full rate and cost most. They start as the identity and are skipped
    here, so they stay the identity, and the saved model computes the same.
    """
    dac = model.audio_encoder.embedder.dac_encoder
    hidden = dac.block[0].conv1(snake(dac.conv1(waveforms[:, None])))
    for block in dac.block[1:]:
        for unit in (block.res_unit1, block.res_unit2, block.res_unit3):
            hidden = hidden + unit.conv2(snake(unit.conv1(snake(hidden))))
        hidden = block.conv1(snake(hidden))
    features: Tensor = model.audio_encoder.embedder.bottleneck(dac.conv2(snake(hidden)))
    return features.transpose(1, 2)


def mel_filters(n_bands: int, n_fft: int) -> Tensor:
    """Triangular filters (bins, n_bands), equally spaced on the mel scale from 40 Hz to 20 kHz."""
    edges_mel = torch.linspace(2595 * math.log10(1 + 40 / 700), 2595 * math.log10(1 + 20_000 / 700), n_bands + 2)
    edges_hz = 700 * (10 ** (edges_mel / 2595) - 1)
    bins_hz = torch.fft.rfftfreq(n_fft, 1 / SAMPLE_RATE_HZ)[:, None]
    rise = (bins_hz - edges_hz[:-2]) / (edges_hz[1:-1] - edges_hz[:-2])
    fall = (edges_hz[2:] - bins_hz) / (edges_hz[2:] - edges_hz[1:-1])
    return torch.minimum(rise, fall).clamp(min=0)


def mel_power(waveforms: Tensor, n_bands: int, hop_samples: int, n_fft: int) -> Tensor:
    """Power (batch, samples / hop, n_bands) in mel bands, of windows of ``n_fft`` samples centred on each hop."""
    margin = (n_fft - hop_samples) // 2
    padded = functional.pad(waveforms, (margin, margin))
    frames = padded.unfold(1, n_fft, hop_samples) * torch.hann_window(n_fft)
    power = torch.view_as_real(torch.fft.rfft(frames)).square().sum(-1) / n_fft
    bands: Tensor = power @ mel_filters(n_bands, n_fft)
    return bands


def spectral_targets(waveforms: Tensor) -> Tensor:
    """The targets of a 40 ms frame: 48 mel bands, 10 bands for each of its four quarters, and its level.

    Bands are compressed as log(1 + power / floor), so that only audible power counts.
    """
    coarse = mel_power(waveforms, 48, HOP_SAMPLES, 2 * HOP_SAMPLES)
    fine = mel_power(waveforms, 10, HOP_SAMPLES // 4, HOP_SAMPLES // 2).reshape(*coarse.shape[:2], 40)
    level = (coarse + 1e-6).log().mean(2, keepdim=True)
    return torch.cat([torch.log1p(torch.cat([coarse, fine], 2) / 3e-3), level], 2)


def draw_crops(pools: list[Pool], rng: np.random.Generator, n_crops: int) -> tuple[Tensor, Tensor]:
    """One-second crops: waveforms (crops, 48000) float32 and targets (crops, 25, classes) float32."""
    long = [pool for pool in pools if pool.targets.shape[1] >= 25]
    share = np.array([pool.targets.shape[0] * pool.targets.shape[1] for pool in long], float)
    waveforms, targets = [], []
    for index in rng.choice(len(long), n_crops, p=share / share.sum()):
        row = int(rng.integers(0, len(long[index].targets)))
        first = int(rng.integers(0, long[index].targets.shape[1] - 24))
        waveforms.append(long[index].waveforms[row, first * HOP_SAMPLES : (first + 25) * HOP_SAMPLES])
        targets.append(long[index].targets[row, first : first + 25])
    return torch.stack(waveforms).float() / 32_767, torch.stack(targets).float()


def schedule(optimizer: torch.optim.Optimizer, n_steps: int) -> torch.optim.lr_scheduler.LambdaLR:
    """Linear warm-up over 5 % of the steps, then linearly down to zero: it learns most from the small steps."""
    warm = max(1, n_steps // 20)

    def factor(step: int) -> float:
        return min(1.0, (step + 1) / warm) * (1 - min(1.0, step / n_steps))

    return torch.optim.lr_scheduler.LambdaLR(optimizer, factor)


class CodecHeads(nn.Module):
    """Heads on the codec's features: spectra from each frame, classes from about ten. They are not saved."""

    def __init__(self, example: Tensor) -> None:
        super().__init__()
        targets = spectral_targets(example)
        self.mean, self.deviation = targets.mean((0, 1)), targets.std((0, 1))
        self.spectrum = nn.Linear(64, targets.shape[2])
        self.near, self.wide, self.tags = (
            nn.Conv1d(64, 64, 5, padding=2),
            nn.Conv1d(64, 64, 5, padding=2),
            nn.Linear(64, 14),
        )

    def forward(self, features: Tensor, waveforms: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """The two losses, of spectra and of classes."""
        wanted = (spectral_targets(waveforms) - self.mean) / self.deviation
        hidden = functional.silu(self.wide(functional.silu(self.near(features.transpose(1, 2))))).transpose(1, 2)
        spectral = functional.smooth_l1_loss(self.spectrum(features), wanted, beta=0.5)
        return spectral, functional.binary_cross_entropy_with_logits(self.tags(hidden), targets)


def train_codec(model: PeAudioModel, pools: list[Pool], recipe: Recipe, rng: np.random.Generator) -> None:
    """Stage 1, on crops of one second."""
    embedder = model.audio_encoder.embedder
    heads = CodecHeads(draw_crops(pools, rng, 64)[0])
    trained = [embedder.dac_encoder, embedder.bottleneck, heads]
    parameters = [parameter for module in trained for parameter in module.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=recipe.codec_rate, weight_decay=1e-3)
    scheduler = schedule(optimizer, recipe.codec_steps)
    losses = []
    for step in range(recipe.codec_steps):
        waveforms, targets = draw_crops(pools, rng, recipe.codec_crops)
        spectral, tagging = heads(codec_features(model, waveforms), waveforms, targets)
        optimizer.zero_grad()
        torch.autograd.backward(spectral + 2 * tagging)
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        scheduler.step()
        losses.append((spectral.item(), tagging.item()))
        if step % 100 == 99:
            print_error("codec {}: spectra {:.3f}, classes {:.3f}".format(step + 1, *np.mean(losses[-100:], axis=0)))


@torch.no_grad()
def extract_features(model: PeAudioModel, pools: list[Pool]) -> list[Tensor]:
    """The codec features (scenes, frames, 64) of every pool, computed once."""
    return [
        torch.cat([codec_features(model, waveforms.float()[None] / 32_767) for waveforms in pool.waveforms])
        for pool in pools
    ]


@torch.no_grad()
def normalise_features(model: PeAudioModel, features: list[Tensor]) -> list[Tensor]:
    """Fold mean and deviation of each feature into the bottleneck; returns the normalised features."""
    flat = torch.cat([part.reshape(-1, part.shape[2]) for part in features])
    mean, deviation = flat.mean(0), flat.std(0) + 1e-6
    bottleneck = model.audio_encoder.embedder.bottleneck
    bottleneck.weight.div_(deviation[:, None, None])
    bottleneck.bias.sub_(mean).div_(deviation)
    return [(part - mean) / deviation for part in features]
