"""The same sounds and texts through transformers' own classes and through Earshot, for ``earshot check`` to compare."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np

from pipeline.encoder.batching import Rows
from pipeline.encoder.checkpoint import Checkpoint, find_checkpoint
from pipeline.encoder.loading import load_tokenizer, load_with_transformers
from pipeline.encoder.parity import without_tf32
from pipeline.encoder.text_encoder import Embeddings, load_text_encoder
from pipeline.grid import Waveform

if TYPE_CHECKING:  # the encoder runs without pydantic
    from pipeline.config import EncodeConfig

SIREN, DOG = "a siren", "a dog barking"
TEXTS = (SIREN, DOG, "glass breaking in the room next door, and someone who shouts")

KNOWS_TEXT_STATE = (5, 18)
"""The first version of transformers whose forward obeys ``tie_last_hidden_states``."""


class Encoder(Protocol):
    """The part of ``pipeline.encoder.encoder.AudioEncoder`` that the check uses."""

    @property
    def compiled(self) -> bool: ...
    def compile(self) -> None: ...
    def encode(self, windows: Sequence[Waveform]) -> tuple[Rows, list[Rows] | None]: ...


@dataclass(frozen=True)
class CheckedModel:
    """The clip model or the frame model, and the name of transformers' class for it."""

    role: Literal["clip", "frame"]
    checkpoint: Checkpoint
    kind: str

    @property
    def name(self) -> str:
        return self.checkpoint.name

    @cached_property
    def tokens(self) -> list[list[int]]:
        tokenizer = load_tokenizer(self.checkpoint)
        return [tokenizer(text)["input_ids"] for text in TEXTS]


@dataclass(frozen=True)
class Reference:
    """Embeddings by transformers: of the sounds (n, D) or (n, frames, D), and of the texts (n, D) from either state."""

    audio: Embeddings
    before_norm: Embeddings
    after_norm: Embeddings
    forward: Embeddings | None
    """The first text by the complete forward; None where this version of transformers ignores which state is asked."""


@dataclass(frozen=True)
class Heard:
    """Embeddings by Earshot in float32, by role: of the sounds, shaped as ``Reference.audio``, and of the texts."""

    audio: dict[str, Embeddings]
    texts: dict[str, Embeddings]

    @classmethod
    def of(cls, encoder: Encoder, sounds: Sequence[Waveform], models: Sequence[CheckedModel]) -> "Heard":
        clips, frames = encoder.encode(sounds)
        texts: dict[str, Embeddings] = {}
        for model in models:
            texts[model.role] = load_text_encoder(model.name, model.checkpoint.revision).embed(TEXTS)
        return cls({"clip": np.asarray(clips), "frame": np.stack(frames or [])}, texts)


def find_models(settings: "EncodeConfig") -> list[CheckedModel]:
    """The clip model and the frame model, which may be one checkpoint.

    Raises:
        ModelError: one cannot be found.
    """
    clip = find_checkpoint(settings.clip_model, settings.clip_revision)
    frame = find_checkpoint(settings.frame_model, settings.frame_revision) if settings.frame_model else clip
    return [CheckedModel("clip", clip, "PeAudioModel"), CheckedModel("frame", frame, "PeAudioFrameLevelModel")]


def make_reference(model: CheckedModel, sounds: Sequence[Waveform], device: str) -> Reference:
    """Embed with transformers' own class, on the device, in float32."""
    import torch
    import transformers

    network, _ = load_with_transformers(model.checkpoint, model.kind, "float32")
    network.eval().to(device)
    normed = model.checkpoint.reads_normed_text
    network.text_model.config.tie_last_hidden_states = normed
    with torch.inference_mode(), without_tf32():
        before, after = zip(*(read_text_states(network, ids) for ids in model.tokens), strict=True)
        made = network(
            input_ids=torch.tensor(model.tokens[:1], device=device),
            input_values=torch.from_numpy(np.stack(sounds)[:, None]).to(device),
        )
    version = tuple(map(int, transformers.__version__.split(".")[:2]))
    forward = _to_numpy(made.text_audio_embeds) if version >= KNOWS_TEXT_STATE or normed else None
    return Reference(_to_numpy(made.audio_embeds), np.stack(before), np.stack(after), forward)


def _to_numpy(tensor: Any) -> Embeddings:
    return np.asarray(tensor.float().cpu().numpy())


def read_text_states(network: Any, ids: Sequence[int]) -> tuple[Any, Any]:
    """The embeddings (D,) of a text from the state before the final norm and from the one after it.

    Args:
        network: from ``loading.load_with_transformers``, which leaves the final norm in.
    """
    import torch

    states: list[Any] = []

    def keep(_: Any, given: tuple[Any, ...], made: Any) -> None:
        states.extend((given[0], made))

    hook = network.text_model.final_norm.register_forward_hook(keep)
    try:
        with torch.inference_mode():
            network.text_model(input_ids=torch.tensor([ids], device=network.device))
            before, after = (network.text_audio_head(state[:, 0])[0].float().cpu().numpy() for state in states)
    finally:
        hook.remove()
    return before, after
