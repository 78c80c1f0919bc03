"""Questions, answers, filters and the address."""

import csv
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlencode

import numpy as np
import pytest
import soundfile

import pipeline
from jobs.serve.search_routes import find_kind
from pipeline.config import Config
from pipeline.search.events import Levels, Rules, read_events
from tests.helpers import pages
from tests.jobs.serve.page.conftest import Open

pytestmark = pytest.mark.slow

BELL = "a bell ringing"


SPAN = """() => {
  const card = document.querySelector(".card[data-rank='1']");
  const { left, width } = card.querySelector(".overlay .span").style;
  return {
    times: card.querySelector(".times").textContent,
    view: card.querySelector(".spectrogram").ariaLabel,
    shares: [parseFloat(left) / 100, (parseFloat(left) + parseFloat(width)) / 100],
  };
}"""
"""Of the first hit: the times that it shows, the stretch that is seen, and the shares of it where its span lies."""


def ask(watched: pages.Watched, text: str) -> None:
    watched.page.fill("#q", text)
    watched.page.press("#q", "Enter")
    watched.page.wait_for_selector(f"#summary q:text-is('{text}')")


def uris(watched: pages.Watched) -> list[str]:
    titles = watched.page.locator("#hits .card .name").evaluate_all("nodes => nodes.map(node => node.title)")
    return [str(title) for title in titles]


def test_answers_are_those_of_locate(show: Open, config: Config) -> None:
    watched = show()
    ask(watched, BELL)
    expected = pipeline.open(config.into).locate(BELL, k=20)
    assert uris(watched) == [event.uri for event in expected]
    times = watched.page.locator("#hits .card .times").all_inner_texts()
    starts = [re.split(" – ", shown)[0] for shown in times]
    assert starts == [f"{int(event.start_s // 60)}:{event.start_s % 60:05.2f}" for event in expected]


def test_clips_are_those_of_query(show: Open, config: Config) -> None:
    watched = show("mode=clips&k=10")
    ask(watched, "birds chirping")
    assert uris(watched) == [hit.uri for hit in pipeline.open(config.into).search("birds chirping", k=10)]


def test_pictures_and_curves_are_loaded_in_sight(show: Open) -> None:
    watched = show(f"q={BELL}")
    watched.page.wait_for_selector(".card[data-rank='1'] .spectrogram img")
    watched.page.wait_for_function(
        "() => { const canvas = document.querySelector('.card canvas');"
        " const data = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;"
        " return data.some(value => value > 0); }"
    )


def test_a_thousand_hits_ask_for_few_pictures(show: Open) -> None:
    watched = show()
    pages.repeat_hits(watched.page, 1_000)
    watched.page.select_option("#k", "1000")
    ask(watched, BELL)
    assert watched.page.locator(".card").count() == 1_000
    watched.page.wait_for_selector(".card[data-rank='1'] .spectrogram img")
    assert 0 < sum("/api/spectrogram" in url for url in watched.requests) < 30
    watched.page.locator(".card[data-rank='1000']").scroll_into_view_if_needed()
    watched.page.wait_for_selector(".card[data-rank='1000'] .spectrogram img")
    assert sum("/api/spectrogram" in url for url in watched.requests) < 60


def test_nothing_found_is_said(show: Open) -> None:
    watched = show(f"q={BELL}&t=0.99&where=take+%3D+99")
    watched.page.wait_for_selector("#hits .empty:has-text('Nothing reaches the threshold of 0.99')")


def test_names_are_text(show: Open) -> None:
    watched = show(f"q={BELL}")
    watched.page.wait_for_selector(".card")
    shown = watched.page.locator(".card .name").all_inner_texts()
    assert pages.MARKUP_NAME in shown
    assert watched.page.locator(".card img[src='x']").count() == 0
    watched.page.fill("#q", "")
    filters = watched.page.locator(".pair").all_inner_texts()
    assert "recordist <b>bold</b>" in filters


