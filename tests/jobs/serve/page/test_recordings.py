"""Long recordings: parts of a curve, sounds that are paused; and recordings whose times are approximate."""

import io
import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest
import soundfile
import uvicorn
from PIL import Image

from jobs.serve import limits
from jobs.serve.app import make_app
from jobs.serve.limits import MAX_POINTS
from jobs.serve.run import bind
from jobs.serve.security import Access
from jobs.serve.service import Service, open_service
from pipeline.grid import FRAME_S
from pipeline.search.events import Levels, Rules, read_events
from tests.helpers import pages, served
from tests.helpers.sounds import encode_damaged_mp3
from tests.jobs.serve.page.conftest import Open

pytestmark = pytest.mark.slow

DURATION_S = 12_000.0
"""More than the hour up to which a curve is loaded as a whole, and more than has a score for each frame."""

FIND_EVENTS = """async ([durationS, views, threshold]) => {
  const { Data } = await import("/data.js");
  const { findEvents } = await import("/events.js");
  const [data, found] = [new Data(), []];
  for (const [from, to] of views) {
    const curve = await data.curve({ uri: "long", duration_s: durationS }, "a text", from, to, threshold);
    const events = findEvents(curve, threshold).map((one) => [one.start_s, one.end_s, one.peak_s]);
    found.push([curve.scores.length, events]);
  }
  return found;
}"""


def make_scores(seed: int) -> Any:
    """The scores of a recording with events of all lengths, from one frame to many minutes, with gaps and tails."""
    rng = np.random.default_rng(seed)
    scores = rng.normal(-6, 0.3, math.ceil(DURATION_S / FRAME_S))
    for length_s in (0.04, 0.2, 1, 5, 30, 45, 90, 200, 700):
        for first in rng.integers(0, len(scores), 8 if length_s < 60 else 1):
            stop = first + round(length_s / FRAME_S)
            scores[first:stop] = rng.normal(2, 0.3, len(scores[first:stop]))
            scores[first + 20 : stop - 20 : 400] = -6  # a gap that is closed
            scores[stop : stop + 700] = np.maximum(scores[stop : stop + 700], -3.5)  # at low thresholds it lasts
    return scores.round(6)


