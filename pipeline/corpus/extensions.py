"""Which files count as audio, by the extension of their name."""

from pipeline.config import CorpusConfig
from pipeline.corpus.raw_formats import RAW_FORMATS
from pipeline.corpus.shards import extension_of

_EXTENSIONS = (
    "wav wave bwf rf64 w64 flac ogg oga opus spx mp3 mp2 mpga m4a m4b m4r aac adts loas latm webm weba mka"
    " aif aiff aifc au snd caf voc sd2 8svx svx pvf sph nist ircam"
    " wma xwma amr awb ape wv tta tak shn alac dsf dff mpc mp+ ra rm"
    " ac3 ec3 eac3 dts dtshd mlp thd truehd"
    " mp4 m4v mov 3gp 3g2 mkv avi wmv asf flv f4v mpg mpeg m2ts vob mxf ogv ogx rmvb"
)
AUDIO_EXTENSIONS = frozenset([*_EXTENSIONS.split(), *RAW_FORMATS])
"""The extensions that count as audio in folders, unless ``corpus.extensions`` names others: those the decoders read.

Extensions that mostly mean something else are left out, since each such file would become a failure: ``ts`` and ``mts``
(TypeScript, translations), ``raw`` and ``iff`` (pictures), ``mpp`` (Microsoft Project), ``sf``, ``paf``, ``nut``,
``dat``. Such files are counted as ignored, and ``corpus.extensions`` can name them.
"""


def is_audio(path: str, config: CorpusConfig) -> bool:
    """Whether a file counts as audio, by its extension."""
    wanted = AUDIO_EXTENSIONS if config.extensions is None else config.extensions
    return "*" in wanted or extension_of(path) in wanted
