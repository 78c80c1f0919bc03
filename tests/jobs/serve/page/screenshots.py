"""Pictures of the page in all its states, to look at: at 1,280 and 390 pixels dark and light, and at 800 light.

python -m tests.jobs.serve.page.screenshots OUT            # all
python -m tests.jobs.serve.page.screenshots OUT marks many # those whose names contain a word
"""

import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from PIL import Image

import pipeline
from jobs.bench.browser import open_browser
from pipeline.config import Config
from tests.helpers import pages

if TYPE_CHECKING:
    from playwright.sync_api import Page

BELL = "a bell ringing"
VIEWS = (
    *((1280, 800, "light"), (1280, 800, "dark")),
    *((800, 600, "light"), (390, 800, "light"), (390, 800, "dark")),
)
"""Widths and heights in pixels, and themes."""

Prepare = Callable[["Page"], None]


def ready(selector: str) -> Prepare:
    def wait(page: "Page") -> None:
        page.wait_for_selector(selector)

    return wait


def many(page: "Page") -> None:
    pages.repeat_hits(page)
    page.select_option("#k", "1000")
    page.locator(".card[data-rank='900']").scroll_into_view_if_needed()
    page.wait_for_selector(".card[data-rank='900'] .spectrogram img")


def marked(page: "Page") -> None:
    page.wait_for_selector(".card .spectrogram img")
    for rank, verdict in enumerate(("right", "wrong", "unsure"), 1):
        page.click(f".card[data-rank='{rank}'] .verdict.is-{verdict}")
        page.wait_for_selector(f".card[data-rank='{rank}'] .badge.is-{verdict}")
    page.keyboard.press("Home")


def readme(page: "Page") -> None:
    """For the README: two marks, without the words about them and without the temporary folder."""
    page.fill("#who", "Ana")
    for rank, verdict in enumerate(("right", "unsure"), 1):
        page.wait_for_selector(f".card[data-rank='{rank}'] .spectrogram img")
        page.click(f".card[data-rank='{rank}'] .verdict.is-{verdict}")
        page.wait_for_selector(f".card[data-rank='{rank}'] .badge.is-{verdict}")
    page.wait_for_selector("#status.is-shown", state="detached")
    page.evaluate("document.querySelectorAll('.folder').forEach((folder) => (folder.hidden = true))")


def region(page: "Page") -> None:
    pages.draw_region(page, 1, 0.2, 0.6)


def adder(page: "Page") -> None:
    page.wait_for_selector(".card .spectrogram img")
    page.click(".adder summary")
    page.select_option("#filter-column", "recordist")


def exports(page: "Page") -> None:
    page.wait_for_selector(".card .spectrogram img")
    page.click(".menu summary")


def marks_exports(page: "Page") -> None:
    page.wait_for_selector("#marks-rows tr, #no-marks:not(:empty)")
    page.click("#marks-exports summary")


def keys(page: "Page") -> None:
    page.wait_for_selector("#summary:not(:empty)")
    page.keyboard.press("?")


def newer(page: "Page") -> None:
    page.wait_for_selector(".card .spectrogram img")
    page.wait_for_selector("#newer:not([hidden])")
    page.wait_for_selector("#writing:not([hidden])")


def offline(page: "Page") -> None:
    page.wait_for_selector(".card .spectrogram img")
    page.route("**/api/**", lambda route: route.abort())
    page.fill("#q", "something else")
    page.press("#q", "Enter")
    page.wait_for_selector("#offline:not([hidden])")


