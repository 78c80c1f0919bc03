"""An index, a server of it that is not asked over the network, and its client."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from jobs.serve.service import Service, open_service
from pipeline.config import Config
from tests.helpers import served


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test writes into the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    """An index that no test changes."""
    made = served.make_corpus(tmp_path_factory.mktemp("served"))
    served.index(made)
    return made


@pytest.fixture(scope="module")
def service(config: Config) -> Iterator[Service]:
    opened = open_service(config.into)
    yield opened
    opened.workers.close()


@pytest.fixture(scope="module")
def client(service: Service) -> TestClient:
    return served.make_client(service)


@pytest.fixture
def own(tmp_path: Path) -> Config:
    """An index that a test may change or harm."""
    made = served.make_corpus(tmp_path)
    served.index(made)
    return made


@pytest.fixture
def own_client(own: Config, tmp_path: Path) -> Iterator[TestClient]:
    """A client of ``own``, whose pictures are kept in a folder of the test."""
    opened = open_service(own.into)
    yield served.make_client(opened, cache=tmp_path / "cache")
    opened.workers.close()


@pytest.fixture
def page(tmp_path: Path) -> Path:
    folder = tmp_path / "page"
    folder.mkdir()
    (folder / "index.html").write_text("<!doctype html><title>Earshot</title>")
    (folder / "main.js").write_text("export {};")
    (folder / "notes.txt").write_text("not served")
    (tmp_path / "secret.js").write_text("a secret")
    return folder