def test_a_filter_quotes_its_value(show: Open) -> None:
    watched = show(f"q={BELL}")
    watched.page.wait_for_selector(".card")
    watched.page.click(".adder summary")
    watched.page.select_option("#filter-column", "recordist")
    watched.page.focus("#filter-value")
    watched.page.wait_for_selector('#filter-values option[value="Bo O\'Neill"]', state="attached")
    watched.page.fill("#filter-value", "Bo O'Neill")
    watched.page.click("#filter-add")
    watched.page.wait_for_selector(".chip")
    watched.page.wait_for_function(
        "() => document.querySelectorAll('.card').length > 0 && !document.querySelector('[aria-busy=true]')"
    )
    recordists = set(watched.page.locator(".card .pair:has-text('recordist')").all_inner_texts())
    assert recordists == {"recordist Bo O'Neill"}
    watched.page.click(".chip button")
    watched.page.wait_for_selector(".card .pair:has-text('recordist Ana')")


@pytest.mark.parametrize(
    ("name", "kind", "comparison", "value"),
    [
        ("recordist", "string", "is", "Bo O'Neill"),
        ("recordist", "string", "is not", "x"),
        ("recordist", "string", "contains", "o'n"),
        ("recordist", "string", "begins with", "bo"),
        ("recordist", "string", "is empty", ""),
        ("recordist", "string", "is not empty", ""),
        ("take", "int64", "≥", "2"),
        ("take", "int64", "=", "2"),
        ("duration_s", "double", "≤", "11.5"),
        ("day", "date32[day]", "≥", "2024-05-02"),
        ("", "", "SQL", "take = 1 OR take = 2"),
    ],
)
def test_the_index_understands_filters(
    show: Open, config: Config, name: str, kind: str, comparison: str, value: str
) -> None:
    """Every comparison makes SQL that the index takes, for a column of a kind it is for."""
    make = "async ([column, comparison, value]) => (await import('/filters.js')).toSql(column, comparison, value)"
    column = {"name": name, "type": kind or None, "kind": find_kind(kind) if kind else "sql"}
    where = show().page.evaluate(make, [column, comparison, value])
    opened = pipeline.open(config.into)
    rows = opened.to_arrow("files", ["uri", "recordist", "day", "take", "duration_s"], where).to_pylist()
    rules: dict[str, Callable[[Any], bool]] = {
        "is": lambda row: row["recordist"] == "Bo O'Neill",
        "is not": lambda row: row["recordist"] not in (None, "x"),
        "contains": lambda row: "O'N" in (row["recordist"] or ""),
        "begins with": lambda row: (row["recordist"] or "").startswith("Bo"),
        "is empty": lambda row: row["recordist"] is None,
        "is not empty": lambda row: row["recordist"] is not None,
        "≥": lambda row: row["take"] >= 2 if name == "take" else str(row["day"]) >= "2024-05-02",
        "=": lambda row: row["take"] == 2,
        "≤": lambda row: row["duration_s"] <= 11.5,
        "SQL": lambda row: row["take"] in (1, 2),
    }
    assert rows
    assert all(rules[comparison](row) for row in rows)
    found = {hit.uri for hit in opened.search(BELL, where=where)}
    assert found <= {row["uri"] for row in rows}


def test_spans_are_those_of_the_server(show: Open) -> None:
    """The rule of events in the page finds what the rule of the index finds, for any curve and threshold."""
    rng = np.random.default_rng(5)
    curves = []
    for length in (1, 2, 7, 60, 400):
        steps = np.cumsum(rng.normal(0, 0.4, length)).astype(np.float32)
        curves.append(
            {"scores": steps.tolist(), "first_frame": int(rng.integers(0, 50)), "frame_s": 0.04, "step_frames": 1}
        )
    scale, bias = 3.0, -0.5
    thresholds = [0.05, 0.3, 0.5, 0.95]
    found = show().page.evaluate(
        """async ([curves, scale, bias, thresholds]) => {
          const { findEvents } = await import("/events.js");
          const find = (curve, t) => findEvents({ ...curve, logit_scale: scale, logit_bias: bias }, t);
          return curves.map(curve => thresholds.map(t => find(curve, t).map(e => [e.start_s, e.end_s, e.peak_s])));
        }""",
        [curves, scale, bias, thresholds],
    )
    n_events = 0
    for curve, by_threshold in zip(curves, found, strict=True):
        for threshold, events in zip(thresholds, by_threshold, strict=True):
            levels = Levels.from_rules(Rules(threshold), scale, bias)
            expected = read_events(np.array(curve["scores"]), levels, curve["first_frame"])
            times = [[0.04 * event.first, 0.04 * event.stop, 0.04 * (event.peak + 0.5)] for event in expected]
            np.testing.assert_allclose(np.array(events).reshape(-1, 3), np.array(times).reshape(-1, 3), atol=1e-9)
            n_events += len(expected)
    assert n_events > 20


