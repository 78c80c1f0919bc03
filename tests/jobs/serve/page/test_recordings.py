"""Recordings whose times are approximate."""

from pathlib import Path

import pytest

from tests.helpers import pages
from tests.helpers.sounds import encode_damaged_mp3
from tests.jobs.serve.page.conftest import Open

pytestmark = pytest.mark.slow


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
