"""What tests of runs share."""

import pytest

from pipeline.index import tags


@pytest.fixture(autouse=True)
def few_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs keep three published versions, so that a reader that needs an older one fails."""
    monkeypatch.setattr(tags, "KEEP_VERSIONS", 3)