def test_dragging_the_threshold_changes_spans_without_a_request(show: Open, config: Config) -> None:
    watched = show("q=someone+drumming")
    page = watched.page
    page.wait_for_selector(".card[data-rank='1'] .threshold:not([hidden])")
    page.wait_for_load_state("networkidle")
    asked = len(watched.requests)
    handle = page.locator(".card[data-rank='1'] .threshold").bounding_box()
    lane = page.locator(".card[data-rank='1'] .lane").bounding_box()
    assert handle is not None
    assert lane is not None
    x = handle["x"] + handle["width"] / 2
    page.mouse.move(x, handle["y"] + handle["height"] / 2)
    page.mouse.down()
    page.mouse.move(x, lane["y"] + 0.1 * lane["height"], steps=6)
    threshold = float(page.locator("#t-shown").inner_text())
    assert 0.85 <= threshold <= 0.95
    page.mouse.move(x, lane["y"] + 0.999 * lane["height"], steps=6)
    lowest = [page.locator("#t-shown").inner_text(), page.locator(".card[data-rank='1'] .times").inner_text()]
    page.mouse.move(x, lane["y"] + 0.1 * lane["height"], steps=6)
    while_dragged = page.locator(".card[data-rank='1'] .times").inner_text()
    page.mouse.up()
    opened = pipeline.open(config.into)
    event = opened.locate("someone drumming", k=1, threshold=threshold)[0]
    assert while_dragged == f"0:{event.start_s:05.2f} – 0:{event.end_s:05.2f}"
    event = opened.locate("someone drumming", k=1, threshold=0.01)[0]
    assert lowest == ["0.01", f"0:{event.start_s:05.2f} – 0:{event.end_s:05.2f}"]
    assert lowest[1] != while_dragged
    assert watched.requests[asked:] == []
    page.wait_for_url(re.compile(rf"[#&]t={threshold:g}"))
    page.click("#again")
    page.wait_for_selector("#again", state="hidden")
    assert any(f"threshold={threshold:g}" in url for url in watched.requests[asked:])


def test_the_span_in_the_picture_follows_the_threshold(show: Open) -> None:
    page = show("q=someone+drumming&context=4").page
    page.wait_for_selector(".card[data-rank='1'] .threshold:not([hidden])")
    spans = []
    for threshold in (0.01, 0.9):
        page.fill("#t", f"{threshold:g}")
        page.wait_for_selector(f".card[data-rank='1'] .threshold b:text-is('{threshold:.2f}')")
        found = page.evaluate(SPAN)
        shown = [60 * int(m) + float(s) for m, s in re.findall(r"(\d+):(\d\d\.\d\d)", found["times"])]
        first_s, last_s = (60 * int(m) + float(s) for m, s in re.findall(r"(\d+):(\d\d\.\d\d)", found["view"])[-2:])
        box = [first_s + share * (last_s - first_s) for share in found["shares"]]
        np.testing.assert_allclose(box, np.clip(shown, first_s, last_s), atol=0.02)
        spans.append(shown)
    assert spans[0] != spans[1]


def test_the_address_and_exports_have_the_threshold_that_is_seen(show: Open, config: Config) -> None:
    page = show("q=someone+drumming").page
    page.wait_for_selector(".card[data-rank='1'] .threshold:not([hidden])")
    page.fill("#t", "0.9")
    page.wait_for_url(re.compile(r"[#&]t=0\.9\b"))
    page.click(".menu summary")
    with page.expect_download() as saved:
        page.click(".menu a:text-is('CSV')")
    rows = list(csv.DictReader(saved.value.path().read_text("utf-8-sig").splitlines()))
    opened = pipeline.open(config.into)
    expected = opened.locate("someone drumming", k=20, threshold=0.9)
    assert [row["uri"] for row in rows] == [event.uri for event in expected]
    times = np.array([[float(row["start_s"]), float(row["end_s"])] for row in rows])
    np.testing.assert_allclose(times, [[event.start_s, event.end_s] for event in expected], atol=1e-3)
    asked = opened.locate("someone drumming", k=20)
    assert [(event.start_s, event.end_s) for event in asked] != [(event.start_s, event.end_s) for event in expected]
    other = show(page.url.partition("#")[2]).page
    other.wait_for_selector(".card[data-rank='1']")
    first = ".card[data-rank='1'] .times"
    assert other.locator(first).inner_text() == page.locator(first).inner_text()


