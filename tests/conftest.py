"""In several processes (``pytest -n 2 --dist loadgroup``), a file stays in one, and so do all tests with Ray."""

import pytest


@pytest.hookimpl(tryfirst=True)  # before the plugin reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        group = "ray" if "integration" in item.path.parts else item.path.name
        item.add_marker(pytest.mark.xdist_group(group))
