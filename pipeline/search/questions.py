"""The bank of questions that measures the recall of an index, and how much it asks: everyday descriptions of sounds."""

from importlib import resources

import numpy as np
import numpy.typing as npt

MIN_DIMENSIONS = 16.0
"""With fewer effective dimensions, questions are so much alike that they say little about other ones."""


def read_questions() -> list[str]:
    """The questions, written for this project, in the order of the file."""
    text = resources.files(__package__).joinpath("questions.txt").read_text(encoding="utf-8")
    return text.splitlines()


def count_dimensions(vectors: npt.NDArray[np.floating]) -> float:
    """The effective dimensions of ``vectors`` (n, D): the participation ratio of their covariance's eigenvalues.

    That is (sum of the eigenvalues)^2 / (sum of their squares): D for a sphere, 1 for a line, 0 for equal vectors.
    n vectors have at most n - 1.
    """
    centred = vectors.astype(np.float64) - vectors.mean(axis=0, dtype=np.float64)
    # The eigenvalues of the Gram matrix are those of the covariance, and its squared entries sum to their squares.
    gram = centred @ centred.T
    squares = float((gram**2).sum())
    total = float(np.trace(gram))
    return total**2 / squares if squares > 0 else 0.0


def explain_spread(n_dimensions: float) -> str | None:
    """Why these questions prove little, for a person; None if they are different enough."""
    if n_dimensions >= MIN_DIMENSIONS:
        return None
    return (
        f"may differ: the questions that it was measured with are much alike to the text model ({n_dimensions:.1f}"
        f" effective dimensions, fewer than {MIN_DIMENSIONS:g})"
    )