def test_the_address_reproduces_the_view(show: Open) -> None:
    watched = show()
    ask(watched, BELL)
    watched.page.select_option("#gain", "12")
    watched.page.select_option("#speed", "0.5")
    watched.page.fill("#high", "8")
    watched.page.locator("#high").blur()
    watched.page.keyboard.press("ArrowDown")
    watched.page.keyboard.press("+")
    watched.page.wait_for_url(re.compile("hit=2.*context=1.*gain=12.*high=8.*speed=0.5"))
    state = watched.page.url.partition("#")[2]
    seen = uris(watched)
    other = show(state)
    other.page.wait_for_selector(".card[aria-current]")
    assert uris(other) == seen
    assert other.page.locator(".card[aria-current]").get_attribute("data-rank") == "2"
    assert other.page.input_value("#gain") == "12"
    assert other.page.input_value("#speed") == "0.5"
    assert other.page.input_value("#high") == "8"
    assert other.page.input_value("#q") == BELL


def test_numbers_in_an_address_are_kept_within_their_limits(show: Open) -> None:
    page = show(f"q={BELL}&t=7&k=99999&hit=-3&context=-5&low=-1&gain=loud").page
    page.wait_for_selector(f"#summary q:text-is('{BELL}')")
    shown = [page.input_value(control) for control in ("#t", "#k", "#low", "#gain")]
    assert (shown, page.locator("#t-shown").inner_text()) == (["0.99", "1000", "0", "0"], "0.99")
    page = show(f"q={BELL}&t=-7&context=1e9").page
    page.wait_for_selector(".card .spectrogram img")
    assert page.locator("#t-shown").inner_text() == "0.01"


def test_back_and_forward_go_from_question_to_question(show: Open) -> None:
    watched = show()
    ask(watched, BELL)
    first = uris(watched)
    ask(watched, "birds chirping")
    second = uris(watched)
    watched.page.go_back()
    watched.page.wait_for_selector(f"#summary q:text-is('{BELL}')")
    assert uris(watched) == first
    watched.page.go_forward()
    watched.page.wait_for_selector("#summary q:text-is('birds chirping')")
    assert uris(watched) == second


def test_more_like_this_is_similar(show: Open, config: Config) -> None:
    watched = show(f"q={BELL}")
    watched.page.wait_for_selector(".card[aria-current] .spectrogram img")
    event = pipeline.open(config.into).locate(BELL, k=1)[0]
    watched.page.keyboard.press("m")
    watched.page.wait_for_selector("#summary:has-text('like')")
    expected = pipeline.open(config.into).similar_to_file(event.uri, 20, start_s=event.start_s, end_s=event.end_s)
    assert uris(watched)[:3] == [hit.uri for hit in expected][:3]
    assert f"like={event.uri}" in unquote(watched.page.url.replace("+", " "))


def test_answers_of_more_like_this_are_exported(show: Open, config: Config) -> None:
    watched = show(f"q={BELL}")
    page = watched.page
    page.wait_for_selector(".card[aria-current] .spectrogram img")
    page.keyboard.press("m")
    page.wait_for_selector("#summary:has-text('like')")
    page.click(".menu summary")
    with page.expect_download() as saved:
        page.click(".menu a:text-is('CSV')")
    rows = list(csv.DictReader(saved.value.path().read_text("utf-8-sig").splitlines()))
    assert [row["uri"] for row in rows] == uris(watched)
    event = pipeline.open(config.into).locate(BELL, k=1)[0]
    expected = pipeline.open(config.into).similar_to_file(event.uri, 20, start_s=event.start_s, end_s=event.end_s)
    np.testing.assert_allclose([float(row["score"]) for row in rows], [hit.score for hit in expected], atol=1e-5)
    assert {row["text"] for row in rows} == {f"like {Path(event.uri).name}"}
    page.go_back()
    page.wait_for_selector(f"#summary q:text-is('{BELL}')")
    with page.expect_download() as saved:
        page.click(".menu a:text-is('CSV')")
    rows = list(csv.DictReader(saved.value.path().read_text("utf-8-sig").splitlines()))
    assert {row["text"] for row in rows} == {BELL}, "those of a text are asked for as before"


