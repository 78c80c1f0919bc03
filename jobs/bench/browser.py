"""The page of ``earshot serve`` in a headless Chromium: how soon a person sees and hears something.

Times are the browser's own, from a key to what follows, so no remote control is in them.
"""

import os
import shutil
import statistics
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from jobs.bench.figures import Figure

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

FLAGS = [
    *("--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
    *("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"),  # beeps instead of a microphone
]

TIMEOUT_MS = 120_000

SHOWN = """() => new Promise((tell) => {
    const look = () => document.querySelector("#index-counts:not(:empty)") ? tell(performance.now()) : setTimeout(look);
    look();
})"""
"""Milliseconds from the navigation to the page that says what the index holds."""

LISTEN = """([key, kind]) => {
    const after = (key, watch) => new Promise((tell, fail) => {
        setTimeout(() => fail(new Error(`nothing follows the key ${key}`)), 60_000);
        const press = (event) => {
            if (event.key !== key) return;
            removeEventListener("keydown", press, true);
            const began = performance.now();
            watch(() => requestAnimationFrame(() => tell(performance.now() - began)));
        };
        addEventListener("keydown", press, true);
    });
    const change = (told) => new MutationObserver((changes, self) => { self.disconnect(); told(); })
        .observe(document.querySelector("#hits"), { childList: true });
    const sound = (told) => document.querySelector("#player").addEventListener("playing", told, { once: true });
    window.followed = after(key, { hits: change, sound }[kind]);
}"""
"""Lets ``followed`` be the milliseconds from the next time that a key is pressed to other hits, or to a sound."""


def find_chromium() -> str | None:
    """The browser: ``EARSHOT_CHROMIUM``, or Debian's chromium-headless-shell on the path."""
    return os.environ.get("EARSHOT_CHROMIUM") or shutil.which("chromium-headless-shell")


@contextmanager
def open_browser() -> "Iterator[Browser]":
    """A headless Chromium of this machine."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=FLAGS)
        yield browser
        browser.close()


def measure_browser(address: str, texts: Iterator[str], n_rounds: int = 20) -> Iterator[Figure]:
    """The first page, answers after Enter, and a sound after space; nothing where there is no browser.

    Sounds are those of clips: of every text there are some.

    Args:
        texts: that were not asked before.
    """
    if find_chromium() is None:
        return
    with open_browser() as browser:
        page = browser.new_page()
        page.set_default_timeout(TIMEOUT_MS)
        page.goto(address)
        yield Figure("browser", "first page, with the counts of the index", page.evaluate(SHOWN), "ms", 500)
        page.goto(f"{address}#" + urlencode({"q": next(texts), "mode": "clips"}))
        page.wait_for_selector(".card .spectrogram img")
        clips, heard = zip(*((_answer(page, next(texts)), _play(page)) for _ in range(n_rounds)), strict=True)
        page.click("label:has(#moments)")
        page.wait_for_selector("#summary:has-text('moment')")
        moments = [_answer(page, next(texts)) for _ in range(n_rounds)]
        for what, times, limit in (
            ("clips after Enter", clips, 150),
            ("moments after Enter", moments, 150),
            ("a sound after space", heard, 200),
        ):
            detail = f"slowest {max(times):.0f} ms"
            yield Figure("browser", f"{what}, median of {n_rounds}", statistics.median(times), "ms", limit, detail)


def _answer(page: "Page", text: str) -> float:
    """The milliseconds from Enter to an answer."""
    page.evaluate(LISTEN, ["Enter", "hits"])
    page.fill("#q", text)
    page.press("#q", "Enter")
    return float(page.evaluate("followed"))


def _play(page: "Page") -> float:
    """The milliseconds from space to a sound."""
    page.focus("#main")
    page.evaluate(LISTEN, [" ", "sound"])
    page.keyboard.press(" ")
    heard_ms = float(page.evaluate("followed"))
    page.keyboard.press(" ")
    return heard_ms
