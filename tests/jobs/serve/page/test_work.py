"""Listening, judging, whole files, keys, and what goes wrong."""

import re
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import numpy as np
import pytest

import pipeline
from jobs.serve.states import MAX_OPEN
from pipeline.config import Config
from pipeline.index.handle import find_index
from tests.helpers import pages
from tests.helpers.waiting import wait_until
from tests.jobs.serve.page.conftest import Open

pytestmark = pytest.mark.slow

BELL = "a bell ringing"


def test_space_plays_the_current_hit_once(show: Open) -> None:
    page = show(f"q={BELL}").page
    page.wait_for_selector(".card[aria-current]")
    page.keyboard.press(" ")
    page.wait_for_function(
        """() => document.querySelector("#player").currentTime > 0.1
            && document.querySelector(".card[data-rank='1'] .playhead:not([hidden])")"""
    )
    page.wait_for_function("() => document.querySelector('#player').paused")
    page.wait_for_selector(".card[data-rank='1'] .playhead", state="hidden")


def test_a_click_plays_from_there(show: Open) -> None:
    watched = show(f"q={BELL}")
    watched.page.wait_for_selector(".card[data-rank='1'] .spectrogram img")
    with watched.page.expect_request("**/api/audio?*") as asked:
        watched.page.locator(".card[data-rank='1'] .spectrogram").click()
    start_s = float(re.findall(r"start_s=([0-9.]+)", asked.value.url)[0])
    shown = watched.page.locator(".card[data-rank='1'] .spectrogram").get_attribute("aria-label") or ""
    first, last = (60 * int(m) + float(s) for m, s in re.findall(r"(\d+):(\d\d\.\d\d)", shown)[-2:])
    assert start_s == pytest.approx((first + last) / 2, abs=0.02 * (last - first))
    watched.page.wait_for_function("() => document.querySelector('#player').currentTime > 0.1")


def test_speed_loop_and_expansion_change_what_plays(show: Open) -> None:
    watched = show(f"q={BELL}&loop=1")
    page = watched.page
    page.wait_for_selector(".card[aria-current]")
    page.keyboard.press(" ")
    page.wait_for_function("() => document.querySelector('#player').currentTime > 0.05")
    assert page.evaluate("document.querySelector('#player').loop")
    page.keyboard.press("s")
    assert page.evaluate("document.querySelector('#player').playbackRate") == 0.5
    page.keyboard.press("s")
    assert page.evaluate("document.querySelector('#player').playbackRate") == 0.25
    with page.expect_request(re.compile("api/audio.*expand=10")):
        page.keyboard.press("s")
    assert page.evaluate("document.querySelector('#player').playbackRate") == 1
    page.keyboard.press("l")
    assert not page.evaluate("document.querySelector('#player').loop")
    page.keyboard.press("Escape")
    assert page.evaluate("document.querySelector('#player').paused")


def test_keys_are_off_while_typing(show: Open) -> None:
    """Marks are made one after the other: one of a typed key would be made before that of the key that is none."""
    watched = show(f"q={BELL}")
    page = watched.page
    page.wait_for_selector(".card[aria-current]")
    page.keyboard.press("/")
    page.keyboard.type("wrurl")
    assert page.input_value("#q") == "wrurl"
    page.keyboard.press("Escape")
    page.keyboard.press("u")
    page.wait_for_selector(".card[data-rank='1'] .badge.is-unsure")
    assert sum("api/marks" in url and "uri=" not in url for url in watched.requests) == 1
    page.keyboard.press("z")
    page.wait_for_selector(".card .badge", state="detached")


def test_the_keyboard_does_for_all(show: Open) -> None:
    page = show().page
    page.keyboard.press("/")
    page.keyboard.type(BELL)
    page.keyboard.press("Enter")
    page.wait_for_selector(".card[aria-current]")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    assert page.evaluate("document.activeElement.dataset.rank") == "3"
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid", "the focus is seen"
    page.keyboard.press("o")
    page.wait_for_selector("#track .spectrogram img")
    before = page.url
    page.keyboard.press("-")
    page.wait_for_function("before => location.href !== before", arg=before)
    page.keyboard.press("b")
    page.wait_for_selector(".card[data-rank='3'][aria-current]")
    page.keyboard.press("?")
    page.wait_for_selector("#help[open]")
    assert page.locator("#help tr").count() > 15
    page.keyboard.press("Escape")
    page.wait_for_selector("#help", state="hidden")
    for _ in range(40):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.matches('.card .actions .verdict.is-unsure')"):
            break
    page.keyboard.press("Enter")
    page.wait_for_selector(".card .badge.is-unsure")
    page.keyboard.press("z")
    page.wait_for_selector(".card .badge.is-unsure", state="detached")


