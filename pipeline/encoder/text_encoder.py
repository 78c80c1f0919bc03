"""Texts in, query embeddings out: ModernBERT and the head of a PE-Audio checkpoint, on the CPU in float32.

``text_tower`` reads the usual kind of checkpoint without torch and transformers, which take seconds to import.
Transformers reads the others, or says what is wrong with them.

PE-Audio was trained on the state of ModernBERT's last layer before its final norm: Meta's code takes
``hidden_states[22]`` of 22 layers (facebookresearch/perception_models, ``core/audio_visual_encoder/pe.py``), which is
that state in the transformers it was written for. Since version 5.1 transformers gives the state after the norm, and
since 5.18 the state before it if the checkpoint's text settings say ``tie_last_hidden_states: false``. Here the
checkpoint alone decides, whatever the version: ``true`` selects the state after the norm, anything else the one before.

    >>> query = load_text_encoder("facebook/pe-av-base").embed(["glass breaking"])  # searches the clips
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from pipeline.encoder.batching import equal_batches
from pipeline.encoder.checkpoint import Checkpoint, find_checkpoint
from pipeline.encoder.loading import load_model, load_tokenizer
from pipeline.encoder.text_tower import TextTower, read_text_tower
from pipeline.encoder.tokenizer import read_plain_tokenizer
from pipeline.errors import UsageError

Embeddings = npt.NDArray[np.float32]

BATCH_TEXTS = 64


class TextEncoder:
    """Turns texts into query embeddings. Made by ``load_text_encoder``."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.identity = checkpoint.identity
        self._tower: TextTower | TransformersTower = read_text_tower(checkpoint) or TransformersTower(checkpoint)
        tokenizer = read_plain_tokenizer(
            checkpoint.folder / "tokenizer.json", checkpoint.tokenizer, *checkpoint.tokenizer_settings
        )
        self._tokenizer = tokenizer or TransformersTokenizer(checkpoint)
        self._max_tokens = min(self._tokenizer.model_max_length, self._tower.most_positions)

    def embed(self, texts: Sequence[str]) -> Embeddings:
        """Embed texts: shape (n, D). Search a table only with texts embedded by the model that filled it.

        Raises:
            UsageError: a text is empty, or longer than the text tower accepts: texts are never cut off silently.
        """
        if any(not text.strip() for text in texts):
            raise UsageError("a text to search for is empty: say in words what should be heard")
        embeddings = np.empty((len(texts), self.identity.dimension), np.float32)
        tokens = [self._tokenize(text) for text in texts]
        for batch in equal_batches([len(ids) for ids in tokens], BATCH_TEXTS):
            embeddings[batch] = self._tower.embed(np.array([tokens[i] for i in batch]))
        return embeddings

    def _tokenize(self, text: str) -> list[int]:
        ids = self._tokenizer.tokenize(text)
        if len(ids) > self._max_tokens:
            raise UsageError(f"a text of {len(ids)} tokens is too long: {self.identity.name} takes {self._max_tokens}")
        return ids


class TransformersTower:
    """The text tower of a checkpoint that ``text_tower`` does not read, or the reference for one that it does."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.model = load_model(checkpoint, "float32")
        # The weights are pages of a mapped file, read on first use. The audio tower's are never read.
        del self.model.audio_encoder, self.model.audio_head
        self.most_positions: int = self.model.config.text_config.max_position_embeddings

    def embed(self, ids: npt.NDArray[np.int64]) -> Embeddings:
        """Tokens (n, t) of n texts of one length -> embeddings (n, D)."""
        import torch

        with torch.inference_mode():
            # `get_text_audio_embeds` should do this, but fails in transformers 5.23.
            read = self.model.text_model(input_ids=torch.from_numpy(ids))
            embeddings: Embeddings = self.model.text_audio_head(read.last_hidden_state[:, 0]).float().numpy()
        return embeddings


class TransformersTokenizer:
    """A tokenizer whose settings change something of tokenizer.json."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self._tokenizer = load_tokenizer(checkpoint)
        self.model_max_length: int = self._tokenizer.model_max_length

    def tokenize(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer(text, padding=False, truncation=False, verbose=False)["input_ids"]
        return ids


def load_text_encoder(name: str, revision: str | None = None) -> TextEncoder:
    """The text tower of a checkpoint, without the weights of its audio tower.

    Raises:
        ModelError: the model cannot be found, or its checkpoint does not load exactly.
    """
    return TextEncoder(find_checkpoint(name, revision))
