"""A recording that an older version decoded in, whether a correction of its channels or streams changes it out."""

from pipeline.audio.decode import open_audio
from pipeline.audio.decoder_versions import Look
from pipeline.audio.source import Source
from pipeline.config import DecodeConfig
from pipeline.corpus.raw_formats import RawFormat


def decodes_as_before(
    source: Source, config: DecodeConfig, raw: RawFormat | None, look: Look, note: str | None
) -> bool:
    """Whether a recording has the same tracks and channels as before. Decodes its first minute at most.

    Args:
        raw: as for ``open_audio``.
        look: ``CHANNELS`` or ``STREAMS``: other streams count only if they are to be looked at.
        note: the remark on it in the index.

    Raises:
        FileFailure: it cannot be read or decoded now.
    """
    with open_audio(source, config, raw) as stream:
        stream.decide_channels()
        return stream.note == note and (look is Look.CHANNELS or stream.is_alone)