def read_region(page: Any) -> list[float]:
    """The region that the page has just told, in seconds."""
    said = page.locator("#status").inner_text()
    assert said.startswith("Region ")
    return [60 * int(minutes) + float(seconds) for minutes, seconds in re.findall(r"(\d+):(\d\d\.\d\d)", said)]


@pytest.mark.parametrize("place", ["search", "file"])
def test_a_region_is_drawn_heard_and_searched_by_keys_alone(show: Open, config: Config, place: str) -> None:
    day = str(Path(config.sources[0]) / "a day.flac")
    states = {"search": {"q": BELL, "context": 4}, "file": {"view": "file", "uri": day, "lane": BELL, "to": 20}}
    page = show(urlencode(states[place])).page
    box = {"search": ".card[data-rank='1']", "file": "#track"}[place]
    page.wait_for_selector(f"{box} .threshold:not([hidden])")
    page.wait_for_selector(f"{box} .overlay .span")
    began: list[list[float]] = []
    for key in (",", ",", ".", ">", ":", "<", ";"):
        page.keyboard.press(key)
        began.append(read_region(page))
    starts, ends = (np.array(times) for times in zip(*began, strict=True))
    view = page.locator(f"{box} .spectrogram").get_attribute("aria-label") or ""
    first_s, last_s = (60 * int(m) + float(s) for m, s in re.findall(r"(\d+):(\d\d\.\d\d)", view)[-2:])
    step_s = (last_s - first_s) / 80
    np.testing.assert_allclose(np.diff(starts) / step_s, [-1, 1, 0, 0, 0, 0], atol=0.1)
    np.testing.assert_allclose(np.diff(ends) / step_s, [0, 0, 1, 1, -1, -1], atol=0.1)
    event = pipeline.open(config.into).locate(BELL, k=1)[0] if place == "search" else None
    if event:
        assert [starts[0] + step_s, ends[0]] == pytest.approx([event.start_s, event.end_s], abs=0.02)
    for _ in range(25):
        page.keyboard.press("<")
    start_s, end_s = read_region(page)
    assert end_s - start_s == pytest.approx(0, abs=0.02), "the end does not pass the start"
    for _ in range(60):
        page.keyboard.press(",")
    start_s, _ = read_region(page)
    assert start_s == pytest.approx(first_s, abs=0.02), "a region stays within what is seen"
    with page.expect_request("**/api/audio?*") as heard:
        page.keyboard.press(" ")
    asked = dict(re.findall(r"(start_s|end_s)=([0-9.]+)", heard.value.url))
    assert [float(asked["start_s"]), float(asked["end_s"])] == pytest.approx([start_s, end_s], abs=0.02)
    page.wait_for_function("() => document.querySelector('#player').currentTime > 0.05")
    with page.expect_request("**/api/similar?*") as compared:
        page.keyboard.press("m")
    sent: Any = compared.value.post_data_json
    assert [sent["start_s"], sent["end_s"]] == pytest.approx([start_s, end_s], abs=0.02)
    page.wait_for_selector("#summary:has-text('like')")


def test_a_region_of_keys_begins_in_the_middle_where_nothing_is_found(show: Open, config: Config) -> None:
    day = str(Path(config.sources[0]) / "a day.flac")
    page = show(urlencode({"view": "file", "uri": day, "to": 40})).page
    page.wait_for_selector("#track .spectrogram img")
    page.keyboard.press(">")
    assert read_region(page) == pytest.approx([18, 22.5], abs=0.02)
    page.wait_for_selector("#chosen:has-text('0:18.00 – 0:22.50')")
    page.keyboard.press("Escape")
    page.wait_for_selector("#track .region", state="detached")


MOVE_EDGE = """async ([[from, to], span, edge, direction]) => {
  const { Track } = await import("/track.js");
  const track = Object.assign(new Track("/a.wav", to, {}), { from, to, span });
  track.moveEdge(edge, direction);
  return [track.region.start_s, track.region.end_s];
}"""


