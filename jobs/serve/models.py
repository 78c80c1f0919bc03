"""The encoders of questions, shared by all states of an index and by all threads."""

from collections.abc import Sequence
from threading import Lock, RLock
from typing import Any

import numpy as np

from pipeline.encoder.checkpoint import ModelIdentity
from pipeline.search.query_vectors import QueryModels, SoundModel, TextModel
from pipeline.search.recent import Recent

MAX_KEPT_TEXTS = 2_000
"""A page asks for one text again and again: for its hits, and for a curve of each of them."""


class SharedModels(QueryModels):
    """Models that many threads may ask for: each is loaded once, and the others wait. Texts and sounds do not wait for
    each other."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self._loading_texts, self._loading_sounds = RLock(), RLock()
        self._kept: dict[ModelIdentity, KeptTexts] = {}

    def for_texts(self, identity: ModelIdentity) -> TextModel:
        with self._loading_texts:
            if identity not in self._kept:
                self._kept[identity] = KeptTexts(super().for_texts(identity))
            return self._kept[identity]

    def for_sounds(self, identity: ModelIdentity) -> SoundModel:
        with self._loading_sounds:
            return super().for_sounds(identity)


class KeptTexts:
    """A text model that keeps the embeddings of the newest texts. It is asked by one thread at a time."""

    def __init__(self, model: TextModel) -> None:
        self._model = model
        self._kept: Recent[str, Any] = Recent(MAX_KEPT_TEXTS)
        self._asking = Lock()

    def embed(self, texts: Sequence[str]) -> Any:
        known = self._kept.find(texts)
        if new := [text for text in dict.fromkeys(texts) if text not in known]:
            with self._asking:
                found = dict(zip(new, np.asarray(self._model.embed(new)), strict=True))
            self._kept.keep(found)
            known |= found
        return np.stack([known[text] for text in texts])
