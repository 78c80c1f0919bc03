"""The corrections to decoding, version by version: they tell which files of an index decode differently now.

``files.decoder`` holds the version that decoded a file (none: 1), or the newest one that would decode it alike. A later
version that concerns the file makes the next run decode and encode it again, though its bytes are the same. A ledger
row often leaves open whether the file decodes differently: then the run examines the file first (``Look``). At its end,
rows that no later version concerns get the newest one. To correct how some files decode, change the decoder and add a
line to ``CORRECTIONS``.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache
from itertools import takewhile
from typing import Any

from pipeline.audio.limits import most_seconds
from pipeline.audio.timeline import TRACKS_NOTE
from pipeline.corpus.extensions import AUDIO_EXTENSIONS
from pipeline.corpus.raw_formats import RAW_FORMATS, raw_format_of
from pipeline.corpus.shards import extension_of
from pipeline.corpus.time_ranges import split_uri


class Look(IntEnum):
    """What of a file must be looked at to see whether it decodes as before.

    A file that gets another note, as on its tracks or channels, counts as decoded differently.
    """

    CHANNELS = 1
    """How its channels are mixed: opening it, and a minute of its sound at most, tell."""
    STREAMS = 2
    """Whether it has other streams of sound or picture, too."""
    LENGTH = 3
    """How long its sound is, and how its channels are mixed: all of it is decoded."""
    ALL = 4
    """All of these."""


@dataclass(frozen=True)
class Correction:
    """A correction that changes the samples of some files."""

    version: int
    what: str
    """The correction, with the files as subject: "G.722 without a header are read by their extension"."""
    concerns: Callable[[Mapping[str, Any]], bool]
    """Whether it may change a file that an older version decoded; takes the ``COLUMNS`` of its ledger row."""
    look: Look = Look.LENGTH
    """What tells of an indexed file whether it does."""


COLUMNS = (
    *("uri", "status", "stage", "reason", "codec", "channels", "decoder"),
    *("duration_s", "expected_duration_s", "size_bytes", "note"),
)
"""The columns of a ledger row that ``concerns`` may use."""

_MAY_BE_RAW = re.compile("|".join(rf"\.{extension}" for extension in RAW_FORMATS), re.IGNORECASE)


@lru_cache(maxsize=1)  # many corrections ask for one row after the other
def _read_name(uri: str) -> tuple[str, bool]:
    """The extension of a file, and whether it is a range of a recording."""
    recording, time_range = split_uri(uri)
    return extension_of(recording), bool(time_range)


def _has_no_header(row: Mapping[str, Any]) -> bool:
    """Whether the name of a file says how to read it. The URI may name a range of the file."""
    if not _MAY_BE_RAW.search(row["uri"]):  # rules out nearly all of millions
        return False
    return any(raw_format_of(recording) for recording in (row["uri"], split_uri(row["uri"])[0]))


def _may_be_named(row: Mapping[str, Any], extensions: frozenset[str]) -> bool:
    """Whether the name of a file allows a container: by its extension, or by one that says nothing or is wrong.

    Without an extension, as in tables of audio, nearly all mp3, flac and pcm is in a file of its own.
    """
    extension, codec = _read_name(row["uri"])[0], row["codec"]
    is_plain = codec is None or codec in ("mp3", "flac") or codec.startswith("pcm")
    return extension in extensions or (extension not in AUDIO_EXTENSIONS and not is_plain) or _is_misnamed(row)


def _is_misnamed(row: Mapping[str, Any]) -> bool:
    """Whether a file of audio has an extension that does not fit its codec: the first bytes tell how it is read."""
    fitting = _FITTING.get(row["codec"] or "")
    if fitting is None:
        return False
    extension = _read_name(row["uri"])[0]
    return extension in AUDIO_EXTENSIONS and extension not in fitting


def _was_refused(row: Mapping[str, Any]) -> bool:
    return bool(row["reason"] == "decode_error" and row["codec"] is None)


def _is_mpeg(row: Mapping[str, Any]) -> bool:
    """Whether a file is indexed mp3 or ADTS."""
    if row["status"] != "indexed":
        return False
    is_adts = row["codec"] == "aac" and _read_name(row["uri"])[0] in ("aac", "adts")
    return is_adts or row["codec"] in ("mp2", "mp3")


def _is_mpeg_with_more_at_its_end(row: Mapping[str, Any]) -> bool:
    """Whether there may be a tag behind the frames. Where no duration is stated, the row does not tell."""
    if not _is_mpeg(row):
        return False
    duration_s, expected_s = row["duration_s"], row["expected_duration_s"]
    if expected_s is None or duration_s is None:
        return True
    return bool(row["reason"] == "truncated" or duration_s - expected_s > 1e-4)


_BLOCK_CODECS = frozenset(["ms_adpcm", "ima_adpcm", "gsm610", "nms_adpcm_16", "nms_adpcm_24", "nms_adpcm_32"])

_MATROSKA = frozenset(["mkv", "webm", "weba", "mka"])
_FILMS = _MATROSKA | {"mp4", "m4v", "mov", "3gp", "3g2", "wmv", "asf", "flv", "f4v", "mpg", "mpeg", "m2ts", "vob"}
_FILMS |= {"ogv", "ogx", "ts", "mts", "nut"}
_OTHER_FILMS = frozenset(["avi", "mxf", "rmvb"])  # nothing but their tracks is read in another way


_OGG = frozenset(["ogg", "oga", "opus", "spx", "ogv", "ogx"])
_MP4_SOUND = frozenset(["m4a", "m4b", "m4r"])
_ANY_FILM = _FILMS | _OTHER_FILMS | _MP4_SOUND | {"caf"}
_WMA = _ANY_FILM | {"wma", "xwma"}
_FITTING = {
    "aac": _ANY_FILM | {"aac", "adts", "loas", "latm", "rm", "ra"},
    "opus": _ANY_FILM | _OGG,
    "vorbis": _ANY_FILM | _OGG,
    "ac3": _ANY_FILM | {"ac3", "rm", "ra"},
    "eac3": _ANY_FILM | {"ac3", "ec3", "eac3"},
    **dict.fromkeys(["wmav1", "wmav2", "wmapro", "wmalossless", "wmavoice"], _WMA),
}
"""The extensions that name a container of a codec, of the codecs that several containers share. Not here: mp3, flac and
pcm, since nearly all of it is in a file of its own."""

_OPUS_DELAY_S = 0.0065
_COUNTING_BLOCKS = frozenset(["avi", "caf"])


def _has_sound(row: Mapping[str, Any]) -> bool:
    """Whether something of the recording decoded: a range beyond the end that was found then may be within it now."""
    return bool(row["status"] == "indexed" or row["reason"] == "out_of_range")


def _is_in_film(row: Mapping[str, Any]) -> bool:
    if not _has_sound(row) or not _may_be_named(row, _FILMS):
        return False
    extension, is_range = _read_name(row["uri"])
    # Matroska states the duration of a file that has sound only: nothing in it is placed in another way. The expected
    # duration of a range tells nothing about its recording.
    is_simple = row["expected_duration_s"] is not None and row["reason"] is None and not is_range
    return not (is_simple and extension in _MATROSKA)


def _may_have_tracks(row: Mapping[str, Any]) -> bool:
    return _is_in_film(row) or (_has_sound(row) and _may_be_named(row, _OTHER_FILMS))


def _may_be_chained(row: Mapping[str, Any]) -> bool:
    is_short = row["reason"] in ("truncated", "out_of_range")
    return is_short and row["codec"] in ("vorbis", "opus", "speex") and _may_be_named(row, _OGG)


def _may_be_late_opus(row: Mapping[str, Any]) -> bool:
    """Whether FFmpeg may have left some of the delay that Matroska's duration includes: 6.5 ms with its encoder."""
    if row["codec"] != "opus" or row["duration_s"] is None or not _may_be_named(row, _MATROSKA):
        return False
    expected_s = row["expected_duration_s"]
    return expected_s is None or expected_s - row["duration_s"] < _OPUS_DELAY_S


