"""Marks by key, and of files that have changed."""

from pathlib import Path

import pytest

import pipeline
from pipeline.config import Config
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
