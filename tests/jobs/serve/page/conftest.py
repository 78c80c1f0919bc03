"""The page of a real server, in a real browser. A test fails for any error or policy violation in the page."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from jobs.bench.browser import find_chromium, open_browser
from pipeline.config import Config
from tests.helpers import pages

if TYPE_CHECKING:
    from playwright.sync_api import Browser

Open = Callable[..., pages.Watched]


@pytest.fixture(scope="package")
def config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    """An index whose files and rows no test changes; marks are added to it."""
    made = pages.make_corpus(tmp_path_factory.mktemp("page"))
    pages.index(made)
    return made


@pytest.fixture(scope="package")
def browser() -> "Iterator[Browser]":
    if find_chromium() is None:
        pytest.skip("no chromium-headless-shell on the path, and EARSHOT_CHROMIUM names no browser")
    with open_browser() as opened:
        yield opened


@pytest.fixture(scope="package")
def address(browser: "Browser", config: Config) -> Iterator[str]:
    with pages.serve(config.into) as server:
        yield server.address


@pytest.fixture
def show(browser: "Browser", address: str, tmp_path: Path) -> Iterator[Open]:
    """Open the page, with a part behind the # of its address; ``width`` 390 is a phone."""
    opened: list[pages.Watched] = []

    def show(state: str = "", width: int = 1280, at: str = address, **options: object) -> pages.Watched:
        context = browser.new_context(viewport={"width": width, "height": 800}, **options)  # type: ignore[arg-type]
        watched = pages.Watched.watch(context.new_page())
        watched.page.set_default_timeout(120_000)  # however slow the machine is
        opened.append(watched)
        watched.page.goto(f"{at}#{state}")
        watched.page.wait_for_selector("#index-counts:not(:empty)")
        return watched

    yield show
    for watched in opened:
        watched.page.context.close()
    assert [problem for watched in opened for problem in watched.problems] == []
