"""Small checkpoints that several test files read, and one to damage."""

import shutil
from pathlib import Path

import pytest

from tests.helpers.checkpoints import make_pe_audio


@pytest.fixture(scope="package")
def one(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_pe_audio(tmp_path_factory.mktemp("one"), seed=0)


@pytest.fixture(scope="package")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another checkpoint, of another dimension."""
    return make_pe_audio(tmp_path_factory.mktemp("two"), seed=1, text={"hidden_size": 24})


@pytest.fixture
def copy(one: Path, tmp_path: Path) -> Path:
    """A copy of ``one`` to damage."""
    return Path(shutil.copytree(one, tmp_path / "copy"))
