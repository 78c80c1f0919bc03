"""Of several sound tracks, the default one is read, unless it is silent."""

import io
from types import SimpleNamespace

import numpy as np
import pytest

from pipeline.audio.decode import open_audio
from pipeline.audio.tracks import choose_track
from tests.helpers.bursts import find_bursts, make_bursts, mux_tracks
from tests.helpers.sounds import by_av, noise

HZ = 48_000
SOUNDS = {
    "silent": np.zeros((12 * HZ, 2), np.float32),
    "bursts": make_bursts(HZ, 2),
    "noise": noise(12.0, HZ, 2),
    "right only": make_bursts(HZ, 2) * np.array([0, 1], np.float32),
    "bass only": make_bursts(HZ, 6) * np.array([0, 0, 0, 1, 0, 0], np.float32),
}


def read(container: str, tracks: list[str], default: int | None = None, *, film: bool = True) -> tuple[str, str | None]:
    """Which of the sounds is read, and the note on it."""
    codec = "ac3" if container in ("avi", "mpegts") else "aac"
    codec = "flac" if any(track.endswith("only") for track in tracks) else codec  # silence stays silence
    rate = None if codec == "flac" else 128_000
    sounds = [by_av("matroska", codec, rate)(SOUNDS[track], HZ) for track in tracks]
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


@pytest.mark.parametrize("container", ["matroska", "mp4", "avi"])
def test_track_whose_sound_begins_after_a_minute_is_not_silent(container: str) -> None:
    late = noise(120.0, 8_000)
    late[: 70 * 8_000] = 0
    codec = "pcm_s16le" if container == "avi" else "flac"
    tracks = [by_av("matroska", codec)(samples, 8_000) for samples in (late, noise(120.0, 8_000, seed=1))]
    with open_audio(io.BytesIO(mux_tracks(container, tracks, film=False))) as audio:
        heard = np.concatenate(list(audio.blocks()))
        assert audio.note == "it has 2 sound tracks; number 1 is read"
    assert not heard[: 69 * HZ].any()
    assert np.abs(heard[71 * HZ :]).max() > 0.1


def test_tracks_are_listened_to_everywhere_in_a_film_whose_clock_begins_late() -> None:
    late = noise(120.0, 32_000)
    late[: 70 * 32_000] = 0
    tracks = [by_av("matroska", "ac3")(samples, 32_000) for samples in (late, noise(120.0, 32_000, seed=1))]
    offset = {"output_ts_offset": "26000"}
    with open_audio(io.BytesIO(mux_tracks("mpegts", tracks, film=False, options=offset))) as audio:
        heard = np.concatenate(list(audio.blocks()))
        assert audio.note == "it has 2 sound tracks; number 1 is read"
    assert np.abs(heard[: 69 * HZ]).max() < 1e-3
    assert np.abs(heard[71 * HZ :]).max() > 0.1


def test_tracks_without_a_picture_are_chosen_likewise() -> None:
    assert read("matroska", ["silent", "bursts"], film=False)[0] == "bursts"


def test_silent_tracks_are_read_as_silence() -> None:
    assert read("matroska", ["silent", "silent"]) == ("silent", "it has 2 sound tracks; number 1 is read")


@pytest.mark.parametrize("track", ["right only", "bass only"])
def test_sound_in_any_channel_counts(track: str) -> None:
    _, note = read("matroska", [track, "noise"])
    assert note == "it has 2 sound tracks; number 1 is read"


@pytest.mark.parametrize("fraction", [0.5, 0.7, 0.9])
def test_tracks_of_a_film_that_was_cut_while_it_was_recorded_are_chosen(fraction: float) -> None:
    """A recorder that crashes leaves a fragmented MP4 that ends within a fragment's header."""
    sounds = [by_av("matroska", "aac", 128_000)(SOUNDS[track], HZ) for track in ("silent", "bursts")]
    data = mux_tracks("mp4", sounds, options={"movflags": "frag_keyframe+empty_moov+default_base_moof"})
    at = data.index(b"moof", round(fraction * len(data)))
    with open_audio(io.BytesIO(data[: at + 40])) as audio:
        heard = np.concatenate(list(audio.blocks()))
        assert audio.note == "it has 2 sound tracks; number 2 is read"
        assert audio.truncated is not None
    assert min(abs(at_s - 2.0) for at_s in find_bursts(heard)) < 0.03  # at half, the second burst is cut off


def test_without_any_decoder_the_first_track_is_named() -> None:
    """Its reader then says that there is no decoder, not that there is no sound."""
    tracks = [SimpleNamespace(codec_context=None) for _ in range(2)]
    container = SimpleNamespace(streams=SimpleNamespace(audio=tracks))
    assert choose_track(container, lambda: pytest.fail("opened again")) is tracks[0]
