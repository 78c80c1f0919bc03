"""The models that questions need: loaded at the first such question, and kept."""

from collections.abc import Sequence
from typing import Any, Protocol

from pipeline.config import EncodeConfig
from pipeline.encoder.checkpoint import ModelIdentity, read_identity
from pipeline.encoder.encoder import load_encoder
from pipeline.encoder.text_encoder import load_text_encoder
from pipeline.errors import IndexMismatch
from pipeline.grid import Waveform


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