def _promised_too_much(row: Mapping[str, Any]) -> bool:
    is_truncated = row["reason"] == "truncated"
    if row["codec"] in ("flac", "alac") and _may_be_named(row, _COUNTING_BLOCKS):
        duration_s, expected_s = row["duration_s"], row["expected_duration_s"]
        return is_truncated or bool(duration_s and expected_s and expected_s - duration_s > 1e-4)
    return is_truncated and row["codec"] == "opus" and _may_be_named(row, _OGG)


def _may_have_pauses(row: Mapping[str, Any]) -> bool:
    if row["codec"] not in ("amr_nb", "amr_wb"):
        return False
    duration_s, expected_s = row["duration_s"], row["expected_duration_s"]
    has_all = duration_s and expected_s and row["reason"] is None and expected_s - duration_s < _AMR_FRAME_S
    return not has_all or _read_name(row["uri"])[1]


_AMR_FRAME_S = 0.02


def _may_have_lost_time(row: Mapping[str, Any]) -> bool:
    if not _has_sound(row):
        return False
    if row["codec"] == "vorbis" and _may_be_named(row, frozenset(["avi"])):
        return True
    is_short = row["reason"] in ("truncated", "out_of_range")
    is_open = row["expected_duration_s"] is None and _may_be_named(row, _FILMS)
    return is_open or (is_short and _may_be_named(row, _FILMS | _OGG))


