"""A sound of any length in, its query embedding out."""

from collections.abc import Iterable
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.audio.windows import cut_windows
from pipeline.encoder.encoder import NonFiniteError
from pipeline.errors import UsageError
from pipeline.grid import HOP_SAMPLES, Grid, Waveform
from pipeline.search.models import SoundModel
from pipeline.search.scores import Vector

WINDOWS_AT_ONCE = 16
"""Windows of a sound that are decoded and encoded in one call: a long sound is never held as a whole."""

MAX_CHANNELS = 256


def embed_sound(blocks: Iterable[Waveform], grid: Grid, model: SoundModel) -> Vector:
    """The mean direction (D,) of the windows of a sound, a few of which are held at a time.

    Args:
        blocks: 48 kHz mono float32 samples (n,), in blocks of any size.

    Raises:
        UsageError: less than one frame of sound, samples that are not finite, or no finite embedding.
    """
    windows = (_check_finite(samples) for _, samples in cut_windows(blocks, grid))
    total, n_windows = np.zeros(1), 0
    while group := list(islice(windows, WINDOWS_AT_ONCE)):
        try:
            vectors, _ = model.encode(group)
        except NonFiniteError:
            raise UsageError("the model gives no finite embedding for this sound") from None
        directions = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
        total = total + directions.sum(axis=0)
        n_windows += len(group)
        group.clear()  # before the next ones are cut
    if n_windows == 0:
        raise UsageError(f"the sound is shorter than one frame of {HOP_SAMPLES} samples at 48 kHz")
    return (total / n_windows).astype(np.float32)


def check_waveform(waveform: Any, sample_rate_hz: int) -> npt.NDArray[Any]:
    """A waveform of a caller as an array (n,) or (n, channels).

    Raises:
        UsageError: it is neither, holds no numbers, or has no rate.
    """
    samples = np.asarray(waveform)
    if samples.ndim not in (1, 2) or not np.issubdtype(samples.dtype, np.number):
        raise UsageError(
            f"the waveform has shape {samples.shape} of {samples.dtype}: give numbers (n,) or (n, channels)"
        )
    if samples.ndim == 2 and samples.shape[1] > max(samples.shape[0], MAX_CHANNELS):
        raise UsageError(f"the waveform is {samples.shape}: give (n, channels), its transpose")
    if not sample_rate_hz > 0:
        raise UsageError(f"sample_rate_hz: {sample_rate_hz} is not a rate")
    return samples


def _check_finite(samples: Waveform) -> Waveform:
    if not np.isfinite(samples).all():
        raise UsageError("the sound has NaN or infinite samples")
    return samples
