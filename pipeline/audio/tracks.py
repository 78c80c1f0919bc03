"""Which of several sound tracks of a container is read.

It is the first that is not silent in its first minute, nor in seconds at fixed fractions of the file. Those that the
container calls its default are listened to first, and tracks with comments, or for people who hear or see badly, last.
"""

from collections.abc import Callable
from typing import Any

import av
import av.error
import numpy as np

from pipeline.audio.channels import PROBES
from pipeline.audio.frames import join_frames
from pipeline.audio.pieces import mean_channels

_MINUTE_S = 60.0
_MOST_TRACKS = 16
"""More are not listened to: each costs a minute of decoding."""

_SILENCE = 1e-4
"""Full scale is 1. Lossy codecs turn silence into next to nothing."""

_SPECIAL = (
    av.stream.Disposition.comment | av.stream.Disposition.hearing_impaired | av.stream.Disposition.visual_impaired
)


def choose_track(container: Any, reopen: Callable[[], Any]) -> Any:
    """The sound track of a container to read: a stream, which has no decoder only if none has one.

    Args:
        reopen: opens the container once more. The tracks are listened to there.
    """
    tracks = [stream for stream in container.streams.audio if stream.codec_context is not None]
    if len(tracks) < 2:
        return tracks[0] if tracks else container.streams.audio[0]
    tracks.sort(key=_rank)
    with reopen() as other:
        heard = _find_sound(other, [track.index for track in tracks[:_MOST_TRACKS]])
    return container.streams[tracks[0].index if heard is None else heard]


def _rank(track: Any) -> tuple[bool, bool]:
    return bool(track.disposition & _SPECIAL), not track.disposition & av.stream.Disposition.default


def _find_sound(container: Any, indices: list[int]) -> int | None:
    """The first of these streams that is not silent; None if all are."""
    heard = _listen(container, indices, _MINUTE_S)
    for number in range(1, PROBES) if container.duration else ():
        if indices[0] in heard:
            break
        try:
            container.seek((container.start_time or 0) + container.duration * number // PROBES)
        except av.error.FFmpegError:
            break
        heard |= _listen(container, indices, 1.0)
    return next((index for index in indices if index in heard), None)


def _listen(container: Any, indices: list[int], duration_s: float) -> set[int]:
    """The streams with sound in what comes next. Ends early if the first one has."""
    heard: set[int] = set()
    begins_s: dict[int, float] = {}
    decoded_s = dict.fromkeys(indices, 0.0)
    try:
        for packet in container.demux([container.streams[index] for index in indices]):
            index = packet.stream_index
            if packet.dts is None or index in heard or decoded_s[index] > duration_s:
                continue
            time_s = float(packet.dts * packet.time_base)
            if time_s - begins_s.setdefault(index, time_s) > duration_s:
                break
            frames = _decode(packet)
            decoded_s[index] += sum(frame.samples / frame.sample_rate for frame in frames)
            if _has_sound(frames):
                heard.add(index)
                if index == indices[0]:
                    break
    except av.error.FFmpegError:
        pass  # reading meets the error again, and tells it
    return heard


def _decode(packet: Any) -> list[Any]:
    try:
        return list(packet.decode())
    except av.error.FFmpegError:
        return []


def _has_sound(frames: list[Any]) -> bool:
    return any(
        np.abs(mean_channels(channel[None])).max(initial=0.0) > _SILENCE
        for frame in frames
        for channel in join_frames([frame])[1]
    )
