"""Questions in, query embeddings out. The models are loaded at the first question that needs them, and kept."""

from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from pipeline.audio.windows import cut_windows
from pipeline.config import EncodeConfig
from pipeline.encoder.checkpoint import ModelIdentity, read_identity
from pipeline.encoder.encoder import NonFiniteError, load_encoder
from pipeline.encoder.text_encoder import load_text_encoder
from pipeline.errors import IndexMismatch, UsageError
from pipeline.grid import HOP_SAMPLES, Grid, Waveform
from pipeline.search.scores import Vector
from pipeline.search.stopping import check_stopped


class TextModel(Protocol):
    """The part of ``text_encoder.TextEncoder`` that a question needs."""

    def embed(self, texts: Sequence[str]) -> Any: ...


class SoundModel(Protocol):
    """The part of ``encoder.encoder.AudioEncoder`` that a question needs."""

    def encode(self, windows: Sequence[Waveform]) -> Any: ...


class QueryModels:
    """Encoders of texts and sounds, by the identity of the model that made the vectors of an index.

    Args:
        path: of the index, for messages.

    Raises:
        IndexMismatch: (by the methods) the model has other weights now, or another tokenizer.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._texts: dict[ModelIdentity, TextModel] = {}
        self._sounds: dict[ModelIdentity, SoundModel] = {}

    def for_texts(self, identity: ModelIdentity) -> TextModel:
        if identity not in self._texts:
            self._check(identity, for_texts=True)
            self._texts[identity] = load_text_encoder(identity.name, identity.revision)
        return self._texts[identity]

    def for_sounds(self, identity: ModelIdentity) -> SoundModel:
        if identity not in self._sounds:
            self._check(identity)
            config = EncodeConfig(clip_model=identity.name, clip_revision=identity.revision)
            self._sounds[identity] = load_encoder(config, frames=False)
        return self._sounds[identity]

    def _check(self, identity: ModelIdentity, *, for_texts: bool = False) -> None:
        """The model must still be the one that made the vectors. Sounds do not need its tokenizer."""
        now = read_identity(identity.name, identity.revision)
        if now.checksum != identity.checksum:
            raise IndexMismatch(
                f"{self._path}: built with other weights than {identity.name} now has; restore the model"
            )
        if for_texts and identity.tokenizer and now.tokenizer != identity.tokenizer:
            raise IndexMismatch(
                f"{self._path}: built with another tokenizer than {identity.name} now has, so words would be read"
                " otherwise; its weights are the same; restore its tokenizer's files"
            )


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
        check_stopped()
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
