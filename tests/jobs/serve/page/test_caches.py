"""What the page keeps: never more than a limit, and nothing of what is out of sight."""

from pathlib import Path

import pytest

from pipeline.config import Config
from tests.helpers import pages
from tests.jobs.serve.page.conftest import Open

pytestmark = pytest.mark.slow

BELL = "a bell ringing"

COUNT_ADDRESSES = """() => {
  window.held = new Set();
  const { createObjectURL, revokeObjectURL } = URL;
  window.made = 0;
  URL.createObjectURL = (blob) => {
    const address = createObjectURL(blob);
    window.made += 1;
    window.held.add(address);
    return address;
  };
  URL.revokeObjectURL = (address) => {
    window.held.delete(address);
    revokeObjectURL(address);
  };
}"""


def test_what_was_wanted_last_is_kept(show: Open) -> None:
    kept = show().page.evaluate(
        """async () => {
          const { Recent } = await import("/data.js");
          const byCount = new Recent(3);
          for (const key of ["a", "b", "c"]) byCount.set(key, true);
          byCount.get("a");
          byCount.set("d", true).set("e", true);
          const bySize = new Recent(100);
          for (const size of [10, 60, 30, 40]) bySize.set(size, { size });
          const tooLarge = new Recent(100).set("small", { size: 1 }).set("large", { size: 1000 });
          return [byCount, bySize, tooLarge].map((recent) => [...recent.keys()]);
        }"""
    )
    assert kept == [["a", "d", "e"], [30, 40], ["large"]]


def test_addresses_of_pictures_and_sounds_are_given_back(show: Open, config: Config) -> None:
    page = show().page
    page.evaluate(COUNT_ADDRESSES)
    pages.repeat_hits(page, 200)
    page.fill("#q", BELL)
    page.press("#q", "Enter")
    for rank in (1, 60, 120, 200):
        page.locator(f".card[data-rank='{rank}']").scroll_into_view_if_needed()
        page.wait_for_selector(f".card[data-rank='{rank}'] .spectrogram img")
    page.wait_for_load_state("networkidle")
    page.wait_for_function("() => window.held.size === 0")
    assert page.evaluate("window.made") >= 4
    page.set_input_files("#sound-file", str(Path(config.sources[0]) / "bells/tower.wav"))
    page.wait_for_selector("#summary q:text-is('tower.wav')")
    for _ in range(3):
        page.click("#like-play")
    page.wait_for_function("() => document.querySelector('#player').currentTime > 0")
    page.wait_for_function("() => window.held.size <= 1")


def test_cards_out_of_sight_keep_no_picture(show: Open) -> None:
    page = show(f"q={BELL}").page
    pages.repeat_hits(page, 300)
    page.select_option("#k", "500")
    for rank in (100, 200, 300):
        page.locator(f".card[data-rank='{rank}']").scroll_into_view_if_needed()
        page.wait_for_selector(f".card[data-rank='{rank}'] .spectrogram img")
    page.wait_for_selector(".card[data-rank='100'] .spectrogram img", state="detached")
    assert page.locator(".card .spectrogram img").count() < 30


def test_a_sound_that_the_browser_cannot_play_is_said(show: Open, tmp_path: Path) -> None:
    watched = show()
    page = watched.page
    (tmp_path / "odd.wav").write_bytes(b"no sound at all")
    page.set_input_files("#sound-file", str(tmp_path / "odd.wav"))
    page.wait_for_selector("#summary:text-is('No answer')")
    page.click("#like-play")
    page.wait_for_selector("#status:has-text('The browser cannot play this sound')")
    assert page.locator("#offline").is_hidden()
    watched.problems[:] = [line for line in watched.problems if " 4" not in line]  # the server refuses it, too