@pytest.mark.parametrize(
    ("view", "span"),
    [
        ((0, 60), (3.80, 4.44)),  # shorter than an 80th of the view
        ((0, 60), (0, 0.44)),
        ((0, 43_200), (20_000, 20_000.04)),
        ((10, 20), (8, 22)),  # reaches out of the view on both sides
    ],
)
def test_each_key_moves_its_edge_in_its_direction(
    show: Open, view: tuple[float, float], span: tuple[float, float]
) -> None:
    page = show().page
    (start_s, end_s), length_s = span, span[1] - span[0]

    def move(edge: str, direction: int) -> list[float]:
        event = {"start_s": start_s, "end_s": end_s}
        moved: list[float] = page.evaluate(MOVE_EDGE, [view, event, edge, direction])
        return moved

    earlier, later = (move("start_s", direction)[0] for direction in (-1, 1))
    assert earlier == start_s if start_s <= view[0] else view[0] <= earlier < start_s
    assert start_s < later < end_s
    sooner, further = (move("end_s", direction)[1] for direction in (-1, 1))
    assert start_s < sooner < end_s
    assert further == end_s if end_s >= view[1] else end_s < further <= view[1]
    steps_s = np.abs([earlier - start_s, later - start_s, sooner - end_s, further - end_s])
    assert steps_s.max() <= length_s / 2 + 1e-9, "no key makes something else of a short event"
    assert move("end_s", 1)[0] == move("end_s", -1)[0] == start_s, "the other edge stays"


def test_a_file_has_lanes_of_texts(show: Open, config: Config) -> None:
    day = str(Path(config.sources[0]) / "a day.flac")
    watched = show(f"view=file&uri={day}&lane={BELL}&lane=birds+chirping")
    page = watched.page
    page.wait_for_function("() => document.querySelectorAll('#track .threshold:not([hidden])').length === 2")
    page.fill("#lane", "an ambulance siren")
    page.press("#lane", "Enter")
    page.wait_for_function("() => document.querySelectorAll('#track .threshold:not([hidden])').length === 3")
    assert "lane=an+ambulance+siren" in page.url
    page.locator("#lane").blur()
    opened = pipeline.open(config.into)
    texts = [BELL, "birds chirping", "an ambulance siren"]
    here = [(event.peak_s, text) for text, events in zip(texts, opened.locate(texts, k=100), strict=True)
            for event in events if event.uri == day]  # fmt: skip
    for _ in range(60):
        page.keyboard.press("ArrowUp")
        if "No earlier event" in page.locator("#status").inner_text():
            break
    seen = [page.locator("#chosen b").inner_text()]
    while "No later event" not in page.locator("#status").inner_text():
        page.keyboard.press("ArrowDown")
        seen.append(page.locator("#chosen b").inner_text())
    assert seen[:-1] == [text for _, text in sorted(here)]


def test_a_file_that_failed_says_why(show: Open, config: Config) -> None:
    broken = str(Path(config.sources[0]) / "broken.wav")
    watched = show(f"view=file&uri={broken}&lane={BELL}")
    watched.page.wait_for_selector("#file-facts:has-text('failed')")
    watched.page.wait_for_load_state("networkidle")
    assert watched.page.locator("#file-work").is_hidden()
    for key in ("ArrowDown", "ArrowLeft", "+", " ", "r"):
        watched.page.keyboard.press(key)  # there is nothing to do it with
    assert not any("/api/spectrogram" in url or "/api/curve" in url for url in watched.requests)


def test_the_wheel_zooms_around_the_pointer(show: Open, config: Config) -> None:
    day = str(Path(config.sources[0]) / "a day.flac")
    page = show(f"view=file&uri={day}").page
    page.wait_for_selector("#track .spectrogram img")
    box = page.locator("#track .spectrogram").bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] / 4, box["y"] + 20)
    page.mouse.wheel(0, -480)
    page.wait_for_url(re.compile("from=.*to="))
    page.wait_for_load_state("networkidle")
    first, last = (float(re.findall(rf"{name}=([0-9.]+)", page.url)[0]) for name in ("from", "to"))
    assert last - first == pytest.approx(60 / 2.25, rel=0.02)
    assert first + (last - first) / 4 == pytest.approx(15, abs=0.2)


def test_a_phone_needs_no_sideways_scrolling(show: Open, config: Config) -> None:
    day = str(Path(config.sources[0]) / "a day.flac")
    for state in (f"q={BELL}", f"view=file&uri={day}&lane={BELL}", "view=marks", ""):
        page = show(state, width=390).page
        page.wait_for_load_state("networkidle")
        assert page.evaluate("document.scrollingElement.scrollWidth") <= 390, state


