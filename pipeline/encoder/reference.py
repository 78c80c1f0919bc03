"""What transformers and Earshot make of the same sounds and texts, for ``earshot check`` to compare.

Two models and a few synthetic sounds enter; embeddings leave, those of transformers by its own classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, Protocol

import numpy as np

from pipeline.config import EncodeConfig
from pipeline.encoder.batching import Rows
from pipeline.encoder.checkpoint import Checkpoint, find_checkpoint
from pipeline.encoder.loading import load_plainly, load_tokenizer
from pipeline.encoder.parity import without_tf32
from pipeline.encoder.text import Embeddings, load_text_encoder
from pipeline.grid import Waveform

SIREN, DOG = "a siren", "a dog barking"
TEXTS = (SIREN, DOG, "glass breaking in the room next door, and someone who shouts")

KNOWS_TEXT_STATE = (5, 18)
"""transformers' first version whose forward goes by ``tie_last_hidden_states``."""


class Encoder(Protocol):
    """What is asked of ``pipeline.encoder.encoder.AudioEncoder``."""

    @property
    def compiled(self) -> bool: ...
    def compile(self) -> None: ...
    def encode(self, windows: Sequence[Waveform]) -> tuple[Rows, list[Rows] | None]: ...


@dataclass(frozen=True)
class Part:
    """One of the two models: ``clip`` or ``frame``, and transformers' class for it."""

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
    """What transformers makes of the sounds, (n, D) or (n, frames, D), and of the texts, (n, D) from either state."""

    audio: Embeddings
    before_norm: Embeddings
    after_norm: Embeddings
    forward: Embeddings | None
    """The first text by its whole forward; None where its version cannot be told which state to take."""


@dataclass(frozen=True)
class Heard:
    """What Earshot makes of the sounds in float32, by role as ``Reference.audio``, and of the texts, by role."""

    audio: dict[str, Embeddings]
    texts: dict[str, Embeddings]

    @classmethod
    def of(cls, encoder: Encoder, sounds: Sequence[Waveform], parts: Sequence[Part]) -> "Heard":
        clips, frames = encoder.encode(sounds)
        texts: dict[str, Embeddings] = {}
        for part in parts:
            texts[part.role] = load_text_encoder(part.name, part.checkpoint.revision).embed(TEXTS)
        return cls({"clip": np.asarray(clips), "frame": np.stack(frames or [])}, texts)


def find_parts(models: EncodeConfig) -> list[Part]:
    """The clip model and the frame model, which may be one checkpoint.

    Raises:
        ModelError: one cannot be found.
    """
    clip = find_checkpoint(models.clip_model, models.clip_revision)
    frame = find_checkpoint(models.frame_model, models.frame_revision) if models.frame_model else clip
    return [Part("clip", clip, "PeAudioModel"), Part("frame", frame, "PeAudioFrameLevelModel")]


def make_reference(part: Part, sounds: Sequence[Waveform], device: str) -> Reference:
    """By transformers' class for it, on the device, in float32."""
    import torch
    import transformers

    model, _ = load_plainly(part.checkpoint, part.kind, "float32")
    model.eval().to(device)
    normed = part.checkpoint.reads_normed_text
    model.text_model.config.tie_last_hidden_states = normed
    with torch.inference_mode(), without_tf32():
        before, after = zip(*(read_text_states(model, ids) for ids in part.tokens), strict=True)
        made = model(
            input_ids=torch.tensor(part.tokens[:1], device=device),
            input_values=torch.from_numpy(np.stack(sounds)[:, None]).to(device),
        )
    version = tuple(map(int, transformers.__version__.split(".")[:2]))
    forward = _to_numpy(made.text_audio_embeds) if version >= KNOWS_TEXT_STATE or normed else None
    return Reference(_to_numpy(made.audio_embeds), np.stack(before), np.stack(after), forward)


def _to_numpy(tensor: Any) -> Embeddings:
    array: Embeddings = tensor.float().cpu().numpy()
    return array


def read_text_states(model: Any, ids: Sequence[int]) -> tuple[Any, Any]:
    """The embeddings (D,) of a text from the state before the final norm and from the one after it.

    Args:
        model: transformers' own, as ``loading.load_plainly`` gives it, and therefore with its final norm.
    """
    import torch

    states: list[Any] = []

    def keep(_: Any, given: tuple[Any, ...], made: Any) -> None:
        states.extend((given[0], made))

    hook = model.text_model.final_norm.register_forward_hook(keep)
    try:
        with torch.inference_mode():
            model.text_model(input_ids=torch.tensor([ids], device=model.device))
            before, after = (model.text_audio_head(state[:, 0])[0].float().cpu().numpy() for state in states)
    finally:
        hook.remove()
    return before, after
