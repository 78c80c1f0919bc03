"""The packets of a sound come with the beginnings of the streams beside it. Pauses of AMR keep their time."""

import io
from collections.abc import Iterator

import av
import numpy as np
import pytest

from jobs.bench.hostile_sounds import with_cover
from pipeline.audio.decode import open_audio
from pipeline.audio.packets import Packets
from pipeline.audio.source import Bytes
from tests.helpers.bursts import find_bursts, make_bursts, make_film, remux
from tests.helpers.sounds import by_av, encode

HZ = 48_000


def read(data: bytes) -> Packets:
    source = Bytes(io.BytesIO(data))
    container = av.open(source)
    return Packets(container, container.streams.audio[0], source)


def test_first_packets_of_other_streams_are_met() -> None:
    packets = read(make_film("matroska", "libopus", late_s=3.0))
    assert packets.first_s == pytest.approx(2.993, abs=2e-3)
    [picture] = packets.neighbours
    assert picture.first_s == 0.0
    sound = list(packets)
    assert {packet.stream.type for packet in sound} == {"audio"}
    assert sum(packet.size > 0 for packet in sound) == 601
    assert packets.failed is None


def test_cover_is_no_stream_beside_the_sound() -> None:
    packets = read(with_cover(encode("mp3", make_bursts(HZ), HZ)))
    assert (packets.neighbours, packets.has_neighbours) == ([], False)


# --- AMR --------------------------------------------------------------------------------------------------------------

AMR = by_av("amr", "libopencore_amrnb")(make_bursts(8_000), 8_000)
AMR_BYTES = (13, 14, 16, 18, 20, 21, 27, 32, 6)
"""Of a frame with its type (RFC 4867, section 5.3)."""
NO_DATA, COMFORT_NOISE = b"\x7c", b"\x44" + bytes(5)


def split_amr(data: bytes) -> Iterator[bytes]:
    at = 6
    while at < len(data):
        stop = at + AMR_BYTES[data[at] >> 3 & 15]
        yield data[at:stop]
        at = stop


def with_pauses(comfort_noise: bytes) -> bytes:
    """Only the bursts are sent."""
    frames = []
    for number, frame in enumerate(split_amr(AMR)):
        is_burst = any(begin_s - 0.1 < number / 50 < begin_s + 0.5 for begin_s in (2.0, 9.0))
        frames.append(frame if is_burst else NO_DATA if number % 8 else comfort_noise)
    return AMR[:6] + b"".join(frames)


@pytest.mark.parametrize("comfort_noise", [NO_DATA, COMFORT_NOISE])
@pytest.mark.parametrize("container", ["amr", "3gp"])
def test_pauses_of_amr_keep_their_time(comfort_noise: bytes, container: str) -> None:
    data = with_pauses(comfort_noise)
    with open_audio(io.BytesIO(data if container == "amr" else remux(data, container))) as audio:
        heard = np.concatenate(list(audio.blocks()))
        assert audio.truncated is None
    assert len(heard) == pytest.approx(12.02 * HZ, abs=1)
    assert find_bursts(heard) == pytest.approx([2.0, 9.0], abs=0.03)


def test_amr_of_nothing_but_pauses_is_silence() -> None:
    with open_audio(io.BytesIO(AMR[:6] + 50 * NO_DATA)) as audio:
        heard = np.concatenate(list(audio.blocks()))
        assert audio.truncated is None
    assert len(heard) == HZ
    assert not heard.any()


def test_damaged_frames_of_amr_keep_their_time_and_are_told() -> None:
    frames = list(split_amr(AMR))
    frames[200:300] = [b"\x4c" for _ in range(100)]  # a type that does not exist
    with open_audio(io.BytesIO(AMR[:6] + b"".join(frames))) as audio:
        heard = np.concatenate(list(audio.blocks()))
        assert audio.truncated is not None
    assert find_bursts(heard) == pytest.approx([2.0, 9.0], abs=0.03)