@pytest.mark.parametrize("width", [390, 1280])
def test_menus_of_exports_fit_wherever_their_buttons_are(show: Open, config: Config, width: int) -> None:
    day = str(Path(config.sources[0]) / "a day.flac")
    like = urlencode({"like": day, "like_from": 3, "like_to": 4})
    long = urlencode({"mode": "clips", "q": " ".join(12 * [BELL])})
    for state, menu in ((like, "#exports"), (long, "#exports"), ("view=marks", "#marks-exports")):
        page = show(state, width=width).page
        page.click(f"{menu} summary")
        box, button = (page.locator(f"{menu} {part}").bounding_box() for part in ("ul", "summary"))
        assert box is not None
        assert button is not None
        assert box["x"] >= 0, state
        assert box["x"] + box["width"] <= width, state
        assert box["y"] >= button["y"] + button["height"], state


@pytest.mark.parametrize("scheme", ["dark", "light"])
def test_the_theme_follows_the_system_until_it_is_chosen(show: Open, scheme: str) -> None:
    page = show(color_scheme=scheme).page
    read = "getComputedStyle(document.body).backgroundColor"
    before = page.evaluate(read)
    page.click("[data-key=d]")
    chosen = page.evaluate(read)
    assert chosen != before
    page.reload()
    page.wait_for_selector("#index-counts:not(:empty)")
    assert page.evaluate(read) == chosen


def test_controls_have_names(show: Open) -> None:
    page = show(f"q={BELL}").page
    page.wait_for_selector(".card")
    nameless = page.evaluate(
        """[...document.querySelectorAll("button, input:not([type=file]), select, a, canvas, [role=img]")].filter(
          node => !node.textContent.trim() && !node.ariaLabel && !node.labels?.length && !node.closest("label")
        ).map(node => node.outerHTML)"""
    )
    assert nameless == []


def test_a_file_that_has_gone_still_shows_its_curve(show: Open, tmp_path: Path) -> None:
    config = pages.make_corpus(tmp_path, ["bells/tower.wav"])
    pages.index(config)
    [file] = [Path(config.sources[0]) / "bells/tower.wav"]
    file.unlink()
    with pages.serve(config.into) as server:
        watched = show(f"q={BELL}", at=server.address)
        watched.page.wait_for_selector(".card .state:text-is('file gone')")
        watched.page.wait_for_selector(".card .note:not(:empty)")
        watched.page.wait_for_selector(".card .threshold:not([hidden])")
        watched.page.close()
        watched.problems[:] = [line for line in watched.problems if "404" not in line]  # the browser's word on pictures


def test_a_newer_state_is_taken_over_at_a_click(show: Open, tmp_path: Path) -> None:
    config = pages.make_corpus(tmp_path, ["bells/tower.wav"])
    pages.index(config)
    with pages.serve(config.into) as server:
        page = show(f"q={BELL}", at=server.address).page
        page.wait_for_selector(".card")
        assert page.locator("#newer").is_hidden()
        pages.write_scene(Path(config.sources[0]) / "new.wav", ["bell"], 6.0, seed=77)
        pages.index(config)
        newest = find_index(config.into).state
        wait_until(lambda: server.json("/api/info")["newest_seq"] == newest)  # it looks once a second
        page.keyboard.press("r")  # marks are counted anew, which tells of the state; else it is asked for slowly
        page.wait_for_selector("#newer:not([hidden])")
        assert "1 file ·" in page.locator("#index-counts").inner_text()
        page.click("#take-newest")
        page.wait_for_selector("#index-counts:has-text('2 files')")
        page.wait_for_selector(".card .name:text-is('new.wav')")
        assert page.locator("#newer").is_hidden()
        page.close()


