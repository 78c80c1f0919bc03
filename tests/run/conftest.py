"""What tests of runs share."""

import pytest


@pytest.fixture(autouse=True)
def few_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs keep three published versions, so that a reader that needs an older one fails."""
    monkeypatch.setattr("pipeline.index.writer.KEEP_VERSIONS", 3)
