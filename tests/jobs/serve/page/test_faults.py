"""What goes wrong is said, loses nothing, and has nothing done twice."""

import re
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

import pipeline
from pipeline.config import Config
from tests.helpers import pages
from tests.jobs.serve.page.conftest import Open

pytestmark = pytest.mark.slow

BELL = "a bell ringing"
NO_STATE = 999_999


def forget(watched: pages.Watched, *words: str) -> None:
    """Leave out what the browser says of answers that a test has made fail."""
    watched.problems[:] = [line for line in watched.problems if not any(word in line for word in words)]


def change_info(watched: pages.Watched, **values: Any) -> None:
    """Have the server say something else of the index, and load the page again."""
    watched.page.route("**/api/info*", lambda route: route.fulfill(json={**route.fetch().json(), **values}))
    watched.page.reload()
    watched.page.wait_for_selector("#index-counts:not(:empty)")


def read(config: Config, name: str) -> bytes:
    return (Path(config.sources[0]) / name).read_bytes()


def choose(watched: pages.Watched, name: str, content: bytes) -> None:
    sound: Any = {"name": name, "mimeType": "audio/wav", "buffer": content}
    watched.page.set_input_files("#sound-file", sound)


# --- sounds that are sent ---------------------------------------------------------------------------------------------


def test_another_sound_of_the_same_name_is_another_question(show: Open, config: Config) -> None:
    watched = show()
    for name, shown in (("bells/tower.wav", "a.wav"), ("birds/鳥の声・第三回録音.wav", "a.wav (2)")):
        choose(watched, "a.wav", read(config, name))
        watched.page.wait_for_selector(f"#summary q:text-is('{shown}')")
        assert watched.page.locator(".card .name").first.get_attribute("title") == str(Path(config.sources[0]) / name)
    watched.page.go_back()
    watched.page.wait_for_selector("#summary q:text-is('a.wav')")
    first = watched.page.locator(".card .name").first.get_attribute("title")
    assert first == str(Path(config.sources[0]) / "bells/tower.wav")


def test_a_sound_is_not_sent_again_where_the_state_of_its_answer_is_gone(show: Open, config: Config) -> None:
    watched = show()
    page = watched.page
    choose(watched, "a.wav", read(config, "bells/tower.wav"))
    page.wait_for_selector("#summary q:text-is('a.wav')")
    page.wait_for_selector(".card[aria-current] .spectrogram img")
    page.evaluate("async (at) => ((await import('/api.js')).server.at = at)", NO_STATE)
    page.focus("#main")
    page.keyboard.press(" ")
    page.wait_for_selector("#status:has-text('The state that was shown is gone: this is the newest')")
    page.wait_for_selector("#summary:text-is('No answer yet')")
    assert sum("/api/similar" in url for url in watched.requests) == 1
    forget(watched, " 410 ")


def test_an_outage_leaves_the_file_that_is_shown_as_it_is(show: Open, config: Config) -> None:
    day = str(Path(config.sources[0]) / "a day.flac")
    watched = show(urlencode({"view": "file", "uri": day, "lane": BELL}))
    page = watched.page
    page.wait_for_selector("#track .spectrogram img")
    page.evaluate("document.querySelector('#track > *').isTheSame = true")
    page.route("**/api/**", lambda route: route.abort())
    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    page.wait_for_selector("#offline:not([hidden])")
    page.unroute("**/api/**")
    page.wait_for_selector("#offline", state="hidden")
    page.wait_for_selector("#track .spectrogram img")
    assert page.evaluate("document.querySelector('#track > *').isTheSame") is True
    forget(watched, "ERR_FAILED")


def test_a_sound_that_is_too_large_is_not_sent(show: Open) -> None:
    watched = show()
    change_info(watched, max_upload_bytes=200_000)
    choose(watched, "long.wav", bytes(150_000))
    watched.page.wait_for_selector("#status:has-text('“long.wav” exceeds 0.1 MB')")
    assert not any("/api/similar" in url for url in watched.requests)


