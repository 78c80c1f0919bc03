"""How much the vector indexes find of what an exact search finds, with vectors of the bundled model: a number."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from jobs.bench import model_vectors
from jobs.bench.asking import MODES, Job, ask, to_job
from jobs.bench.model_vectors import ModelVectors
from jobs.bench.synthetic_index import Built, Corpus, build
from jobs.bench.truth import measure_levels, recall
from pipeline.config import RunConfig
from pipeline.index import vector_index
from pipeline.index.handle import open_index
from pipeline.index.vector_index import read_index
from pipeline.search import audit_index
from pipeline.search.tune import TOLERANCE

K, N_QUESTIONS = 20, 40
WANTED = RunConfig().recall
LEAST = {"locate": 0.98, "query": 0.98, "similar": 0.96}
"""Sounds from elsewhere can be harder than those that the audit asks."""


@pytest.fixture(scope="module")
def vectors() -> Iterator[ModelVectors]:
    """Vectors of few scenes, whose indexes are large enough for vector indexes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(model_vectors, "N_SCENES", 12)
        patch.setattr(vector_index, "VECTORS_TO_INDEX", 1_500)
        patch.setattr(audit_index, "N_QUESTIONS", 64)
        yield ModelVectors()


@pytest.fixture(scope="module")
def with_frames(vectors: ModelVectors, tmp_path_factory: pytest.TempPathFactory) -> Built:
    return build(tmp_path_factory.mktemp("frames"), Corpus(60, True, vectors.dimension, "model", 0), vectors)


@pytest.fixture(scope="module")
def with_clips(vectors: ModelVectors, tmp_path_factory: pytest.TempPathFactory) -> Built:
    return build(tmp_path_factory.mktemp("clips"), Corpus(1_000, False, vectors.dimension, "model", 0), vectors)


def measure(built: Built, question: str, folder: Path, vectors: ModelVectors) -> float:
    """The mean recall of a command, by the exact answers in the whole index."""
    questions = (vectors.sounds if question == "similar" else vectors.texts)(N_QUESTIONS)
    levels = measure_levels(built.index, questions) if question == "locate" else []
    values: list[list[float]] = [[each.on, each.off, each.gap_frames, each.min_frames] for each in levels]
    np.save(folder / "questions.npy", questions)
    exact, found = (
        ask(to_job(Job(built.index, question, mode, None, K, str(folder / "questions.npy"), values, len(questions))))
        for mode in MODES
    )
    shares = [recall(all_of, few, K) for all_of, few in zip(exact["found"], found["found"], strict=True)]
    assert np.mean([len(all_of) for all_of in exact["found"]]) > 0.7 * K
    return float(np.mean([share for share in shares if share is not None]))


def test_index_finds_what_a_scan_finds_and_the_audit_says_how_much(
    with_frames: Built, with_clips: Built, tmp_path: Path, vectors: ModelVectors
) -> None:
    for built, table, questions in ((with_frames, "pools", ["locate"]), (with_clips, "clips", ["query", "similar"])):
        live = open_index(built.index).live
        index = read_index(live.open(table))
        assert index is not None
        assert index.n_indexed > 2_000
        assert live.tuning is not None
        assert list(live.tuning.measured) == questions
        is_short = False
        for question, measured in live.tuning.measured.items():
            share = measure(built, question, tmp_path, vectors)
            assert share >= LEAST[question], question
            assert measured.recall is not None
            # What chose the settings did not measure them, so a measurement may lie somewhat below what was wanted.
            assert measured.recall >= 0.96
            assert abs(measured.recall - share) <= 0.04, question
            is_short |= measured.recall < WANTED or measured.low < WANTED - TOLERANCE
        assert bool(built.problems) == is_short
