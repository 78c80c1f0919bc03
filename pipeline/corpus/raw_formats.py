"""Raw formats: audio without a header, whose extension tells by convention how to read it.

The convention is therefore part of the identity of the audio: the same bytes named ``a.g722`` and ``a.wav`` are two
audios. A file that begins like a container is read as that container, whatever its name.
"""

from dataclasses import dataclass

from pipeline.corpus.shards import extension_of


@dataclass(frozen=True)
class RawFormat:
    """A convention. Its ``str`` is part of audio ids (``schema.make_audio_id``) and must never change."""

    name: str
    format: str
    """FFmpeg's name for it."""
    sample_rate_hz: int

    def __str__(self) -> str:
        return f"raw={self.format},{self.sample_rate_hz}"


RAW_FORMATS = {"g722": RawFormat("G.722", "g722", 16_000), "gsm": RawFormat("GSM 06.10", "gsm", 8_000)}
"""By extension: the formats of telephone systems. G.722 at 64 kbit/s; GSM 06.10 full rate, frames of 33 bytes."""


def raw_format_of(recording: str) -> RawFormat | None:
    """How to read a recording that has no header; None if its extension does not tell.

    Args:
        recording: the uri of a file, not of a time range.
    """
    return RAW_FORMATS.get(extension_of(recording))
