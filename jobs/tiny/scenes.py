"""The training scenes: how many of each length, and their waveforms with targets."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from jobs.tiny.synth import CLASSES, draw_scene, frame_targets
from pipeline.grid import HOP_SAMPLES, seconds_to_samples


@dataclass(frozen=True, slots=True)
class Recipe:
    """Scenes for each length in seconds; optimiser steps and peak learning rates of each stage."""

    scenes: tuple[tuple[float, int], ...] = ((15.0, 180), (10.0, 300), (5.0, 360), (2.0, 480), (1.0, 560), (0.6, 320))
    codec_steps: int = 2_000
    codec_crops: int = 6
    codec_rate: float = 1.5e-3
    joint_steps: int = 3_200
    joint_rate: float = 2.5e-3


@dataclass(frozen=True, slots=True)
class Pool:
    """Scenes of one length: waveforms (scenes, samples) int16 and targets (scenes, frames, classes) bool."""

    waveforms: Tensor
    targets: Tensor


def make_pools(recipe: Recipe, seed: int) -> list[Pool]:
    """All training scenes, each from a generator of its own."""
    pools = []
    for index, (duration_s, n_scenes) in enumerate(recipe.scenes):
        n_frames = seconds_to_samples(duration_s) // HOP_SAMPLES
        waveforms = torch.empty(n_scenes, n_frames * HOP_SAMPLES, dtype=torch.int16)
        targets = torch.empty(n_scenes, n_frames, len(CLASSES), dtype=torch.bool)
        for row in range(n_scenes):
            waveform, events = draw_scene(np.random.default_rng([seed, index, row]), duration_s)
            waveforms[row] = torch.from_numpy(np.round(waveform * 32_767).astype(np.int16))
            targets[row] = torch.from_numpy(frame_targets(events, n_frames))
        pools.append(Pool(waveforms, targets))
    return pools
