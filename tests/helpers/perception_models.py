"""A fake of Meta's package perception_models."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from transformers import PeAudioModel

from pipeline.encoder.checkpoint import find_checkpoint
from pipeline.encoder.loading import load_with_transformers


class FakePerceptionModels:
    """Meta's package, as far as Earshot calls it. Its models are those of transformers for the checkpoint ``folder``.

    Args:
        off: how far its clip embeddings are from those of transformers.
        nth: the text layer that it reads; None reads the state after the final norm.
    """

    def __init__(self, folder: Path, off: float = 0.0, nth: int | None = 4) -> None:
        self._folder, self._off, self._nth = folder, off, nth
        self.PEAudioVisual = self.PEAudioFrame = self
        self.asked: list[str] = []

    def from_config(self, name: str, pretrained: bool) -> Any:
        assert pretrained
        self.asked.append(name)
        model, _ = load_with_transformers(find_checkpoint(str(self._folder), None), "PeAudioModel", "float32")
        return _FakeModel(model, self._off, self._nth)


class _FakeModel(torch.nn.Module):
    def __init__(self, model: PeAudioModel, off: float, nth: int | None) -> None:
        super().__init__()
        self.text_model, self._model, self._off = model.text_model, model, off
        self.config = SimpleNamespace(nth_text_layer=nth)

    def encode_audio_text(self, ids: torch.Tensor) -> Any:
        # As today's transformers gives it: the last state after the norm, if there is one.
        read = self.text_model(input_ids=ids, output_hidden_states=True).hidden_states[-1]
        return self._model.text_audio_head(read[:, 0])

    def encode_audio(self, values: torch.Tensor) -> Any:
        made = self._model.audio_head(self._model.audio_encoder(values).pooler_output)
        return made + self._off * made.roll(1, -1)

    def forward(self, input_ids: torch.Tensor, input_values: torch.Tensor, return_spans: bool) -> Any:
        assert not return_spans
        frames = self._model.audio_head(self._model.audio_encoder(input_values).last_hidden_state)
        return SimpleNamespace(text_embeds=self.encode_audio_text(input_ids), audio_embeds=frames)
