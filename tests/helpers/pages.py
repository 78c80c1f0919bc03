"""A corpus of sounds the bundled model knows, a real server of its index, and a browser without a window."""

import csv
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import soundfile

from jobs.tiny.synth import Event, make_scene
from pipeline.config import Config, make_config
from pipeline.encoder.encoder import load_encoder
from pipeline.run.driver import index_corpus
from tests.helpers.running import Served, serving
from tests.helpers.runs import in_place

if TYPE_CHECKING:
    from playwright.sync_api import Page

LONG_NAME = "2024-05-01 dawn chorus at the lower meadow, microphone three, " + "very " * 24 + "long.wav"
MARKUP_NAME = "<img src=x onerror=alert(1)> & 'quotes' \"too\".wav"
SCENES: dict[str, tuple[Sequence[str], float, dict[str, str]]] = {
    "bells/tower.wav": (("bell", "siren"), 12.0, {"recordist": "Ana", "day": "2024-05-01", "take": "1"}),
    "bells/church, late.flac": (("bell", "drum"), 11.0, {"recordist": "Bo O'Neill", "day": "2024-05-02", "take": "2"}),
    "street/ambulance.mp3": (("siren", "hum"), 14.0, {"recordist": "Ana", "day": "2024-06-11", "take": "3"}),
    "birds/عصافير الصباح في السوق.flac": (("chirps", "bell"), 10.0, {"recordist": "ليلى", "take": "4"}),
    "birds/鳥の声・第三回録音.wav": (
        ("chirps", "clicks"),
        13.0,
        {"recordist": "花子", "day": "2023-01-09", "take": "5"},
    ),
    f"birds/{LONG_NAME}": (("chirps", "rumble"), 9.0, {"recordist": "A name that is long, too", "take": "6"}),
    f"odd/{MARKUP_NAME}": (("bell", "high_tone"), 12.0, {"recordist": "<b>bold</b>", "take": "7"}),
    "a day.flac": (
        ("bell", "chirps", "siren", "drum", "bell", "rumble"),
        60.0,
        {"recordist": "Bo O'Neill", "take": "8"},
    ),
}
"""Files, with what sounds in them, their seconds, and their metadata."""


def write_scene(path: Path, labels: Sequence[str], duration_s: float, seed: int) -> None:
    """Write a recording in which each of ``labels`` sounds in turn."""
    slot_s = duration_s / len(labels)
    events = [
        Event(label, slot_s * k + 0.3 * slot_s, slot_s * k + 0.3 * slot_s + 1.0) for k, label in enumerate(labels)
    ]
    waveform, _ = make_scene(np.random.default_rng(seed), duration_s, events, snr_db=14.0, held_out=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, waveform, 48_000)


def make_corpus(folder: Path, names: Sequence[str] = tuple(SCENES)) -> Config:
    """Sounds with metadata below ``folder``, not indexed yet, and a file that is none."""
    sounds = folder / "sounds"
    sounds.mkdir(parents=True)
    with (folder / "catalogue.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, ["uri", "recordist", "day", "take"])
        table.writeheader()
        for seed, name in enumerate(names):
            labels, duration_s, metadata = SCENES[name]
            write_scene(sounds / name, labels, duration_s, seed)
            table.writerow({"uri": str(sounds / name), **metadata})
    (sounds / "broken.wav").write_bytes(b"RIFF\x00\x00\x00\x00WAVEnothing here")
    corpus = {"metadata": str(folder / "catalogue.csv")}
    return make_config({"sources": [str(sounds)], "into": str(folder / "index"), "corpus": corpus})


def index(config: Config, before: Callable[[int], None] = lambda number: None) -> None:
    """Index in this process, with the bundled model; ``before`` is called with the number of each batch."""
    index_corpus(config, stages=in_place(load_encoder(config.encode, output="float16"), before))


def serve(index: str) -> AbstractContextManager[Served]:
    """A server of an index, with its pictures in a folder beside it."""
    return serving(index, Path(index).parent / "of the server")


def wait_here(page: "Page", holds: Callable[[], object]) -> None:
    """Return once ``holds()`` is true, while requests of the page come to their routes; fail after two minutes."""
    until = time.monotonic() + 120
    while not holds():
        assert time.monotonic() < until
        page.wait_for_timeout(20)


def repeat_hits(page: "Page", n_hits: int = 1_000) -> None:
    """Let `locate` answer with so many hits: those of the real answer, again and again."""

    def answer(route: Any) -> None:
        found = route.fetch().json()
        hits = found["results"][0]["hits"]
        repeated = [{**hits[rank % len(hits)], "rank": rank + 1} for rank in range(n_hits)]
        route.fulfill(json={**found, "results": [{**found["results"][0], "hits": repeated}]})

    page.route("**/api/locate?*", answer)


def draw_region(page: "Page", rank: int, first: float, last: float) -> None:
    """Draw a region in the picture of a hit, between two shares of its width."""
    picture = page.locator(f".card[data-rank='{rank}'] .spectrogram")
    picture.locator("img").wait_for()
    box = picture.bounding_box()
    assert box is not None
    y = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + first * box["width"], y)
    page.mouse.down()
    page.mouse.move(box["x"] + last * box["width"], y, steps=4)
    page.mouse.up()


@dataclass
class Watched:
    """A page and what went wrong in it: errors of scripts and of the console, violations of the security policy."""

    page: "Page"
    problems: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    @classmethod
    def watch(cls, page: "Page") -> "Watched":
        watched = cls(page)
        page.on("pageerror", lambda error: watched.problems.append(str(error)))
        page.on("console", watched._hear)
        page.on("request", lambda request: watched.requests.append(request.url))
        return watched

    def _hear(self, message: Any) -> None:
        if message.type in ("error", "warning"):
            self.problems.append(f"{message.text} {message.location.get('url', '')}")
