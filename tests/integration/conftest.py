"""One Ray for all integration tests: two cores on this machine, started here and stopped here."""

import warnings
from collections.abc import Iterator

import pytest


@pytest.fixture(scope="session")
def ray_session() -> Iterator[None]:
    from pipeline.run.ray_start import start_ray

    with warnings.catch_warnings(), pytest.MonkeyPatch.context() as patch:
        warnings.simplefilter("ignore")
        patch.delenv("RAY_AUTH_MODE", raising=False)  # as for a user who has never set up Ray
        start_ray()
        yield
        import ray

        ray.shutdown()
