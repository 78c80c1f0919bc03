"""Sounds and texts in, embeddings by Meta's own package for PE-Audio out, where that package is installed.

Source: facebookresearch/perception_models, ``core/audio_visual_encoder/pe.py`` and ``apps/pe/README.md``. The package
downloads its weights from another branch of the same repositories on the hub.
"""

from collections.abc import Sequence
from importlib import import_module, metadata
from typing import Any

import numpy as np

from pipeline.encoder.text_encoder import Embeddings
from pipeline.grid import Waveform

OWNER = "facebook/"
"""The beginning of the names of the models that the package knows."""


def find() -> Any | None:
    """The module ``core.audio_visual_encoder``; None where Meta's package is not installed.

    Raises:
        ImportError: a package that it needs is missing.
    """
    try:
        metadata.version("perception_models")
    except metadata.PackageNotFoundError:
        return None
    return import_module("core.audio_visual_encoder")


def embed(
    package: Any, role: str, name: str, sounds: Sequence[Waveform], tokens: Sequence[Sequence[int]]
) -> tuple[Embeddings, Embeddings]:
    """Embed on the CPU, in float32: sounds of one length to (n, D) clips or (n, frames, D) frames, texts to (n, D)."""
    import torch

    kind = package.PEAudioFrame if role == "frame" else package.PEAudioVisual
    model = kind.from_config(name.removeprefix(OWNER), pretrained=True).eval().float()
    if model.config.nth_text_layer is not None:
        # Written for a transformers whose `hidden_states` end before this norm; in today's they end after it.
        model.text_model.final_norm = torch.nn.Identity()
    values = torch.from_numpy(np.stack(sounds)[:, None])
    with torch.inference_mode():
        ids = [torch.tensor([row]) for row in tokens]
        if role == "frame":
            made = [model(input_ids=row, input_values=values[:1], return_spans=False).text_embeds for row in ids]
            audio = [
                model(input_ids=ids[0], input_values=value[None], return_spans=False).audio_embeds for value in values
            ]
        else:
            made = [model.encode_audio_text(row) for row in ids]
            audio = [model.encode_audio(values)]
    return torch.cat(audio).numpy(), torch.cat(made).numpy()
