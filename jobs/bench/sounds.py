"""Sounds for measurements."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.grid import HOP_SAMPLES, SAMPLE_RATE_HZ, seconds_to_frames


def make_sounds(n: int, seconds: float) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Gliding tones over noise, (n, samples)."""
    n_samples = max(1, seconds_to_frames(seconds)) * HOP_SAMPLES
    rng, time_s = np.random.default_rng(7), np.arange(n_samples) / SAMPLE_RATE_HZ
    tones = [np.sin(2 * np.pi * (150 + 250 * k + 300 * time_s) * time_s) for k in range(n)]
    return (0.3 * np.stack(tones) + rng.normal(0, 0.05, (n, n_samples))).astype(np.float32)


def write_sounds(
    folder: Path, sounds: Iterable[Any], formats: Sequence[str] = ("wav",), subtype: str | None = None
) -> Path:
    """Write sounds at 48 kHz into a new folder, the formats in turns; returns the folder."""
    import soundfile

    folder.mkdir(parents=True)
    for number, sound in enumerate(sounds):
        file = folder / f"{number:05d}.{formats[number % len(formats)]}"
        soundfile.write(file, sound, SAMPLE_RATE_HZ, subtype=subtype)
    return folder
