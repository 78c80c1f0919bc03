"""Indexes of made vectors, large enough for the vector indexes of a run: see ``jobs/bench/synthetic.py``."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jobs.bench.synthetic import FILE_FRAMES, Floats, Halves, MadeVectors, to_unit
from jobs.bench.synthetic_index import Corpus, build, uri
from pipeline.index.handle import open_index
from pipeline.index.tuning import has_vector_index
from pipeline.search import audit_index
from pipeline.search.events import Levels

N_RAINY, N_SOUNDS = 25, 170
"""Files in all: 255,000 frames, 10,200 pools."""

DIMENSION = 128


@dataclass(frozen=True)
class Rainy(MadeVectors):
    """Made vectors. In the first files, it rains all the time, which is unlike what any text asks for. For a question
    about rain, their pools come first."""

    dimension: int = DIMENSION

    @cached_property
    def rain(self) -> Floats:
        """(D,), of length 1."""
        return -to_unit(self.texts(100).mean(axis=0))

    def frames(self, number: int) -> Halves:
        if number >= N_RAINY:
            return super().frames(number)
        noise = np.random.default_rng([self.seed, number]).normal(0, 0.02, (FILE_FRAMES, self.dimension))
        return (2 * self.rain + noise).astype(np.float16)


@dataclass(frozen=True)
class MadeIndex:
    """An index of files of a minute; the column ``lot`` numbers them in random order."""

    path: Path
    vectors: Rainy
    n_files: int

    @cached_property
    def frames(self) -> dict[str, Halves]:
        """The frames of each file."""
        return {uri(number): self.vectors.frames(number) for number in range(self.n_files)}


def build_made(folder: Path, corpus: Corpus, vectors: Rainy) -> MadeIndex:
    """Write an index as a run does, and measure its recall with three questions: tests set what they search with."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(audit_index, "N_QUESTIONS", 3)
        built = build(folder, corpus, vectors)
    assert has_vector_index(open_index(built.index).live, "pools" if corpus.with_frames else "clips")
    return MadeIndex(Path(built.index), vectors, corpus.n_files)


@pytest.fixture(scope="session")
def sounds(tmp_path_factory: pytest.TempPathFactory) -> MadeIndex:
    """Frames, and a vector index of their pools."""
    vectors = Rainy()
    return build_made(tmp_path_factory.mktemp("sounds"), Corpus(N_SOUNDS, True, DIMENSION, "made", 0), vectors)


@pytest.fixture(scope="session")
def made_clips(tmp_path_factory: pytest.TempPathFactory) -> MadeIndex:
    """12,000 clips in 2,000 files without frames, and a vector index of 55 partitions."""
    vectors = Rainy(0, 64, 64)
    return build_made(tmp_path_factory.mktemp("clips"), Corpus(2_000, False, 64, "made", 0), vectors)


def find_levels(scores: dict[str, Any], share: float = 0.005) -> Levels:
    """An event begins among the loudest ``share`` of the frames."""
    on = float(np.quantile(np.concatenate(list(scores.values())), 1 - share))
    return Levels(on, on - 0.1, gap_frames=5, min_frames=0)


class MadeTexts:
    """A text model that takes a text as the number of a made question."""

    def __init__(self, vectors: MadeVectors) -> None:
        self._questions = vectors.texts(100)

    def embed(self, texts: Sequence[str]) -> Floats:
        return self._questions[[int(text) for text in texts]]
