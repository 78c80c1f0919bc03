"""Made vectors to search: files of a minute with events over a background, questions, and levels of loudness.

``MadeVectors`` draws everything from a seed, file by file, so any file can be made again by itself. Each file has a
background direction at half weight. Over it sound events of 0.2 to 4 s, with pauses of 0.4 to 8 s between them. An
event is one of 2,000 directions at a weight of 0.6 to 1.4. Every frame has noise of length 0.25, which is
0.25 / sqrt(96) in each of the 96 dimensions. An orthonormal basis turns these 96 numbers into 1,024, which leaves all
dot products as they are. Vectors are rounded to float16, as an index stores them.

A question is the direction of an event at a cosine of 0.3, 0.5 or 0.8, and for the rest an offset that all questions
have in common: texts and sounds do not share a mean.

``ModelVectors`` has real vectors instead: those of the bundled model. It encodes scenes of synthetic sounds once, and
repeats them with noise until there are enough files. Its questions are captions.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Protocol

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Halves = npt.NDArray[np.float16]

FILE_FRAMES, CLIP_FRAMES = 1_500, 250
CLIPS_PER_FILE = FILE_FRAMES // CLIP_FRAMES
FRAMES_PER_S = 25

DIMENSION, LATENT = 1_024, 96
N_DIRECTIONS = 2_000
BACKGROUND, NOISE = 0.5, 0.25
WEIGHTS, EVENT_S, PAUSE_S = (0.6, 1.4), (0.2, 4.0), (0.4, 8.0)
COSINES = (0.3, 0.5, 0.8)
EVENTS_DRAWN = 40
"""In each file: far more than a minute has room for, ten on average."""

_BASIS, _DIRECTIONS, _FILE, _QUESTIONS, _CLIPS = 1, 2, 3, 4, 5  # what a seed is for
UNHEARD = 1 << 40
"""From this number on, files are in no index: their clips are the sounds that ``similar`` asks for."""


class Vectors(Protocol):
    """A source of files and questions."""

    @property
    def dimension(self) -> int: ...

    @property
    def cosines(self) -> tuple[float, ...]:
        """The cosines of ``texts`` to the direction of an event, in turn; empty where there is no such direction."""
        ...

    def frames(self, number: int) -> Halves:
        """The frames of a file, (FILE_FRAMES, D)."""
        ...

    def clips(self, first: int, stop: int) -> Halves:
        """The clips of files ``first`` .. ``stop - 1``, (files * CLIPS_PER_FILE, D), without making their frames."""
        ...

    def texts(self, n: int) -> Floats:
        """Questions for ``query`` and ``locate``, (n, D)."""
        ...

    def sounds(self, n: int) -> Floats:
        """Questions for ``similar``, (n, D): clips of files that are in no index, as directions."""
        ...


def to_clips(frames: npt.NDArray[Any]) -> Floats:
    """The mean of the frames of each clip, (CLIPS_PER_FILE, D)."""
    clips: Floats = frames.astype(np.float32).reshape(CLIPS_PER_FILE, CLIP_FRAMES, -1).mean(axis=1)
    return clips


def to_unit(vectors: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Vectors (n, D) as directions."""
    directions: npt.NDArray[Any] = vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
    return directions


@dataclass(frozen=True)
class MadeVectors:
    """Vectors drawn from a seed; the module describes them."""

    seed: int = 0
    dimension: int = DIMENSION
    latent: int = LATENT
    cosines: ClassVar[tuple[float, ...]] = COSINES

    @cached_property
    def basis(self) -> Floats:
        """(latent, dimension), orthonormal rows."""
        drawn = np.random.default_rng([self.seed, _BASIS]).normal(size=(self.dimension, self.latent))
        return np.ascontiguousarray(np.linalg.qr(drawn)[0].T, np.float32)

    @cached_property
    def directions(self) -> Floats:
        """(N_DIRECTIONS, latent)."""
        drawn = np.random.default_rng([self.seed, _DIRECTIONS]).normal(size=(N_DIRECTIONS, self.latent))
        return to_unit(drawn).astype(np.float32)

    def frames(self, number: int) -> Halves:
        rng = np.random.default_rng([self.seed, _FILE, number])
        background, events = self._draw(rng)
        latents = np.tile(background, (FILE_FRAMES, 1))
        for start, stop, weight, which in zip(*events, strict=True):
            latents[start:stop] += weight * self.directions[which]
        latents += NOISE / np.sqrt(self.latent) * rng.standard_normal(latents.shape, np.float32)
        return (latents @ self.basis).astype(np.float16)

    def clips(self, first: int, stop: int) -> Halves:
        """Drawn by themselves: the same backgrounds and events, and noise as that of a mean of frames."""
        return (np.concatenate([self._clip_latents(n) for n in range(first, stop)]) @ self.basis).astype(np.float16)

    def texts(self, n: int) -> Floats:
        rng = np.random.default_rng([self.seed, _QUESTIONS])
        offset = to_unit(rng.normal(size=self.latent))
        events = self.directions[rng.permutation(np.arange(max(n, N_DIRECTIONS)) % N_DIRECTIONS)[:n]]
        across = to_unit(offset - (events @ offset)[:, None] * events)
        cosine = np.resize(self.cosines, n)[:, None]
        latents = cosine * events + np.sqrt(1 - cosine**2) * across
        questions: Floats = latents.astype(np.float32) @ self.basis
        return questions

    def sounds(self, n: int) -> Floats:
        latents = np.stack([self._clip_latents(UNHEARD + number)[number % CLIPS_PER_FILE] for number in range(n)])
        questions: Floats = to_unit(latents) @ self.basis
        return questions

    def _draw(self, rng: np.random.Generator) -> tuple[Floats, tuple[npt.NDArray[Any], ...]]:
        """The background of a file, and first frame, stop, weight and direction of its events."""
        background = BACKGROUND * to_unit(rng.normal(size=self.latent)).astype(np.float32)
        pauses, lengths = (
            np.maximum(1, (FRAMES_PER_S * rng.uniform(*range_s, EVENTS_DRAWN)).astype(int))
            for range_s in (PAUSE_S, EVENT_S)
        )
        stops = np.cumsum(pauses + lengths)
        starts = stops - lengths
        weights = rng.uniform(*WEIGHTS, EVENTS_DRAWN).astype(np.float32)
        which = rng.integers(N_DIRECTIONS, size=EVENTS_DRAWN)
        is_in = starts < FILE_FRAMES
        events = (starts, np.minimum(stops, FILE_FRAMES), weights, which)
        return background, tuple(values[is_in] for values in events)

    def _clip_latents(self, number: int) -> Any:
        background, (starts, stops, weights, which) = self._draw(np.random.default_rng([self.seed, _FILE, number]))
        first = CLIP_FRAMES * np.arange(CLIPS_PER_FILE)[:, None]
        shared = np.minimum(stops, first + CLIP_FRAMES) - np.maximum(starts, first)
        parts = np.maximum(shared, 0) / CLIP_FRAMES * weights
        noise = np.random.default_rng([self.seed, _CLIPS, number]).standard_normal(
            (CLIPS_PER_FILE, self.latent), np.float32
        )
        latents = background + parts.astype(np.float32) @ self.directions[which]
        latents += NOISE / np.sqrt(self.latent * CLIP_FRAMES) * noise
        return latents
