"""The first bytes of a file tell its container."""

import io

import pytest

from pipeline.audio.containers import (
    begins_as_audio,
    begins_exact,
    find_joined_flac,
    find_next_link,
    is_short_vorbis,
)
from pipeline.audio.source import Bytes
from tests.helpers.sounds import encode, noise, tone

HZ = 48_000
EXACT = ["wav_s16", "flac", "aiff", "caf", "w64", "rf64", "au"]
OTHERS = ["mp3", "ogg_vorbis", "ogg_opus", "webm_opus", "m4a"]


def open_sound(name: str, duration_s: float = 1.0) -> Bytes:
    return Bytes(io.BytesIO(encode(name, tone(duration_s, HZ), HZ)))


@pytest.mark.parametrize("name", [*EXACT, *OTHERS])
def test_audio_is_recognised_by_its_first_bytes(name: str) -> None:
    source = open_sound(name)
    assert begins_exact(source) == (name in EXACT)
    assert begins_as_audio(source) or name == "mp3"  # without a tag, an mp3 has no mark of its own


def test_short_vorbis_has_one_page_of_sound() -> None:
    assert is_short_vorbis(open_sound("ogg_vorbis", 0.1))
    assert not is_short_vorbis(Bytes(io.BytesIO(encode("ogg_vorbis", noise(9.0, HZ), HZ))))
    assert not is_short_vorbis(open_sound("ogg_opus"))


def test_next_link_of_chained_ogg_is_found() -> None:
    one, other = encode("ogg_vorbis", noise(9.0, HZ), HZ), encode("ogg_opus", tone(1.0, HZ), HZ)
    source = Bytes(io.BytesIO(one + other))
    assert find_next_link(source, 0) == find_next_link(source, len(one) - 100) == len(one)
    assert find_next_link(source, len(one)) is None


def test_flac_that_is_joined_to_another_is_found() -> None:
    one, other = encode("flac", noise(9.0, HZ), HZ), encode("flac", tone(1.0, HZ), HZ)
    source = Bytes(io.BytesIO(one + other))
    assert find_joined_flac(source, 0) == find_joined_flac(source, len(one) - 1) == len(one)
    assert find_joined_flac(source, len(one)) is None
