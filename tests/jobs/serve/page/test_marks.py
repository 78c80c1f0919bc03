"""Marks by key, undo, and the marks of others."""

import io
import zipfile
from pathlib import Path
from typing import Any

import pytest
import soundfile

import pipeline
from pipeline.config import Config
from pipeline.marks.mark import name_user
from tests.helpers import pages
from tests.jobs.serve.page.conftest import Open

pytestmark = pytest.mark.slow

BELL = "a bell ringing"


def test_a_key_marks_the_current_hit_and_z_takes_it_back(show: Open, config: Config) -> None:
    page = show("q=birds+chirping").page
    page.wait_for_selector(".card[aria-current] .spectrogram img")
    event = pipeline.open(config.into).locate("birds chirping", k=1)[0]

    def verdicts() -> list[str]:
        marks = pipeline.open(config.into).marks()
        return [mark.verdict for mark in marks if mark.text == "birds chirping" and mark.uri == event.uri]

    page.keyboard.press("r")
    page.wait_for_selector(".card[data-rank='1'] .badge.is-right")
    [mark] = [mark for mark in pipeline.open(config.into).marks() if mark.text == "birds chirping"]
    assert (mark.uri, mark.verdict) == (event.uri, "right")
    assert mark.start_s == pytest.approx(event.start_s, abs=0.04)
    assert mark.end_s == pytest.approx(event.end_s, abs=0.04)
    assert mark.score == pytest.approx(event.score, abs=1e-4)
    page.keyboard.press("w")
    page.wait_for_selector(".card[data-rank='1'] .badge.is-wrong")
    assert verdicts() == ["wrong"]
    page.click("#to-marks")
    page.wait_for_selector("#marks-rows tr:has-text('birds chirping') .badge.is-wrong")
    page.go_back()
    page.wait_for_selector(".card[aria-current]")
    page.keyboard.press("z")
    page.wait_for_selector(".card[data-rank='1'] .badge.is-right")
    page.keyboard.press("z")
    page.wait_for_selector(".card[data-rank='1'] .badge", state="detached")
    assert verdicts() == []


class Held:
    """Requests of a page that make marks. They wait until they are let go."""

    def __init__(self, watched: pages.Watched) -> None:
        self._page, self._routes, self._n_passed = watched.page, list[Any](), 0
        self._page.route("**/api/marks?*", self._take)
        pages.wait_here(self._page, self._ask)  # the browser lets requests pass for a moment yet

    def _ask(self) -> bool:
        """Whether what the page asks comes here."""
        self._page.evaluate("fetch('/api/marks?limit=1').then((answer) => answer.json())")
        return self._n_passed > 0

    def _take(self, route: Any) -> None:
        if route.request.method == "POST":
            self._routes.append(route)
        else:
            self._n_passed += 1
            route.continue_()

    def let_go(self) -> str:
        """Let the first one go, once there is one; returns its verdict."""
        pages.wait_here(self._page, lambda: self._routes)
        route = self._routes.pop(0)
        route.continue_()
        return str(route.request.post_data_json["marks"][0]["verdict"])


def list_verdicts(config: Config, text: str) -> list[str]:
    return [mark.verdict for mark in pipeline.open(config.into).marks() if mark.text == text]


def test_two_quick_undos_take_back_two_marks(show: Open, config: Config) -> None:
    watched = show("q=someone+drumming")
    page = watched.page
    for rank in (1, 2):
        page.locator(f".card[data-rank='{rank}'] .verdict.is-right").click()
        page.wait_for_selector(f".card[data-rank='{rank}'] .badge.is-right")
    held = Held(watched)
    page.keyboard.press("z")
    page.keyboard.press("z")
    assert [held.let_go(), held.let_go()] == ["none", "none"]
    page.wait_for_selector(".card .badge", state="detached")
    assert list_verdicts(config, "someone drumming") == []


def test_an_undo_takes_back_the_mark_that_is_being_sent(show: Open, config: Config) -> None:
    watched = show("q=an+ambulance+siren")
    page = watched.page
    page.wait_for_selector(".card[aria-current] .spectrogram img")
    held = Held(watched)
    for key in ("r", "w", "z"):
        page.keyboard.press(key)
    assert [held.let_go() for _ in range(3)] == ["right", "wrong", "right"]
    page.wait_for_selector("#status:has-text('Marked right')")
    assert list_verdicts(config, "an ambulance siren") == ["right"]
    page.keyboard.press("z")
    assert held.let_go() == "none"
    page.wait_for_selector(".card .badge", state="detached")
    assert list_verdicts(config, "an ambulance siren") == []


def test_a_mark_that_fails_holds_up_no_other(show: Open, config: Config) -> None:
    watched = show("q=a+deep+engine+rumble")
    page = watched.page
    page.wait_for_selector(".card[aria-current] .spectrogram img")
    page.route("**/api/marks?*", lambda route: route.fulfill(status=503, json={"error": "no room"}))
    page.keyboard.press("r")
    page.wait_for_selector("#status:has-text('Not marked: no room')")
    page.unroute("**/api/marks?*")
    page.keyboard.press("w")
    page.wait_for_selector(".card[data-rank='1'] .badge.is-wrong")
    page.keyboard.press("z")
    page.wait_for_selector(".card .badge", state="detached")
    assert list_verdicts(config, "a deep engine rumble") == []
    watched.problems[:] = [line for line in watched.problems if "503" not in line]  # the browser's word on it


