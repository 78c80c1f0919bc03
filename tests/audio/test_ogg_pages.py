"""Pages of Ogg tell whether a file is whole, and where its sound ends."""

import io

import numpy as np
import pytest

from pipeline.audio.decode import open_audio
from pipeline.audio.ogg_pages import find_last_granule, read_ogg_end
from pipeline.audio.source import Bytes
from tests.helpers.bursts import find_bursts, make_bursts, make_film
from tests.helpers.sounds import encode, noise, tone

HZ = 48_000


def test_end_of_an_ogg_file_is_whole_and_of_its_first_stream() -> None:
    one, other = (encode("ogg_vorbis", tone(1.0, HZ, hz), HZ) for hz in (440.0, 880.0))
    assert one[14:18] != other[14:18]
    assert read_ogg_end(Bytes(io.BytesIO(one))) == (True, True)
    assert read_ogg_end(Bytes(io.BytesIO(one[:-1]))) == (False, True)
    assert read_ogg_end(Bytes(io.BytesIO(one + other))) == (True, False)


FORMATS = ["ogg_vorbis", "ogg_opus", "ogg_flac"]


def film(name: str, video_s: float, late_s: float = 0.0) -> bytes:
    return make_film("ogg", "", "libvpx", data=encode(name, make_bursts(HZ), HZ), video_s=video_s, late_s=late_s)


@pytest.mark.parametrize(("video_s", "late_s"), [(5.0, 0.0), (12.0, 0.0), (40.0, 0.0), (40.0, 3.0)])
@pytest.mark.parametrize("name", FORMATS)
def test_last_page_of_the_sound_states_its_duration(name: str, video_s: float, late_s: float) -> None:
    """Each time: the serial numbers of the streams are drawn at random."""
    for _ in range(2):
        with open_audio(io.BytesIO(film(name, video_s, late_s))) as audio:
            assert audio.info.expected_duration_s == pytest.approx(12.0 + late_s, abs=0.01)
            heard = np.concatenate(list(audio.blocks()))
            assert len(heard) / HZ == pytest.approx(12.0 + late_s, abs=0.01)
            assert find_bursts(heard) == pytest.approx([2.0 + late_s, 9.0 + late_s], abs=0.01)
            assert audio.truncated is None


@pytest.mark.parametrize("name", FORMATS)
def test_sound_of_one_page_lasts_as_long_as_it_does(name: str) -> None:
    """FFmpeg may call it as long as the picture."""
    data = make_film("ogg", "", "libvpx", data=encode(name, tone(0.3, HZ), HZ))
    with open_audio(io.BytesIO(data)) as audio:
        assert audio.info.expected_duration_s == pytest.approx(0.3, abs=0.01)
        assert sum(map(len, audio.blocks())) / HZ == pytest.approx(0.3, abs=0.01)
        assert audio.truncated is None


@pytest.mark.parametrize("name", FORMATS)
def test_last_page_is_found_far_from_the_end(name: str) -> None:
    """A large picture follows: pages of another stream."""
    data, other = film(name, 5.0), encode("ogg_vorbis", noise(60.0, HZ, 2), HZ)
    [granule] = {find_last_granule(Bytes(io.BytesIO(data + rest)), 1) for rest in (b"", other, bytes(9_000_000))}
    assert granule is not None
    assert granule == pytest.approx(12 * HZ, abs=1_000)
    assert find_last_granule(Bytes(io.BytesIO(data + bytes(17_000_000))), 1) is None
    assert find_last_granule(Bytes(io.BytesIO(data)), 2) is None