def test_a_sound_is_not_sent_again_by_itself(show: Open, config: Config) -> None:
    watched = show()
    page = watched.page
    page.route("**/api/similar*", lambda route: route.abort())
    choose(watched, "a.wav", read(config, "bells/tower.wav"))
    page.wait_for_selector("#summary:text-is('No answer')")
    page.wait_for_selector("#offline:not([hidden])")
    page.unroute("**/api/similar*")
    page.wait_for_selector("#offline", state="hidden")
    page.wait_for_selector("#summary:text-is('No answer yet')")
    assert sum("/api/similar" in url for url in watched.requests) == 1
    page.click("#again")
    page.wait_for_selector("#summary q:text-is('a.wav')")
    forget(watched, "ERR_FAILED")


MICROPHONE = """() => {
  Object.assign(window, { asked: 0, stopped: 0 });
  navigator.mediaDevices.getUserMedia = () => {
    window.asked += 1;
    const track = { stop: () => (window.stopped += 1) };
    return new Promise((allow) => (window.allow = () => allow({ getTracks: () => [track] })));
  };
  window.MediaRecorder = class { constructor() { throw new Error("no codec"); } };
}"""


def test_a_recorder_that_fails_lets_the_microphone_go_and_is_begun_once(show: Open) -> None:
    page = show().page
    page.evaluate(MICROPHONE)
    page.click("#record")
    page.click("#record")
    assert page.evaluate("[window.asked, window.stopped]") == [1, 0]
    page.evaluate("window.allow()")
    page.wait_for_selector("#status:has-text('No recording: no codec')")
    assert page.evaluate("[window.asked, window.stopped]") == [1, 1]
    page.click("#record")
    assert page.evaluate("window.asked") == 2


# --- listening --------------------------------------------------------------------------------------------------------


def test_a_sound_that_the_browser_refuses_to_play_is_said_and_tried_again(show: Open) -> None:
    page = show(f"q={BELL}").page
    page.wait_for_selector(".card[aria-current]")
    page.evaluate(
        """() => {
          const { play } = HTMLMediaElement.prototype;
          HTMLMediaElement.prototype.play = function () {
            HTMLMediaElement.prototype.play = play;
            return Promise.reject(new DOMException("no gesture", "NotAllowedError"));
          };
        }"""
    )
    page.keyboard.press(" ")
    page.wait_for_selector("#status:has-text('press play again')")
    page.keyboard.press(" ")
    page.wait_for_function("() => document.querySelector('#player').currentTime > 0.1")


def test_a_sound_and_an_export_of_a_state_that_is_gone_are_those_of_the_newest(show: Open) -> None:
    watched = show(f"q={BELL}")
    page = watched.page
    leave = "async (at) => ((await import('/api.js')).server.at = at)"
    page.wait_for_selector(".card[aria-current] .spectrogram img")
    page.wait_for_load_state("networkidle")
    page.evaluate(leave, NO_STATE)
    page.keyboard.press(" ")
    page.wait_for_selector("#status:has-text('The state that was shown is gone: this is the newest')")
    page.wait_for_selector(".card[aria-current] .spectrogram img")
    page.keyboard.press(" ")
    page.wait_for_function("() => document.querySelector('#player').currentTime > 0.1")
    page.evaluate(leave, NO_STATE)
    page.evaluate(
        """(at) => document.querySelectorAll("#exports a").forEach((link) => {
          link.href = link.href.replace(/at=[0-9]+/, `at=${at}`);
        })""",
        NO_STATE,
    )
    page.click(".menu summary")
    with page.expect_download() as saved:
        page.click(".menu a:text-is('CSV')")
    assert "uri" in saved.value.path().read_text("utf-8-sig").splitlines()[0]
    forget(watched, " 410 ")


# --- marks ------------------------------------------------------------------------------------------------------------