def test_marks_of_others_are_seen_on_coming_back_and_after_own_ones(show: Open, tmp_path: Path) -> None:
    config = pages.make_corpus(tmp_path, ["bells/tower.wav", "bells/church, late.flac"])
    pages.index(config)
    opened = pipeline.open(config.into)
    event = opened.locate(BELL, k=2)[0]

    def judge(verdict: str) -> None:
        opened.mark(event.uri, start_s=event.start_s, end_s=event.end_s, text=BELL, verdict=verdict)

    with pages.serve(config.into) as server:
        page = show(f"q={BELL}", at=server.address).page
        page.wait_for_selector(".card[data-rank='2'] .spectrogram img")
        assert page.locator(".badge").count() == 0
        judge("wrong")
        page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
        page.wait_for_selector(".card[data-rank='1'] .badge.is-wrong")
        judge("unsure")
        page.locator(".card[data-rank='2'] .verdict.is-right").click()
        page.wait_for_selector(".card[data-rank='2'] .badge.is-right")
        page.wait_for_selector(".card[data-rank='1'] .badge.is-unsure")
        page.close()


def test_undo_leaves_what_another_one_said_since(show: Open, tmp_path: Path) -> None:
    config = pages.make_corpus(tmp_path, ["bells/tower.wav"])
    pages.index(config)
    opened = pipeline.open(config.into)
    [event] = opened.locate(BELL, k=1)
    with pages.serve(config.into) as server:
        watched = show(f"q={BELL}", at=server.address)
        page = watched.page
        page.wait_for_selector(".card[aria-current] .spectrogram img")
        page.keyboard.press("r")
        page.wait_for_selector(".card .badge.is-right")
        [mine] = opened.marks()
        opened.mark(event.uri, start_s=mine.start_s, end_s=mine.end_s, text=BELL, verdict="wrong")
        page.keyboard.press("z")
        page.wait_for_selector(".card .badge.is-wrong")
        page.keyboard.press("z")
        page.wait_for_selector("#status:has-text('Nothing to undo')")
        assert list_verdicts(config, BELL) == ["wrong"]
        watched.problems[:] = [line for line in watched.problems if "409" not in line]  # the browser's word on it
        page.close()


def test_marks_of_a_former_content_are_not_those_of_the_new_one(show: Open, tmp_path: Path) -> None:
    config = pages.make_corpus(tmp_path, ["bells/tower.wav"])
    pages.index(config)
    opened = pipeline.open(config.into)
    [event] = opened.locate(BELL, k=1)
    opened.mark(event.uri, start_s=event.start_s, end_s=event.end_s, text=BELL, verdict="wrong")
    pages.write_scene(Path(config.sources[0]) / "bells/tower.wav", ["bell"], 6.0, seed=78)
    pages.index(config)
    with pages.serve(config.into) as server:
        page = show(f"q={BELL}", at=server.address).page
        page.wait_for_selector(".card[aria-current] .spectrogram img")
        page.keyboard.press("r")
        page.wait_for_selector(".card .badge.is-right")
        assert page.locator(".card .badge.is-wrong").count() == 0
        page.click("#to-marks")
        page.wait_for_selector("#marks-rows tr:has-text('content gone') button:disabled")
        assert page.locator("#marks-rows tr").count() == 2
        page.click("#marks-exports summary")
        with page.expect_download():
            page.click("#marks-exports a:text-is('Raven tables')")
        page.wait_for_selector("#status:has-text('1 label left out')")
        page.close()


@pytest.mark.parametrize("place", ["hits", "marks"])
def test_cuts_are_longer_by_the_padding(show: Open, tmp_path: Path, place: str) -> None:
    config = pages.make_corpus(tmp_path, ["bells/tower.wav"])
    pages.index(config)
    opened = pipeline.open(config.into)
    event = opened.locate(BELL, k=1)[0]
    opened.mark(event.uri, start_s=event.start_s, end_s=event.end_s, text=BELL, verdict="right")
    with pages.serve(config.into) as server:
        state, menu = {"hits": (f"q={BELL}", "#exports"), "marks": ("view=marks", "#marks-exports")}[place]
        page = show(state, at=server.address).page
        page.click(f"{menu} summary")
        for padding_s in (0, 0.5):
            page.fill(f"{menu} input", f"{padding_s:g}")
            with page.expect_download() as saved:
                page.click(f"{menu} a:text-is('Cut audio, flac')")
            with zipfile.ZipFile(saved.value.path()) as archive:
                first = min(name for name in archive.namelist() if name.endswith(".flac"))
                samples, rate_hz = soundfile.read(io.BytesIO(archive.read(first)))
            length_s = event.end_s - event.start_s + 2 * padding_s
            assert len(samples) / rate_hz == pytest.approx(length_s, abs=0.001)
        with page.expect_download() as saved:
            page.click(f"{menu} a:text-is('DCASE TSV')")
        assert BELL in saved.value.path().read_text(), "other formats have no padding"
        page.close()


def test_a_mark_has_the_name_that_this_browser_keeps(show: Open, tmp_path: Path) -> None:
    config = pages.make_corpus(tmp_path, ["bells/tower.wav"])
    pages.index(config)
    with pages.serve(config.into) as server:
        page = show(f"q={BELL}", at=server.address).page
        page.wait_for_selector(".card[aria-current] .spectrogram img")
        assert page.get_attribute("#who", "placeholder") == name_user()

        def mark(key: str, verdict: str) -> str:
            page.keyboard.press(key)
            page.wait_for_selector(f".card .badge.is-{verdict}")
            [made] = pipeline.open(config.into).marks()
            return made.who

        assert mark("r", "right") == name_user()
        page.fill("#who", " Zoë Ångström ")
        page.locator("#who").blur()
        assert mark("w", "wrong") == "Zoë Ångström"
        page.reload()
        page.wait_for_selector(".card .badge.is-wrong")
        assert page.input_value("#who") == "Zoë Ångström"
        assert mark("u", "unsure") == "Zoë Ångström"
        page.close()