def list_states(config: Config) -> dict[str, tuple[dict[str, Any], Prepare]]:
    """Name, state in the address, and what to do before the picture is taken."""
    day = str(Path(config.sources[0]) / "a day.flac")
    broken = str(Path(config.sources[0]) / "broken.wav")
    texts = [BELL, "birds chirping", "an ambulance siren", "someone drumming", "a deep engine rumble"]
    lanes = ready("#track .threshold:not([hidden])")
    card = ready(".card .spectrogram img")
    return {
        "start": ({}, ready("#summary:not(:empty)")),
        "moments": ({"q": BELL}, card),
        "clips": ({"q": "birds chirping", "mode": "clips", "hit": 2}, card),
        "one-hit": ({"q": BELL, "where": "take = 1", "k": 1}, card),
        "no-hits": ({"q": BELL, "t": 0.99, "where": "take = 99"}, ready(".empty")),
        "filters": ({"q": BELL, "where": ["recordist = 'Bo O''Neill'", "day >= date '2024-05-01'"]}, ready(".card")),
        "adder": ({"q": BELL}, adder),
        "exports": ({"q": BELL}, exports),
        "similar": ({"like": day, "like_from": 3, "like_to": 4.5}, card),
        "threshold": ({"q": BELL, "t": 0.9}, card),
        "region": ({"q": BELL, "context": 8, "high": 12}, region),
        "marked": ({"q": BELL}, marked),
        "many": ({"q": BELL}, many),
        "marks": ({"view": "marks"}, ready("#marks-rows tr")),
        "marks-exports": ({"view": "marks"}, marks_exports),
        "file": ({"view": "file", "uri": day, "lane": texts}, lanes),
        "file-zoomed": ({"view": "file", "uri": day, "lane": texts[:2], "from": 5, "to": 18}, lanes),
        "file-broken": ({"view": "file", "uri": broken, "lane": [BELL]}, ready("#file-facts:not(:empty)")),
        "wrong-filter": ({"q": BELL, "where": "nothing = 1"}, ready(".empty")),
        "keys": ({}, keys),
        "offline": ({"q": BELL}, offline),
    }


@contextmanager
def make_index(names: list[str], *, is_gone: bool = False) -> Iterator[tuple[Config, str]]:
    """A served index of some sounds; their files are gone, if asked for."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()), "earshot-demo")
        config = pages.make_corpus(folder, names)
        pages.index(config)
        if is_gone:
            for name in names:
                (Path(config.sources[0]) / name).unlink()
        yield config, stack.enter_context(pages.serve(config.into)).address


@contextmanager
def being_written(config: Config) -> Iterator[None]:
    """A run that has published the first of two new files, and holds before it encodes the second."""
    go_on, holds = threading.Event(), threading.Event()

    def before(number: int) -> None:
        if number == 1:
            holds.set()
            go_on.wait()

    for seed in (70, 71):
        pages.write_scene(Path(config.sources[0]) / f"new {seed}.wav", ["bell"], 6.0, seed)
    each_alone = {"store": {"checkpoint_rows": 1}, "run": {"batch_s": 1.0}}
    with ThreadPoolExecutor(1) as thread:
        run = thread.submit(pages.index, Config.model_validate(config.model_dump() | each_alone), before)
        try:
            while not holds.wait(0.2):
                assert not run.done(), run.exception()
            yield
        finally:
            go_on.set()
        run.result()


def main(out: str, *words: str) -> None:
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    with open_browser() as browser:

        def take(address: str, name: str, state: dict[str, Any], prepare: Prepare) -> None:
            if words and not any(word in name for word in words):
                return
            for width, height, scheme in VIEWS:
                viewport = {"width": width, "height": height}
                context = browser.new_context(viewport=viewport, color_scheme=scheme)  # type: ignore[arg-type]
                page = context.new_page()
                page.set_default_timeout(120_000)
                page.goto(f"{address}#{urlencode(state, doseq=True)}")
                prepare(page)
                page.wait_for_load_state("networkidle")
                page.screenshot(path=folder / f"{name}-{width}-{scheme}.png")
                context.close()

        with make_index(list(pages.SCENES)) as (config, address):
            assert pipeline.open(config.into).locate(BELL, k=1)
            for name, (state, prepare) in list_states(config).items():
                take(address, name, state, prepare)
        with make_index(["bells/tower.wav", "a day.flac"]) as (config, address), being_written(config):
            take(address, "newer", {"q": BELL}, newer)
        with make_index([]) as (_, address):
            take(address, "empty", {}, ready("#summary:not(:empty)"))
        with make_index(["bells/tower.wav"], is_gone=True) as (config, address):
            take(address, "gone", {"q": BELL}, ready(".card .note:not(:empty)"))
            uri = str(Path(config.sources[0]) / "bells/tower.wav")
            take(address, "gone-file", {"view": "file", "uri": uri, "lane": [BELL]}, ready("#track .note:not(:empty)"))
        with make_index(["bells/tower.wav", "bells/church, late.flac", "a day.flac"]) as (_, address):
            take(address, "readme", {"q": BELL, "context": 4}, readme)
    for path in folder.glob("readme-1280-light.png"):
        Image.open(path).convert("RGB").save(folder / "page.webp", quality=80, method=6)


if __name__ == "__main__":
    main(*sys.argv[1:])
