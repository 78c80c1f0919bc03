"""The containers that are read, and how each begins and ends.

A new container also needs its extension (``corpus.extensions``), bytes per second (``corpus.corpus_file``), a line in
``decoder_versions``, and ``header_lengths`` if its header may state a wrong length.
"""

import re
from collections.abc import Callable, Mapping

from pipeline.audio.header_lengths import is_cut_asf, is_cut_caf, read_dsf_duration, read_flv_duration
from pipeline.audio.source import Bytes

FFMPEG_FORMATS = (
    "aac,ac3,aiff,amr,amrnb,amrwb,ape,asf,au,avi,caf,dsf,dts,dtshd,eac3,flac,flv,iff,ircam,loas,matroska,mlp,mov,mp3,mpc,"
    "mpc8,mpeg,mpegts,mxf,nistsphere,nut,ogg,paf,pvf,rm,sds,shn,tak,truehd,tta,voc,w64,wav,wv,xwma"
)
"""The formats that FFmpeg may open. Left out: images, text, and playlists, which would make it open further files."""

MP4, MATROSKA = "mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm"
"""FFmpeg's names of these. Others are called like their extension."""

TIMED_FORMATS = frozenset(["aiff", "ape", "asf", "au", "avi", "caf", "flac", MATROSKA, MP4, "ogg", "tta"])
TIMED_FORMATS |= {"w64", "wav", "wv"}
"""Formats that state their duration. In others, FFmpeg estimates it by the bit rate."""

CLOCKED_FORMATS = (TIMED_FORMATS - {"avi"}) | {"flv", "mpeg", "mpegts", "nut", "rm"}
"""Formats that state the time of each packet; avi counts chunks."""

SPLICED_FORMATS = frozenset(["mpegts", "mpeg"])
"""Formats whose clock a recorder may set anew in the middle. It also begins again after 26.5 hours: FFmpeg then gives
what comes before a time below zero."""

FILM_LONG_FORMATS = frozenset(["asf"])
"""Formats that state how long the film is, from its beginning on; its sound may end before."""

CHECKED_ENDS: Mapping[str, Callable[[Bytes], bool]] = {"asf": is_cut_asf, "caf": is_cut_caf}
"""Formats of which FFmpeg does not tell whether they are cut off."""

OWN_DURATIONS: Mapping[str, Callable[[Bytes], float | None]] = {"flv": read_flv_duration, "dsf": read_dsf_duration}
"""Formats of which FFmpeg gives a guess where the header states no duration, or the file is cut off."""

BARE_FORMATS = frozenset(["aac", "ac3", "dts", "dtshd", "eac3", "loas", "mlp", "mp3", "truehd"])
"""Formats that are nothing but frames, one behind the other."""

_EXACT = re.compile(
    rb"(?:RIFF|RIFX|RF64|BW64).{4}WAVE|FORM.{4}(?:AIF[FC]|8SVX|16SV)|fLaC|\.snd|dns\.|caff|riff\x2e\x91\xcf\x11"
    rb"|Creative Voice File|NIST_1A",
    re.DOTALL,
)
_OTHER = re.compile(
    rb"ID3|OggS|.{4}(?:ftyp|moov|mdat|wide|free|skip)|\x1a\x45\xdf\xa3|RIFF.{4}AVI |FLV\x01|#!AMR"
    rb"|\x30\x26\xb2\x75\x8e\x66\xcf\x11|wvpk|MAC |TTA[12]|MPCK|MP\+|\x7f\xfe\x80\x01|DSD |FRM8",
    re.DOTALL,
)


_SCANNED_BYTES = 1 << 16


def begins_exact(source: Bytes) -> bool:
    """Whether a file begins like a format whose samples libsndfile counts exactly: wav, aiff, flac and kin."""
    return _EXACT.match(source.peek(0, 64)) is not None


def is_short_vorbis(source: Bytes) -> bool:
    """Whether an Ogg Vorbis file has a single page of sound after two pages of headers, less than 200 kB in all."""
    head = source.peek(0, min(source.size_bytes, 200_000))
    return source.size_bytes == len(head) and head[28:35] == b"\x01vorbis" and head.count(b"OggS") <= 3


def begins_as_audio(source: Bytes) -> bool:
    """Whether a file begins like audio or video: tells a broken recording from a file of another kind."""
    head = source.peek(0, 64)
    return _EXACT.match(head) is not None or _OTHER.match(head) is not None


_OGG_LINK = re.compile(rb"OggS\0[\x02\x06]")
_FLAC_LINK = re.compile(rb"fLaC[\0\x80]\0\0\x22")


def find_next_link(source: Bytes, at: int) -> int | None:
    """Where the next link of chained Ogg begins behind ``at``; None if there is none. Source: RFC 3533, section 4."""
    return _find(source, at + 1, _OGG_LINK, 6)


def find_joined_flac(source: Bytes, at: int) -> int | None:
    """Where another FLAC file begins behind ``at``; None if there is none. Source: RFC 9639, section 8."""
    return _find(source, at + 1, _FLAC_LINK, 8)


def _find(source: Bytes, at: int, mark: re.Pattern[bytes], mark_bytes: int) -> int | None:
    while len(block := source.peek(at, _SCANNED_BYTES)) >= mark_bytes:
        if found := mark.search(block):
            return at + found.start()
        at += len(block) - mark_bytes + 1
    return None