def test_no_mark_is_made_while_those_there_are_cannot_be_read(show: Open, config: Config) -> None:
    watched = show(f"q={BELL}")
    page = watched.page
    page.wait_for_selector(".card[aria-current] .spectrogram img")
    page.wait_for_load_state("networkidle")
    page.route("**/api/marks?*", lambda route: route.fulfill(status=503, json={"error": "no room"}))
    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    page.wait_for_selector("#status:has-text('Marks are not shown: no room')")
    page.keyboard.press("r")
    page.wait_for_selector("#status:has-text('Not marked: no room')")
    assert not any("api/marks" in url and "uri=" not in url for url in watched.requests)
    page.unroute("**/api/marks?*")
    page.keyboard.press("r")
    page.wait_for_selector(".card[data-rank='1'] .badge.is-right")
    page.keyboard.press("z")
    page.wait_for_selector(".card .badge", state="detached")
    forget(watched, "503")


def test_a_click_without_a_pointer_is_about_its_own_card(show: Open, config: Config) -> None:
    page = show(f"q={BELL}").page
    page.wait_for_selector(".card[data-rank='1'][aria-current]")
    page.evaluate("document.querySelector(\".card[data-rank='3'] .verdict.is-wrong\").click()")
    page.wait_for_selector(".card[data-rank='3'][aria-current] .badge.is-wrong")
    event = pipeline.open(config.into).locate(BELL, k=3)[2]
    [mark] = [mark for mark in pipeline.open(config.into).marks() if mark.text == BELL]
    assert mark.uri == event.uri
    assert mark.start_s == pytest.approx(event.start_s, abs=0.04)
    page.keyboard.press("n")
    page.locator("#marks-rows button:text-is('Take back')").focus()
    page.keyboard.press("Enter")
    page.wait_for_selector("#marks-rows tr", state="detached")
    assert page.evaluate("document.activeElement !== document.body"), "the focus is not lost with the row"


# --- questions --------------------------------------------------------------------------------------------------------


def test_a_question_that_waits_is_said_and_may_be_left(show: Open) -> None:
    page = show().page
    held: list[Any] = []
    page.route("**/api/locate?*", lambda route: held.append(route))
    page.fill("#q", BELL)
    page.press("#q", "Enter")
    page.wait_for_selector("#view-search[aria-busy=true] #summary:text-is('Searching …')")
    page.click(".brand")
    page.wait_for_selector("#view-search:not([aria-busy]) #summary:text-is('Ask for a sound')")


def test_an_index_without_frames_is_asked_for_clips_whatever_the_address_says(show: Open) -> None:
    watched = show()
    change_info(watched, has_frames=False)
    page = watched.page
    page.click(".brand")
    page.fill("#q", BELL)
    page.press("#q", "Enter")
    page.wait_for_selector("#summary:has-text('clips of')")
    assert page.is_checked("[name=mode][value=clips]")
    assert not any("/api/locate" in url for url in watched.requests)


def test_counts_in_an_address_are_whole_and_shown(show: Open) -> None:
    watched = show(f"q={BELL}&k=2.5&hit=1.5&gain=5")
    watched.page.wait_for_selector(".card[data-rank='2'][aria-current]")
    assert [watched.page.input_value(control) for control in ("#k", "#gain")] == ["3", "5"]
    assert any("/api/locate" in url and "k=3" in url for url in watched.requests)


def test_a_filter_that_is_dropped_by_key_leaves_the_focus_in_the_page(show: Open) -> None:
    page = show(f"q={BELL}&where=take+%3D+1").page
    page.wait_for_selector(".card")
    page.focus("#filter-chips .chip button")
    page.keyboard.press("Enter")
    page.wait_for_selector("#filter-chips .chip", state="detached")
    assert page.evaluate("document.activeElement.id") == "main"


# --- files and outages ------------------------------------------------------------------------------------------------


