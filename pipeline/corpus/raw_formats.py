"""Sound without a header: how it is to be read follows from the extension of a file, by convention.

So the convention is part of what a file's audio is: the same bytes called ``a.g722`` and ``a.wav`` are two audios, of
which one may not even be sound. A file that begins as a container does is read as that, whatever it is called.
"""

from dataclasses import dataclass

from pipeline.corpus.shards import extension_of


@dataclass(frozen=True)
class RawFormat:
    """A convention. ``str`` of it is what identifies it (``schema.make_audio_id``): it must never change."""

    name: str
    format: str
    """FFmpeg's name of it."""
    sample_rate_hz: int

    def __str__(self) -> str:
        return f"raw={self.format},{self.sample_rate_hz}"


RAW_FORMATS = {"g722": RawFormat("G.722", "g722", 16_000), "gsm": RawFormat("GSM 06.10", "gsm", 8_000)}
"""By extension: what telephone systems write. G.722 at 64 kbit/s; GSM 06.10 full rate, frames of 33 bytes."""


def raw_format_of(recording: str) -> RawFormat | None:
    """How a recording is to be read if it has no header; None where its name does not say.

    Args:
        recording: the uri of a file; not that of a range.
    """
    return RAW_FORMATS.get(extension_of(recording))
