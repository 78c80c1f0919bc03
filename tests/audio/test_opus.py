"""Opus in Matroska begins with its first sample, whatever rate its source had."""

import io

import av
import numpy as np
import pytest

from pipeline.audio import opus
from pipeline.audio.decode import open_audio
from tests.helpers.bursts import find_bursts, make_bursts, make_film
from tests.helpers.sounds import by_av

HZ = 48_000


@pytest.mark.parametrize("options", [{}, {"frame_duration": "60", "application": "voip"}, {"frame_duration": "2.5"}])
@pytest.mark.parametrize("rate_hz", [8_000, 12_000, 16_000, 24_000, 48_000])
def test_delay_of_every_rate_is_left_out(rate_hz: int, options: dict[str, str]) -> None:
    data = by_av("webm", "libopus", None, options)(make_bursts(rate_hz), rate_hz)
    with open_audio(io.BytesIO(data)) as audio:
        heard = np.concatenate(list(audio.blocks()))
        assert audio.truncated is None
    assert len(heard) == pytest.approx(12 * HZ, abs=1)
    assert find_bursts(heard) == pytest.approx([2.0, 9.0], abs=0.0005)


def test_delay_is_left_out_of_sound_that_begins_late() -> None:
    data = by_av("matroska", "libopus")(make_bursts(8_000), 8_000)
    with open_audio(io.BytesIO(make_film("matroska", "", data=data, late_s=3.0))) as audio:
        heard = np.concatenate(list(audio.blocks()))
    assert find_bursts(heard) == pytest.approx([5.0, 12.0], abs=0.001)


@pytest.mark.parametrize("application", ["voip", "audio", "lowdelay"])
@pytest.mark.parametrize("frame_ms", ["2.5", "5", "10", "20", "40", "60"])
@pytest.mark.parametrize("rate_hz", [8_000, 48_000])
def test_samples_of_packets_add_up(rate_hz: int, frame_ms: str, application: str) -> None:
    options = {"frame_duration": frame_ms, "application": application}
    with av.open(io.BytesIO(by_av("ogg", "libopus", None, options)(make_bursts(rate_hz), rate_hz))) as container:
        packets = [bytes(packet) for packet in container.demux(audio=0) if packet.size]
        pre_skip = opus.read_pre_skip(container.streams.audio[0].codec_context.extradata)
    counts = list(map(opus.count_samples, packets))
    assert set(counts) == {round(float(frame_ms) * 48)}
    assert 0 <= sum(counts) - 12 * HZ - pre_skip < counts[0]


def test_damaged_packets_and_headers_count_nothing() -> None:
    assert opus.count_samples(b"") == opus.count_samples(b"\x03") == 0
    assert opus.count_samples(b"\x0b\x03") == 3 * 960
    assert opus.read_pre_skip(None) == opus.read_pre_skip(b"OpusHead") == opus.read_pre_skip(b"\1vorbis") == 0
