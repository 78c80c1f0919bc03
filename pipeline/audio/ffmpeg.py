"""FFmpeg (through PyAV), with its decoders and formats restricted, and silent."""

from collections.abc import Iterator
from typing import Any

import av
from av.codec.codec import codecs_available

from pipeline.audio.containers import FFMPEG_FORMATS
from pipeline.corpus.raw_formats import RawFormat

av.logging.set_level(None)  # FFmpeg would write its complaints to stderr; Earshot makes them rows


def _list_audio_decoders() -> Iterator[str]:
    for name in codecs_available:
        try:
            codec = av.Codec(name, "r")
        except av.codec.codec.UnknownCodecError:  # FFmpeg has only an encoder of this name
            continue
        if codec.type == "audio":
            yield codec.name


_AUDIO_DECODERS = ",".join(sorted(_list_audio_decoders()))
"""The decoders that FFmpeg may use. It would otherwise decode cover pictures and films while it opens a file: a picture
of 16,000 x 16,000 takes 2 GB and 20 s."""


def open_container(file: Any, raw: RawFormat | None = None) -> Any:
    """Open a file of sound, a film or a container with both.

    Args:
        file: with ``read``, ``seek`` and ``tell``.
        raw: how to read it if it has no header.

    Raises:
        av.error.FFmpegError
    """
    return av.open(
        file,
        "r",
        format=raw and raw.format,
        container_options={
            "format_whitelist": raw.format if raw else FFMPEG_FORMATS,
            "codec_whitelist": _AUDIO_DECODERS,
        },
        metadata_errors="ignore",
        buffer_size=1 << 16,
    )
