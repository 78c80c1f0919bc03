"""The sources of vectors for measurements of the search: drawn ones, or those of the bundled model."""

from enum import StrEnum

from jobs.bench.synthetic import DIMENSION, LATENT, MadeVectors, Vectors


class Source(StrEnum):
    """Where the vectors come from."""

    made = "made"
    model = "model"


def make_vectors(source: str, seed: int, dimension: int = DIMENSION) -> Vectors:
    """The vectors of a ``Source``. Those of the model have its own dimension."""
    if source == Source.model:
        from jobs.bench.model_vectors import ModelVectors

        return ModelVectors(seed)
    return MadeVectors(seed, dimension, min(LATENT, dimension))