@pytest.mark.parametrize("threshold", [0.5, 0.05])
def test_no_event_of_a_long_recording_is_cut_wherever_it_is_entered(show: Open, threshold: float) -> None:
    scores = make_scores(seed=3)
    page = show().page

    def answer(route: Any) -> None:
        asked = parse_qs(urlsplit(route.request.url).query)
        first = math.floor(float(asked["start_s"][0]) / FRAME_S)
        stop = math.ceil(float(asked["end_s"][0]) / FRAME_S)
        step = math.ceil((stop - first) / MAX_POINTS)
        best = np.maximum.reduceat(scores[first // step * step : stop], np.arange(0, stop - first // step * step, step))
        rule = {"logit_scale": 1.0, "logit_bias": 0.0, "frame_s": FRAME_S, "step_frames": step}
        route.fulfill(json={"scores": best.tolist(), "first_frame": first // step * step, **rule})

    page.route("**/api/curve?*", answer)
    starts_s = np.random.default_rng(4).uniform(0, DURATION_S - 20, 80)
    views = [[start_s, start_s + 12.0] for start_s in starts_s.tolist()]
    overview = [0, DURATION_S]  # is asked for first, and is no answer to the others: it is coarse
    coarse, *found = page.evaluate(FIND_EVENTS, [DURATION_S, [overview, *views], threshold])
    assert len(coarse[1]) > 0
    assert coarse[0] <= MAX_POINTS
    whole = read_events(scores, Levels.from_rules(Rules(threshold), 1.0, 0.0))
    times = np.array([[event.first, event.stop, event.peak + 0.5] for event in whole]) * FRAME_S
    n_seen = 0
    for (begin_s, end_s), (n_frames, events) in zip(views, found, strict=True):
        assert n_frames >= 12.0 / FRAME_S
        known = np.array(events).reshape(-1, 3)
        for event in known:
            assert np.abs(times - event).max(axis=1).min() < 1e-6, "it is an event of the whole recording"
        expected = times[(times[:, 0] < end_s) & (times[:, 1] > begin_s)]
        in_view = known[(known[:, 0] < end_s) & (known[:, 1] > begin_s)]
        np.testing.assert_allclose(in_view, expected, atol=1e-6)
        n_seen += len(expected)
    assert n_seen > 10
    assert min(n_frames for n_frames, _ in found) < len(scores) / 20, "a part is enough where events are short"


def test_pictures_with_approximate_times_say_so(show: Open, tmp_path: Path) -> None:
    config = pages.make_corpus(tmp_path, [])
    Path(config.sources[0], "junk.mp3").write_bytes(encode_damaged_mp3())
    pages.index(config)
    with pages.serve(config.into) as server:
        for start_s, shown in (
            (30, "times approximate · 0–24 kHz"),
            (1, "0–24 kHz"),
            (30, "times approximate · 0–24 kHz"),
        ):
            state = f"view=file&uri={config.sources[0]}/junk.mp3&from={start_s}&to={start_s + 1}"
            page = show(state, at=server.address).page
            page.wait_for_selector("#track .spectrogram img")
            assert page.locator("#track .frequency").inner_text() == shown
            said = page.locator("#track .spectrogram").get_attribute("aria-label") or ""
            assert said.endswith("times approximate") == shown.startswith("times approximate")
            page.close()


@contextmanager
def serve_here(index: str) -> Iterator[tuple[Service, str]]:
    """A server in a thread of this process, and its address."""
    service, listening = open_service(index), bind("127.0.0.1", 0)
    server = uvicorn.Server(uvicorn.Config(make_app(service, Access()), http="h11", log_config=None, lifespan="off"))
    thread = threading.Thread(target=server.run, args=([listening],))
    thread.start()
    try:
        yield service, f"http://127.0.0.1:{listening.getsockname()[1]}/"
    finally:
        server.should_exit = True
        thread.join()
        service.workers.close()
        listening.close()


SHOW_TRACK = """async ([from, to]) => {
  const { Track } = await import("/track.js");
  const track = new Track("long.mp3", 12000, {});
  Object.assign(track, { from, to });
  track.element.id = "tried";
  document.getElementById("tried")?.remove();
  document.body.append(track.element);
  track.show({ gain: 0, low: null, high: null, rate_hz: 48000 });
}"""


@pytest.mark.parametrize(
    ("flaws", "said"),
    [
        (["X-Earshot-Sampled"], "sampled: zoom in for all of it"),
        (["X-Earshot-Approximate", "X-Earshot-Sampled"], "times approximate · sampled: zoom in for all of it"),
        (["X-Earshot-Approximate"], "times approximate"),
    ],
)
def test_a_stretch_of_more_than_an_hour_is_sampled_and_says_what_it_lacks(
    show: Open, flaws: list[str], said: str
) -> None:
    page, asked = show().page, []

    def answer(route: Any) -> None:
        values = parse_qs(urlsplit(route.request.url).query)
        asked.append((float(values["start_s"][0]), float(values["end_s"][0]), values.get("sampled")))
        pixel = io.BytesIO()
        Image.new("RGB", (1, 1)).save(pixel, "PNG")
        headers = dict.fromkeys(flaws, "1") if "sampled" in values else {}
        route.fulfill(body=pixel.getvalue(), content_type="image/png", headers=headers)

    page.route("**/api/spectrogram?*", answer)
    page.evaluate(SHOW_TRACK, [0, 10_000])
    page.wait_for_selector("#tried .spectrogram img")
    assert page.locator("#tried .frequency").inner_text() == f"{said} · 0–24 kHz"
    label = page.locator("#tried .spectrogram").get_attribute("aria-label") or ""
    assert label.endswith(said.replace(" · ", ", "))
    page.evaluate(SHOW_TRACK, [100, 130])
    page.wait_for_selector("#tried .spectrogram img")
    assert page.locator("#tried .frequency").inner_text() == "0–24 kHz"
    assert asked == [(0, 10_000, ["true"]), (100, 130, None)]


def test_a_sound_that_was_paused_for_longer_than_the_server_waits_goes_on(
    show: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "MAX_TAKE_S", 0.5)
    config = served.make_corpus(tmp_path)
    samples = np.random.default_rng(0).normal(0, 0.1, (48_000 * 600, 2)).astype(np.float32)
    soundfile.write(Path(config.sources[0], "long.wav"), samples, 48_000)
    served.index(config)
    with serve_here(config.into) as (service, address):
        watched = show(f"view=file&uri={served.uri(config, 'long.wav')}", at=address)
        page = watched.page
        page.wait_for_selector("#track .spectrogram img")
        page.keyboard.press(" ")
        page.wait_for_function("() => document.querySelector('#player').currentTime > 0.2")
        page.evaluate("document.querySelector('#player').pause()")
        pages.wait_here(page, lambda: not service.sounds_sent.n_taken)  # the server has given the connection up
        known_s = page.evaluate("document.querySelector('#player').buffered.end(0)")
        assert known_s < 500
        page.evaluate("document.querySelector('#player').playbackRate = 16")
        page.evaluate("document.querySelector('#player').play()")
        page.wait_for_function("(known) => document.querySelector('#player').currentTime > known + 20", arg=known_s)
        page.close()
        watched.problems[:] = [line for line in watched.problems if "CONTENT_LENGTH_MISMATCH" not in line]
