"""Samples in, embeddings out: PE-Audio's audio tower, which is a codec and a transformer.

It computes what transformers' ``PeAudioEncoder`` computes without a padding mask; ``audio_codec`` and
``audio_transformer`` say how it becomes faster.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.profiler import record_function

from pipeline.encoder.audio_codec import Codec, equal_codecs
from pipeline.encoder.audio_transformer import Transformer


class Tower:
    """(n, samples) float32 -> (n, D) clips, and (n, frames, D') frames or None. It takes the models apart.

    Where clip model and frame model are one object, or have equal codecs, the codec runs once for both.
    """

    def __init__(self, clip: Any, frame: Any | None, device: str, dtype: torch.dtype) -> None:
        self.codec = self.frame_codec = Codec(clip.audio_encoder.embedder, device, dtype)
        if frame is not None and frame is not clip and not equal_codecs(clip.audio_encoder, frame.audio_encoder):
            self.frame_codec = Codec(frame.audio_encoder.embedder, device, dtype)
        self.clip = Transformer(clip, device, dtype)
        self.frame = self.clip if frame is clip else frame and Transformer(frame, device, dtype)

    def compile(self) -> None:
        """Spend some seconds to make the codecs faster."""
        for codec in {self.codec, self.frame_codec}:
            codec.compile()

    def __call__(self, samples: Tensor) -> tuple[Tensor, Tensor | None]:
        return self.embed([samples])[0]

    def embed(self, sounds: Sequence[Tensor]) -> list[tuple[Tensor, Tensor | None]]:
        """The embeddings of sounds of several lengths: tensors (n, samples), each of one length; a pair for each.

        The codec works on one length after the other, the transformer on all of them at once.
        """
        with torch.inference_mode(), torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            features = [self.codec(samples) for samples in sounds]
            with record_function("transformer"):
                embedded = self.clip(features)
            if self.frame is None:
                return [(clips, None) for clips, _ in embedded]
            if self.frame is self.clip:
                return list(embedded)
            if self.frame_codec is not self.codec:
                features = [self.frame_codec(samples) for samples in sounds]
            with record_function("transformer"):
                of_frames = self.frame(features)
            return [(clips, frames) for (clips, _), (_, frames) in zip(embedded, of_frames, strict=True)]
