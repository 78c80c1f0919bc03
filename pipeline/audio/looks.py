"""Tells whether a correction of channels or streams changes a recording that an older version decoded."""

from pipeline.audio.decode import open_audio
from pipeline.audio.decoder_versions import Look
from pipeline.audio.source import Source
from pipeline.audio.timeline import JUMPS_NOTE
from pipeline.config import DecodeConfig
from pipeline.corpus.raw_formats import RawFormat


def decodes_as_before(
    source: Source, config: DecodeConfig, raw: RawFormat | None, look: Look, note: str | None
) -> bool:
    """Whether a recording has the same tracks and channels as before. Decodes its first minute at most.

    Args:
        raw: as for ``open_audio``.
        look: ``CHANNELS`` or ``STREAMS``: other streams count only if they are to be looked at.
        note: the remark on it in the index. What it says of the clock is not compared: only a whole decode tells it.

    Raises:
        FileFailure: it cannot be read or decoded now.
    """
    with open_audio(source, config, raw) as stream:
        stream.decide_channels()
        return _of_channels(stream.note) == _of_channels(note) and (look is Look.CHANNELS or stream.is_alone)


def _of_channels(note: str | None) -> list[str]:
    """What a remark says of tracks and channels."""
    return [part for part in (note or "").split("; ") if part and not part.startswith(JUMPS_NOTE)]