_MPEG_AND_RM = frozenset(["ts", "mts", "m2ts", "mpg", "mpeg", "vob", "rm", "ra", "rmvb"])


def _may_lie_elsewhere(row: Mapping[str, Any]) -> bool:
    if row["codec"] == "flac" and row["expected_duration_s"] is not None and row["duration_s"] is not None:
        return bool(_has_sound(row) and row["duration_s"] - row["expected_duration_s"] > 1e-4)
    return _has_sound(row) and _may_be_named(row, _MPEG_AND_RM)


_STREAMS_SINCE = 10


def _may_be_film(row: Mapping[str, Any]) -> bool:
    """Whether a file that is usually plain sound may have several tracks, or a picture beside its sound."""
    is_old = (row["decoder"] or 1) < _STREAMS_SINCE  # later versions read these as films
    return is_old and _has_sound(row) and _may_be_named(row, _RARE_FILMS) and not _is_misnamed(row)  # see version 22


_RARE_FILMS = _MP4_SOUND | {"ogg", "oga", "wma"}


def _may_be_unforeseen_film(row: Mapping[str, Any]) -> bool:
    """Whether a file may be a film though earlier lists of extensions left it out, and gave it a newer version."""
    return _has_sound(row) and _read_name(row["uri"])[0] in ("wma", "m4r") and not _is_misnamed(row)


def _may_be_unforeseen_and_moved(row: Mapping[str, Any]) -> bool:
    """Whether the sound of such a file may lie elsewhere, or that of one with a wrong name: the length tells."""
    is_open = row["expected_duration_s"] is None or row["reason"] in ("truncated", "out_of_range")
    return _has_sound(row) and (_is_misnamed(row) or (is_open and _may_be_unforeseen_film(row)))


def _is_stereo(row: Mapping[str, Any]) -> bool:
    return bool(row["status"] == "indexed" and row["channels"] == 2)


def _may_be_like_chain(row: Mapping[str, Any]) -> bool:
    """Whether an Ogg file may be a chain: its header states no duration then."""
    return _has_sound(row) and row["expected_duration_s"] is None and _may_be_named(row, _OGG)


def _may_be_joined(row: Mapping[str, Any]) -> bool:
    """Whether FLAC may be joined though the ledger does not say that it is longer than its header states."""
    if row["codec"] != "flac":
        return False
    return bool(row["reason"] == "out_of_range" or (_has_sound(row) and row["expected_duration_s"] is None))


_UNTIMED = frozenset(["ac3", "ec3", "eac3", "dts", "dtshd", "thd", "truehd", "mlp"])
_UNTIMED_CODECS = frozenset(["ac3", "eac3", "dts", "truehd", "mlp"])
_UNTOLD_S = 0.08
"""Three packets of mp3. Where fewer are missing, no version tells it."""

_LOSSES_SINCE = 15


