"""Of several sound tracks, the default one is read, unless it is silent."""

import io

import numpy as np
import pytest

from pipeline.audio.decode import open_audio
from tests.helpers.bursts import find_bursts, make_bursts, mux_tracks
from tests.helpers.sounds import by_av, noise

HZ = 48_000
SOUNDS = {
    "silent": np.zeros((12 * HZ, 2), np.float32),
    "bursts": make_bursts(HZ, 2),
    "noise": noise(12.0, HZ, 2),
}


def read(container: str, tracks: list[str], default: int | None = None, *, film: bool = True) -> tuple[str, str | None]:
    """Which of the sounds is read, and the note on it."""
    codec = "ac3" if container in ("avi", "mpegts") else "aac"
    sounds = [by_av("matroska", codec, 128_000)(SOUNDS[track], HZ) for track in tracks]
    with open_audio(io.BytesIO(mux_tracks(container, sounds, default, film))) as audio:
        heard = np.concatenate(list(audio.blocks()))
        assert audio.truncated is None
        note = audio.note
    assert len(heard) == pytest.approx(12 * HZ, rel=0.005)
    if not np.abs(heard).max() > 1e-3:
        return "silent", note
    is_bursts = find_bursts(heard) == pytest.approx([2.0, 9.0], abs=0.03)
    return "bursts" if is_bursts else "noise", note


@pytest.mark.parametrize("container", ["matroska", "mp4", "mov", "mpegts", "avi"])
def test_first_track_that_is_not_silent_is_read(container: str) -> None:
    assert read(container, ["silent", "bursts"]) == ("bursts", "it has 2 sound tracks; number 2 is read")
    assert read(container, ["bursts", "silent"]) == ("bursts", "it has 2 sound tracks; number 1 is read")
    assert read(container, ["silent", "noise", "bursts"])[0] == "noise"


@pytest.mark.parametrize("container", ["matroska", "mp4"])
def test_default_track_is_read_unless_it_is_silent(container: str) -> None:
    assert read(container, ["noise", "bursts"], default=1)[0] == "bursts"
    assert read(container, ["noise", "bursts"], default=0)[0] == "noise"
    assert read(container, ["noise", "silent"], default=1)[0] == "noise"


def test_tracks_without_a_picture_are_chosen_likewise() -> None:
    assert read("matroska", ["silent", "bursts"], film=False)[0] == "bursts"


def test_silent_tracks_are_read_as_silence() -> None:
    assert read("matroska", ["silent", "silent"]) == ("silent", "it has 2 sound tracks; number 1 is read")