def test_a_drawn_region_is_what_similar_compares(show: Open) -> None:
    watched = show(f"q={BELL}")
    page = watched.page
    pages.draw_region(page, 1, 0.2, 0.7)
    page.wait_for_selector(".card[data-rank='1'] .region")
    with page.expect_request("**/api/similar?*") as asked:
        page.click(".card[data-rank='1'] button:has-text('More like this')")
    sent = json.loads(asked.value.post_data or "{}")
    assert sent["end_s"] - sent["start_s"] > 1


def test_a_sound_from_a_disk_is_searched(show: Open, config: Config, tmp_path: Path) -> None:
    known = Path(config.sources[0]) / "bells/tower.wav"
    samples, rate_hz = soundfile.read(known)
    soundfile.write(tmp_path / "my sound.wav", samples, rate_hz)
    watched = show()
    watched.page.set_input_files("#sound-file", str(tmp_path / "my sound.wav"))
    watched.page.wait_for_selector("#summary q:text-is('my sound.wav')")
    assert uris(watched)[0] == str(known)


DROP = """async ([name, url]) => {
  const data = new DataTransfer();
  data.items.add(new File([await (await fetch(url)).blob()], name, { type: "audio/wav" }));
  const makeEvent = (type) => new DragEvent(type, { dataTransfer: data, bubbles: true, cancelable: true });
  return ["dragover", "drop"].map((type) => document.body.dispatchEvent(makeEvent(type)));
}"""


def test_a_sound_that_is_dropped_is_searched_and_its_answers_exported(show: Open, config: Config) -> None:
    known = str(Path(config.sources[0]) / "bells/tower.wav")
    watched = show()
    page = watched.page
    sound = f"api/audio?{urlencode({'uri': known, 'start_s': 1, 'end_s': 11})}"
    assert page.evaluate(DROP, ["from elsewhere.wav", sound]) == [False, False], "the browser does not open the file"
    page.wait_for_selector("#summary q:text-is('from elsewhere.wav')")
    assert uris(watched)[0] == known
    page.click(".menu summary")
    with page.expect_download() as saved:
        page.click(".menu a:text-is('JSON lines')")
    rows = [json.loads(line) for line in saved.value.path().read_text().splitlines()]
    assert [row["uri"] for row in rows] == uris(watched)
    assert {row["text"] for row in rows} == {"like from elsewhere.wav"}
    assert sum("/api/similar" in url for url in watched.requests) == 1, "the sound is not sent again for that"


def test_a_recording_is_searched(show: Open) -> None:
    watched = show(permissions=["microphone"])
    watched.page.click("#record")
    watched.page.wait_for_selector("#record[aria-pressed='true']")
    watched.page.wait_for_function("() => performance.now() > (window.until ??= performance.now() + 1500)")
    watched.page.click("#record")
    watched.page.wait_for_selector("#summary q:has-text('recording')")
    assert uris(watched)


def test_an_export_holds_what_is_shown(show: Open, config: Config) -> None:
    watched = show(f"q={BELL}&k=10")
    watched.page.wait_for_selector(".card")
    watched.page.click(".menu summary")
    with watched.page.expect_download() as saved:
        watched.page.click(".menu a:text-is('CSV')")
    rows = list(csv.DictReader(saved.value.path().read_text("utf-8-sig").splitlines()))
    assert [row["uri"] for row in rows] == uris(watched)
    expected = pipeline.open(config.into).locate(BELL, k=10)
    assert [float(row["start_s"]) for row in rows] == pytest.approx([event.start_s for event in expected], abs=1e-3)