def _may_hide_damage(row: Mapping[str, Any]) -> bool:
    """Whether damage may be left out that no packet's time shows. No sound but the reason in the ledger differs: of
    ranges, which would have to be encoded again, it stays as it is."""
    if row["status"] != "indexed" or _read_name(row["uri"])[1]:
        return False
    if not _is_mpeg(row):
        return row["codec"] in _UNTIMED_CODECS and _may_be_named(row, _UNTIMED)
    duration_s, expected_s = row["duration_s"], row["expected_duration_s"]
    if row["reason"] == "truncated" or expected_s is None or duration_s is None:
        return row["reason"] == "truncated" or (row["decoder"] or 1) < _LOSSES_SINCE
    return bool(expected_s - duration_s > _UNTOLD_S)


def _may_be_too_long(row: Mapping[str, Any]) -> bool:
    """Whether a file has more sound than its bytes can mean, or a range failed for what was read before it."""
    if row["reason"] == "too_long":
        return _read_name(row["uri"])[1]
    if row["status"] != "indexed" or row["size_bytes"] is None or row["duration_s"] is None:
        return False
    return bool(row["duration_s"] > most_seconds(row["size_bytes"]))


_IN_OGG = frozenset(["vorbis", "opus", "speex", "flac"])


def _may_end_before_its_picture(row: Mapping[str, Any]) -> bool:
    """Whether Ogg may have got the duration of its picture, or none. Ranges would have to be encoded again: most of
    them stay as they are."""
    if row["status"] != "indexed" or row["codec"] not in _IN_OGG or not _may_be_named(row, _OGG):
        return False
    is_open = row["expected_duration_s"] is None and not _read_name(row["uri"])[1]
    return bool(is_open or row["reason"] == "truncated")


def _has_tracks(row: Mapping[str, Any]) -> bool:
    return bool(row["note"] and TRACKS_NOTE in row["note"])


def _may_have_many_links(row: Mapping[str, Any]) -> bool:
    """Whether FLAC may be joined from more files than were read: the rest was lost, and told so."""
    if row["codec"] != "flac":
        return False
    is_range, duration_s, expected_s = _read_name(row["uri"])[1], row["duration_s"], row["expected_duration_s"]
    is_longer = expected_s is None or (duration_s is not None and duration_s > expected_s)
    is_short = row["status"] == "indexed" and row["reason"] == "truncated" and (is_longer or is_range)
    return bool(is_short or row["reason"] == "out_of_range")


def _may_be_late_flac(row: Mapping[str, Any]) -> bool:
    """Whether FLAC in Ogg may begin late: its first second was at zero, and the rest told as behind a gap, or
    promised. Ranges do not tell."""
    is_told = row["reason"] is not None or _read_name(row["uri"])[1]
    return row["codec"] == "flac" and is_told and _has_sound(row) and _may_be_named(row, _OGG)


_OTHER_CLOCKS = _FILMS - {"ts", "mts", "m2ts", "mpg", "mpeg", "vob"}
_SPLICE_S, _HOUR_S = 10.0, 3_600.0


def _may_have_false_lead(row: Mapping[str, Any]) -> bool:
    """Whether a jump of the clock before the sound may have been taken for silence: of ten seconds in MPEG, else of
    more than an hour."""
    if not _has_sound(row) or not _may_be_named(row, _FILMS):
        return False
    extension, is_range = _read_name(row["uri"])
    may_splice = extension not in _OTHER_CLOCKS
    if is_range or row["duration_s"] is None:
        return may_splice
    return row["expected_duration_s"] is None and bool(row["duration_s"] > (_SPLICE_S if may_splice else _HOUR_S))


_STATED_BY_THEMSELVES = frozenset(["flv", "dsf"])
_NOT_BARE = frozenset(["mxf", "mpc", "tak"])


def _may_be_called_otherwise(row: Mapping[str, Any]) -> bool:
    """Whether a file may be cut off without a word, or healthy and called damaged. Its sound is the same: ranges stay
    as they are."""
    extension, is_range = _read_name(row["uri"])
    if is_range or row["status"] != "indexed":
        return False
    is_open = extension in _STATED_BY_THEMSELVES and row["expected_duration_s"] is None
    return is_open or (extension in _NOT_BARE and row["reason"] == "truncated")


def _may_cancel_late(row: Mapping[str, Any]) -> bool:
    """Whether silence that fills a gap may have decided on the channels."""
    return _is_stereo(row) and (_may_have_tracks(row) or _may_be_like_chain(row) or row["reason"] == "truncated")


