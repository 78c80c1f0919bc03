"""Sounds whose place in time can be measured: two bursts, put into containers with chosen times.

data = make_film("mpegts", "aac", late_s=3.0)
assert find_bursts(decode_all(io.BytesIO(data))[0]) == pytest.approx([5.0, 12.0], abs=0.03)
"""

import io
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import av
import numpy as np

from pipeline.grid import SAMPLE_RATE_HZ, Waveform
from tests.helpers.sounds import Samples, by_av

BURSTS_S = (2.0, 9.0)
DURATION_S = 12.0


def burst(sample_rate_hz: int) -> Samples:
    """A chirp of 0.3 s: (samples,)."""
    times_s = np.arange(round(0.3 * sample_rate_hz)) / sample_rate_hz
    chirp = 0.5 * np.sin(2 * np.pi * (300 + 1_500 * times_s) * times_s) * np.exp(-6 * times_s)
    return chirp.astype(np.float32)


def make_bursts(sample_rate_hz: int, channels: int = 1) -> Samples:
    """Silence of 12 s with two bursts: (samples, channels)."""
    mono = np.zeros(round(DURATION_S * sample_rate_hz), np.float32)
    for begin_s in BURSTS_S:
        begin = round(begin_s * sample_rate_hz)
        sound = burst(sample_rate_hz)
        mono[begin : begin + len(sound)] = sound
    return np.repeat(mono[:, None], channels, axis=1)


def find_bursts(heard: Waveform) -> list[float]:
    """When the two loudest bursts of a decoded sound begin, by cross-correlation."""
    sound = burst(SAMPLE_RATE_HZ)
    n = len(heard) + len(sound)
    likeness = np.abs(np.fft.irfft(np.fft.rfft(heard, n) * np.conj(np.fft.rfft(sound, n)), n))[: len(heard)]
    found = []
    for _ in BURSTS_S:
        at = int(np.argmax(likeness))
        found.append(at / SAMPLE_RATE_HZ)
        likeness[max(0, at - SAMPLE_RATE_HZ) : at + SAMPLE_RATE_HZ] = 0
    return sorted(found)


def remux(data: bytes, container: str) -> bytes:
    """The packets of a sound in another container."""
    return make_film(container, "", None, data=data)


def make_film(
    container: str,
    codec: str,
    video: str | None = "mpeg4",
    *,
    late_s: float = 0.0,
    data: bytes | None = None,
    move_s: Callable[[float], float] = lambda time_s: 0.0,
    move_video_s: Callable[[float], float] = lambda time_s: 0.0,
    video_s: float = 20.0,
    options: dict[str, str] | None = None,
    spoil: Callable[[float], bool] = lambda time_s: False,
) -> bytes:
    """A film with two bursts in its sound.

    Args:
        codec, video: FFmpeg's names of the encoders; no picture if ``video`` is None.
        late_s: how much later than the picture the sound begins.
        data: a file with the sound, instead of one of ``codec``.
        move_s, move_video_s: how much each packet is moved, by its time.
        options: of the container.
        spoil: whether the packet of this time is damaged so that it does not decode.
    """
    data = data or by_av("matroska", codec, 128_000)(make_bursts(SAMPLE_RATE_HZ, 2), SAMPLE_RATE_HZ)
    file = io.BytesIO()
    with (
        av.open(io.BytesIO(data)) as source,
        av.open(file, "w", format=container, container_options=options or {}) as film,
    ):
        packets = [] if video is None else _draw(film, video, video_s, move_video_s)
        stream = film.add_stream_from_template(source.streams.audio[0])
        for packet in source.demux(source.streams.audio[0]):
            if packet.dts is not None:
                time_s = float(packet.pts * packet.time_base)
                packet = _damage(packet) if spoil(time_s) else packet
                _move(packet, late_s + move_s(time_s))
                packet.stream = stream
                packets.append(packet)
        for packet in sorted(packets, key=lambda packet: float(packet.dts * packet.time_base)):
            film.mux(packet)
    return file.getvalue()


def mux_tracks(
    container: str,
    tracks: list[bytes],
    default: int | None = None,
    film: bool = True,
    options: dict[str, str] | None = None,
) -> bytes:
    """A container with the sounds of several files.

    Args:
        default: the track that it calls its default, if it calls one so. Some containers name the first otherwise.
        film: whether it has a picture.
        options: of the container.
    """
    file, packets = io.BytesIO(), list[Any]()
    with av.open(file, "w", format=container, container_options=options or {}) as target:
        if film:
            packets = _draw(target, "mpeg4", DURATION_S, lambda time_s: 0.0)
        for number, data in enumerate(tracks):
            source = av.open(io.BytesIO(data))
            stream = target.add_stream_from_template(source.streams.audio[0])
            stream.disposition = av.stream.Disposition(int(number == default))
            for packet in source.demux(source.streams.audio[0]):
                if packet.dts is not None:
                    packet.stream = stream
                    packets.append(packet)
        for packet in sorted(packets, key=lambda packet: float(packet.dts * packet.time_base)):
            target.mux(packet)
    return file.getvalue()


def _draw(film: Any, codec: str, duration_s: float, move_s: Callable[[float], float]) -> list[Any]:
    stream = film.add_stream(codec, rate=25, width=64, height=48, pix_fmt="yuv420p")
    if codec == "libvpx":  # many times faster
        stream.options = {"deadline": "realtime", "cpu-used": "8"}
    packets: list[Any] = []
    for number in range(round(25 * duration_s)):
        frame = av.VideoFrame(64, 48, "yuv420p")
        for plane in frame.planes:  # not whatever lay in memory
            plane.update(bytes(plane.buffer_size))
        frame.pts, frame.time_base = number, Fraction(1, 25)
        packets += stream.encode(frame)
    packets += stream.encode(None)
    for packet in packets:
        _move(packet, move_s(float(packet.pts * packet.time_base)))
    return packets


def _damage(packet: Any) -> Any:
    damaged = av.Packet(b"\xef" * packet.size)
    damaged.pts, damaged.dts, damaged.time_base = packet.pts, packet.dts, packet.time_base
    damaged.duration = packet.duration
    return damaged


def _move(packet: Any, by_s: float) -> None:
    ticks = round(by_s / packet.time_base)
    packet.pts, packet.dts = packet.pts + ticks, packet.dts + ticks