def test_a_state_that_is_gone_is_left_for_the_newest_as_a_whole(show: Open, tmp_path: Path) -> None:
    config = pages.make_corpus(tmp_path, ["bells/tower.wav"])
    pages.index(config)
    tower = str(Path(config.sources[0]) / "bells/tower.wav")
    with pages.serve(config.into) as server:
        marking, asking = (show(f"q={BELL}", at=server.address) for _ in range(2))
        for each in (marking, asking):
            each.page.wait_for_selector(".card .spectrogram img")
            each.page.wait_for_load_state("networkidle")
        for seed in range(MAX_OPEN):
            pages.write_scene(Path(config.sources[0]) / f"new {seed}.wav", ["bell"], 6.0, seed=70 + seed)
            pages.index(config)
            assert server.request("/api/refresh", "POST")[0] == 200
        marking.page.keyboard.press("r")
        marking.page.wait_for_selector("#status:has-text('Marked right')")
        assert [mark.verdict for mark in pipeline.open(config.into).marks()] == ["right"]
        answered = asking.page.evaluate(
            """async (uri) => {
              const { get } = await import("/api.js");
              const asked = [get("file", { uri }), get("values", { column: "take" }), get("marks", { uri })];
              return (await Promise.allSettled(asked)).map(({ status }) => status);
            }""",
            tower,
        )
        assert answered == ["fulfilled"] * 3
        newest = server.json("/api/info")["seq"]
        for each in (marking, asking):
            each.page.wait_for_selector(f"#index-counts:has-text('{1 + MAX_OPEN} files')")
            each.page.wait_for_selector(".card .name:text-is('new 0.wav')")
            assert each.page.locator("#newer").is_hidden()
            [taken] = [number for number, url in enumerate(each.requests) if "/api/refresh" in url]
            assert {found[1] for url in each.requests[taken + 1 :] if (found := re.search(r"at=(\d+)", url))} == {
                str(newest)
            }
            each.problems[:] = [line for line in each.problems if " 410 " not in line]  # the browser's word on it
            each.page.close()


def test_an_empty_index_says_how_to_fill_it(show: Open, tmp_path: Path) -> None:
    config = pages.make_corpus(tmp_path, [])
    pages.index(config)
    with pages.serve(config.into) as server:
        page = show(at=server.address).page
        page.wait_for_selector("#summary:text-is('Nothing is indexed yet')")
        assert "1 failure" in page.locator("#index-counts").inner_text()
        page.close()


def test_a_server_that_has_ended_is_missed(show: Open, tmp_path: Path) -> None:
    config = pages.make_corpus(tmp_path, ["bells/tower.wav"])
    pages.index(config)
    with pages.serve(config.into) as server:
        watched = show(f"q={BELL}", at=server.address)
        watched.page.wait_for_selector(".card .spectrogram img")
        server.process.terminate()
        server.process.wait(timeout=120)  # until then, it answers on connections that are open
        watched.page.fill("#q", "something else")
        watched.page.press("#q", "Enter")
        watched.page.wait_for_selector("#offline:not([hidden])")
        watched.problems[:] = [line for line in watched.problems if "ERR_CONNECTION_REFUSED" not in line]


def test_a_server_that_is_back_is_noticed_at_the_next_try(show: Open) -> None:
    """The clock of the page stands: nothing but the first try falls into the time that passes."""
    watched = show()
    page = watched.page
    page.clock.install(time=0)
    page.reload()
    page.wait_for_selector("#index-counts:not(:empty)")
    page.clock.pause_at(3_600)
    page.route("**/api/**", lambda route: route.abort())
    page.fill("#q", BELL)
    page.press("#q", "Enter")
    page.wait_for_selector("#offline:not([hidden])")
    page.unroute("**/api/**")
    page.clock.run_for(3_000)
    page.wait_for_selector("#offline", state="hidden")
    page.wait_for_selector(".card")
    watched.problems[:] = [line for line in watched.problems if "ERR_FAILED" not in line]  # the browser's word on it


def test_an_export_that_fails_says_why(show: Open) -> None:
    watched = show(f"q={BELL}&k=10")
    page = watched.page
    page.wait_for_selector(".card")
    page.click(".menu summary")
    page.route("**/api/export?*", lambda route: route.fulfill(status=503, json={"error": "no room"}))
    page.click(".menu a:text-is('CSV')")
    page.wait_for_selector("#status:has-text('Not exported: no room')")
    page.unroute("**/api/export?*")
    page.route("**/api/export?*", lambda route: route.abort())
    page.click(".menu a:text-is('JSON lines')")
    page.wait_for_selector("#status:has-text('Not exported: The server does not answer')")
    watched.problems[:] = [line for line in watched.problems if "503" not in line and "ERR_FAILED" not in line]


def test_an_export_that_is_cut_says_so(show: Open) -> None:
    page = show(f"q={BELL}&k=10").page
    page.wait_for_selector(".card")
    page.click(".menu summary")

    def cut(route: Any) -> None:
        answer = route.fetch()
        route.fulfill(response=answer, headers={**answer.headers, "x-earshot-is-cut": "1"})

    for said in ("Saved labels.csv", "there may be better ones"):
        with page.expect_download() as saved:
            page.click(".menu a:text-is('CSV')")
        assert saved.value.suggested_filename == "labels.csv"
        page.wait_for_selector(f"#status:has-text('{said}')")
        assert ("better" in page.locator("#status").inner_text()) == ("better" in said)
        page.route("**/api/export?*", cut)
