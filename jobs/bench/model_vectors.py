"""Vectors of the bundled model, repeated until there are enough: what ``--vectors model`` searches.

The model encodes 120 synthetic scenes of 10 s. Each file is six of them, drawn at random, with noise of a twentieth of
a frame's mean length, so that no two frames are equal. Questions are captions of the scenes' kinds of sound, embedded
by its text tower; for ``similar``, other scenes. The text tower knows few words, and its captions spread over few
dimensions: recall with them proves little about other texts.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from jobs.bench.synthetic import CLIP_FRAMES, CLIPS_PER_FILE, FRAMES_PER_S, Floats, Halves, to_unit
from jobs.tiny.captions import CAPTIONS
from jobs.tiny.synth import draw_scene
from pipeline.config import EncodeConfig
from pipeline.encoder.encoder import load_encoder
from pipeline.encoder.text_encoder import load_text_encoder

MODEL = "earshot-tiny"
N_SCENES, SCENES_AT_ONCE = 120, 16
NOISE_SHARE = 0.05
_SCENES, _SOUNDS, _FILE, _TEXTS = 11, 12, 13, 14  # what a seed is for


@dataclass(frozen=True)
class ModelVectors:
    """Vectors of the bundled model; the module describes them."""

    seed: int = 0
    cosines: ClassVar[tuple[float, ...]] = ()

    @property
    def dimension(self) -> int:
        return int(self._scenes[0].shape[1])

    @cached_property
    def _scenes(self) -> tuple[Floats, Floats]:
        """Clips (N_SCENES, D) and frames (N_SCENES, CLIP_FRAMES, D)."""
        return self._encode(_SCENES, N_SCENES)

    def frames(self, number: int) -> Halves:
        rng = np.random.default_rng([self.seed, _FILE, number])
        scenes = self._scenes[1]
        frames = scenes[rng.integers(len(scenes), size=CLIPS_PER_FILE)].reshape(-1, self.dimension)
        return _with_noise(frames, scenes, rng)

    def clips(self, first: int, stop: int) -> Halves:
        scenes = self._scenes[0]
        made = []
        for number in range(first, stop):
            rng = np.random.default_rng([self.seed, _FILE, number])
            made.append(_with_noise(scenes[rng.integers(len(scenes), size=CLIPS_PER_FILE)], scenes, rng))
        return np.concatenate(made)

    def texts(self, n: int) -> Floats:
        captions = [text for of in CAPTIONS.values() for text in (*of.train, *of.held_out)]
        order = np.random.default_rng([self.seed, _TEXTS]).permutation(len(captions))
        texts = [captions[k] for k in np.resize(order, n)]
        return np.asarray(load_text_encoder(MODEL, None).embed(texts), np.float32)

    def sounds(self, n: int) -> Floats:
        return to_unit(self._encode(_SOUNDS, n)[0]).astype(np.float32)

    def _encode(self, purpose: int, n: int) -> tuple[Floats, Floats]:
        encoder = load_encoder(EncodeConfig(clip_model=MODEL, device="cpu"))
        clips, frames = list[Any](), list[Any]()
        seconds = CLIP_FRAMES / FRAMES_PER_S
        for first in range(0, n, SCENES_AT_ONCE):
            some = range(first, min(n, first + SCENES_AT_ONCE))
            waves = [draw_scene(np.random.default_rng([self.seed, purpose, k]), seconds)[0] for k in some]
            some_clips, some_frames = encoder.encode(waves)
            clips.extend(some_clips)
            frames.extend(some_frames or [])
        return np.stack(clips).astype(np.float32), np.stack(frames).astype(np.float32)


def _with_noise(vectors: Floats, of: Floats, rng: np.random.Generator) -> Halves:
    length = NOISE_SHARE * np.linalg.norm(of, axis=-1).mean() / np.sqrt(vectors.shape[1])
    noisy: Floats = vectors + length * rng.standard_normal(vectors.shape, np.float32)
    return noisy.astype(np.float16)