CORRECTIONS: tuple[Correction, ...] = (
    Correction(2, "G.722 and GSM without a header are read by their extension", _has_no_header),
    Correction(3, "a tag behind the last frame of an mp3 or ADTS file is not decoded", _is_mpeg_with_more_at_its_end),
    Correction(4, "a tag before a wav, unpadded chunks and codecs without a readable tag are understood", _was_refused),
    Correction(5, "compressed wav ends where its header says", lambda row: row["codec"] in _BLOCK_CODECS),
    Correction(6, "AMR keeps the time of its pauses", _may_have_pauses),
    Correction(
        7, "Ogg Opus that begins late, and lossless sound in avi and caf, is not called truncated", _promised_too_much
    ),
    Correction(8, "sound in films begins where the film does, and gaps become silence", _is_in_film),
    Correction(9, "opus of low rates in webm begins without its encoder's delay", _may_be_late_opus),
    Correction(10, "the default one of several sound tracks is read, unless it is silent", _may_have_tracks),
    Correction(11, "all links of chained Ogg are read", _may_be_chained),
    Correction(
        12, "gaps in thin, live and chained sound become silence, and vorbis in avi gains none", _may_have_lost_time
    ),
    Correction(13, "channels that cancel each other are not mixed", _is_stereo, Look.CHANNELS),
    Correction(14, "m4a with several tracks and ogg with a picture are read as films are", _may_be_film, Look.STREAMS),
    Correction(15, "rm has times, clocks of MPEG may begin again, and all of joined FLAC is read", _may_lie_elsewhere),
    Correction(16, "gaps in a chain of like links of Ogg become silence", _may_be_like_chain),
    Correction(17, "joined FLAC is also read whole without a stated length, and by ranges", _may_be_joined),
    Correction(18, "damage is told where packets have no times", _may_hide_damage),
    Correction(
        19, "more sound than its bytes can mean is refused, and of a range its own length counts", _may_be_too_long
    ),
    Correction(20, "tracks are listened to everywhere in a film that begins late", _has_tracks, Look.CHANNELS),
    Correction(21, "silence in the longest blocks of FLAC is read", lambda row: row["reason"] == "too_long"),
    Correction(22, "films named like other sound are read as films", _may_be_unforeseen_and_moved),
    Correction(23, "wma and m4r with several tracks are read as films are", _may_be_unforeseen_film, Look.STREAMS),
    Correction(24, "Ogg with a picture lasts as long as its sound", _may_end_before_its_picture),
    Correction(25, "FLAC joined from hundreds of files is read whole", _may_have_many_links),
    Correction(26, "FLAC in Ogg that begins late lies where its pages say", _may_be_late_flac, Look.ALL),
    Correction(27, "jumps of the clock before the sound of a film are no silence", _may_have_false_lead),
    Correction(28, "flv and dsf that are cut off, and mxf that is whole, are called so", _may_be_called_otherwise),
    Correction(29, "channels that cancel each other behind a long gap are not mixed", _may_cancel_late, Look.CHANNELS),
)
DECODER = max((correction.version for correction in CORRECTIONS), default=1)
"""The version that this code decodes with."""


def find_correction(row: Mapping[str, Any], corrections: Sequence[Correction] = CORRECTIONS) -> Correction | None:
    """The newest correction that concerns the file of a ledger row and is newer than its decoder, if there is one."""
    return next(_concerning(row, corrections), None)


def find_look(row: Mapping[str, Any], corrections: Sequence[Correction] = CORRECTIONS) -> Look | None:
    """What to look at to see whether an indexed file decodes differently; None if no correction concerns it."""
    return join_looks({correction.look for correction in _concerning(row, corrections)})


def join_looks(looks: Set[Look]) -> Look | None:
    """What includes all of these; None if there are none."""
    return Look.ALL if looks >= {Look.STREAMS, Look.LENGTH} else max(looks, default=None)


def _concerning(row: Mapping[str, Any], corrections: Sequence[Correction]) -> Iterator[Correction]:
    version = row["decoder"] or 1
    newer = takewhile(lambda each: each.version > version, reversed(corrections))
    return (each for each in newer if each.concerns(row))
