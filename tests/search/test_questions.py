"""The bank of questions: many, different, short; and its effective dimensions."""

import numpy as np
import pytest

from pipeline.encoder.text_encoder import load_text_encoder
from pipeline.search.questions import MIN_DIMENSIONS, count_dimensions, explain_spread, read_questions


def test_bank_has_many_different_short_questions() -> None:
    questions = read_questions()
    assert len(questions) >= 320
    assert len({question.lower() for question in questions}) == len(questions)
    assert all(3 <= len(question) <= 60 and question == question.strip() for question in questions)
    assert all(question.isascii() and question[0].islower() for question in questions)


@pytest.mark.parametrize("n_dimensions", [1, 2, 10])
def test_round_cloud_has_as_many_dimensions_as_it_spans(n_dimensions: int) -> None:
    rng = np.random.default_rng(0)
    basis = np.linalg.qr(rng.normal(size=(64, n_dimensions)))[0].T
    vectors = (rng.normal(size=(2_000, n_dimensions)) @ basis + 5.0).astype(np.float32)
    assert count_dimensions(vectors) == pytest.approx(n_dimensions, rel=0.03)


def test_strong_direction_hides_weak_ones() -> None:
    rng = np.random.default_rng(1)
    vectors = rng.normal(size=(1_000, 30)) * 0.1
    vectors[:, 0] *= 100
    assert 1.0 <= count_dimensions(vectors) < 1.1


@pytest.mark.parametrize("n", [1, 2, 50])
def test_equal_vectors_have_no_dimensions(n: int) -> None:
    assert count_dimensions(np.full((n, 8), 0.7, np.float32)) == 0.0


def test_bundled_model_is_said_to_have_no_spread() -> None:
    n_dimensions = count_dimensions(load_text_encoder("earshot-tiny").embed(read_questions()))
    assert 1.0 < n_dimensions < MIN_DIMENSIONS
    assert f"{n_dimensions:.1f} effective dimensions" in (explain_spread(n_dimensions) or "")
    assert explain_spread(40.0) is None
