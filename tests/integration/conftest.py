"""One Ray for all integration tests: two cores on this machine, started here and stopped here."""

import warnings
from collections.abc import Iterator

import pytest


@pytest.fixture(scope="session")
def ray_session() -> Iterator[None]:
    from pipeline.flow import start_ray

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        start_ray()
        yield
        import ray

        ray.shutdown()