def test_a_file_that_is_opened_twice_at_once_is_shown_once(show: Open, config: Config) -> None:
    day = str(Path(config.sources[0]) / "a day.flac")
    page = show("view=marks").page
    held: list[Any] = []
    page.route("**/api/file?*", lambda route: held.append(route))
    page.goto(f"{page.url.partition('#')[0]}#view=file&uri={day}&lane={BELL}")
    page.wait_for_selector("#file-name:text-is('a day.flac')")
    page.keyboard.press("n")
    page.wait_for_selector("#view-marks", state="visible")
    page.go_back()
    page.wait_for_selector("#view-file", state="visible")
    for route in held:
        route.continue_()
    page.wait_for_selector("#track .spectrogram img")
    assert [page.locator(f"#{box} .track").count() for box in ("track", "overview")] == [1, 1]


def test_a_file_that_fails_late_says_nothing_over_a_later_one(show: Open, config: Config) -> None:
    folder = Path(config.sources[0])
    watched = show("view=marks")
    page = watched.page
    held: list[Any] = []
    page.route("**/api/file?*tower*", lambda route: held.append(route))
    address = page.url.partition("#")[0]
    page.goto(f"{address}#{urlencode({'view': 'file', 'uri': str(folder / 'bells/tower.wav')})}")
    page.wait_for_selector("#file-name:text-is('tower.wav')")
    page.goto(f"{address}#{urlencode({'view': 'file', 'uri': str(folder / 'a day.flac')})}")
    page.wait_for_selector("#track .spectrogram img")
    [route] = held
    with page.expect_response("**/api/file?*tower*"):
        route.fulfill(status=503, json={"error": "no room"})
    page.evaluate("fetch('/api/info').then((answer) => answer.json())")  # what the page does at the failure is done
    assert [page.locator(f"#file-{part}").inner_text() for part in ("name", "facts")] == ["a day.flac", ""]
    forget(watched, "503")


def test_a_file_that_is_not_answered_says_why_and_shows_nothing_of_the_one_before(show: Open, config: Config) -> None:
    watched = show(urlencode({"view": "file", "uri": str(Path(config.sources[0]) / "a day.flac"), "lane": BELL}))
    page = watched.page
    page.wait_for_selector("#track .spectrogram img")
    page.goto(f"{page.url.partition('#')[0]}#view=file&uri=/nowhere.wav")
    page.wait_for_selector("#file-facts:has-text('No answer: /nowhere.wav: is no file of the index')")
    assert page.locator("#file-work").is_hidden()
    forget(watched, "404")


def test_values_that_come_late_are_not_offered_for_another_beginning(show: Open) -> None:
    page = show(f"q={BELL}").page
    page.wait_for_selector(".card")
    page.click(".adder summary")
    page.select_option("#filter-column", "recordist")
    held: list[Any] = []
    page.route("**/api/values?*prefix=A*", lambda route: held.append(route))
    page.fill("#filter-value", "A")
    pages.wait_here(page, lambda: held)
    page.fill("#filter-value", "Bo")
    page.wait_for_selector('#filter-values option[value="Bo O\'Neill"]', state="attached")
    with page.expect_response("**/api/values?*prefix=A*"):
        held[0].continue_()
    page.evaluate("fetch('/api/info').then((answer) => answer.json())")  # what the page does with it is done
    assert page.locator("#filter-values option[value='Ana']").count() == 0


def test_after_an_outage_pictures_and_curves_are_asked_for_again(show: Open) -> None:
    watched = show()
    page = watched.page
    for kind in ("spectrogram", "curve", "file"):
        page.route(f"**/api/{kind}?*", lambda route: route.abort())
    page.fill("#q", BELL)
    page.press("#q", "Enter")
    page.wait_for_selector(".card .note:has-text('The server does not answer')")
    page.wait_for_selector("#status:has-text('No curve: The server does not answer')")
    for kind in ("spectrogram", "curve", "file"):
        page.unroute(f"**/api/{kind}?*")
    page.wait_for_selector(".card[data-rank='1'] .spectrogram img")
    page.wait_for_selector(".card[data-rank='1'] .threshold:not([hidden])")
    assert page.locator(".card[data-rank='1'] .state").inner_text() == ""
    assert sum(bool(re.search("/api/locate", url)) for url in watched.requests) == 1
    forget(watched, "ERR_FAILED")
