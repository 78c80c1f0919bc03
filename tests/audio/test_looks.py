"""A look at a recording tells whether its tracks and channels are read as before."""

import io

import numpy as np
import pytest

from pipeline.audio.decode import open_audio
from pipeline.audio.decoder_versions import Look
from pipeline.audio.looks import decodes_as_before
from pipeline.config import DecodeConfig
from pipeline.errors import FileFailure
from tests.helpers.bursts import make_bursts, make_film
from tests.helpers.sounds import encode, noise

PLAIN = noise(2.0, 48_000, 2)
CROSSED = make_bursts(48_000, 2) * np.array([1, -1], np.float32)
NOTE = "its two channels cancel each other: the first is read"


def look_at(data: bytes, look: Look, note: str | None) -> bool:
    return decodes_as_before(io.BytesIO(data), DecodeConfig(), None, look, note)


@pytest.mark.parametrize("name", ["wav_s16", "flac", "mp3", "m4a"])
@pytest.mark.parametrize("look", [Look.CHANNELS, Look.STREAMS])
def test_channels_are_as_before_if_the_note_is(name: str, look: Look) -> None:
    plain, crossed = encode(name, PLAIN, 48_000), encode(name, CROSSED, 48_000)
    assert look_at(plain, look, None)
    assert look_at(crossed, look, NOTE)
    assert not look_at(plain, look, NOTE)
    assert not look_at(crossed, look, None)


def test_a_picture_counts_only_if_streams_are_looked_at() -> None:
    film = make_film("mp4", "aac")
    assert look_at(film, Look.CHANNELS, None)
    assert not look_at(film, Look.STREAMS, None)


def test_jumps_of_the_clock_are_not_compared() -> None:
    """Only decoding all of a file tells of them."""
    options = {"live": "1"}
    film = make_film("webm", "libopus", None, move_s=lambda at_s: 50_000.0 * (at_s >= 5.0), options=options)
    with open_audio(io.BytesIO(film)) as audio:
        for _ in audio.blocks():
            pass
        note = audio.note
    assert note is not None
    assert note.startswith("its clock jumps ahead 1 time")
    assert look_at(film, Look.CHANNELS, note)
    assert not look_at(film, Look.CHANNELS, f"{note}; {NOTE}")
    crossed = encode("mp3", CROSSED, 48_000)
    assert look_at(crossed, Look.CHANNELS, f"{note}; {NOTE}")
    assert not look_at(crossed, Look.CHANNELS, note)


def test_what_cannot_be_decoded_is_a_failure() -> None:
    with pytest.raises(FileFailure, match="not_audio"):
        look_at(b"text", Look.CHANNELS, None)
