"""The containers that are read, and how each begins and ends.

A new container also needs its extension (``corpus.extensions``), bytes per second (``corpus.corpus_file``), a line in
``decoder_versions``, and ``header_lengths`` if its header may state a wrong length.
"""

import re

from pipeline.audio.source import Bytes

FFMPEG_FORMATS = (
    "aac,ac3,aiff,amr,amrnb,amrwb,ape,asf,au,avi,caf,dsf,dts,dtshd,eac3,flac,flv,iff,ircam,loas,matroska,mlp,mov,mp3,mpc,"
    "mpc8,mpeg,mpegts,mxf,nistsphere,nut,ogg,paf,pvf,rm,sds,shn,tak,truehd,tta,voc,w64,wav,wv,xwma"
)
"""The formats that FFmpeg may open. Left out: images, text, and playlists, which would make it open further files."""

TIMED_FORMATS = frozenset(
    ["aiff", "ape", "asf", "au", "avi", "caf", "flac", "matroska,webm", "mov,mp4,m4a,3gp,3g2,mj2", "ogg", "tta"]
) | {"w64", "wav", "wv"}
"""Formats that state their duration and the time of each packet. In others, FFmpeg estimates by the bit rate."""

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


def read_ogg_end(source: Bytes) -> tuple[bool, bool]:
    """Whether the last page of an Ogg file is complete, and whether it belongs to the first stream of the file.

    Source: RFC 3533, section 6.
    """
    first_serial = source.peek(14, 4)
    longest = 27 + 255 + 255 * 255
    tail = source.peek(max(0, source.size_bytes - 2 * longest), 2 * longest)
    page = tail[max(0, tail.rfind(b"OggS")) :]
    n_segments = page[26] if len(page) > 26 else 255
    whole = len(page) >= 27 + n_segments + sum(page[27 : 27 + n_segments])
    return whole, page[14:18] == first_serial


def read_mp3_duration(source: Bytes) -> float | None:
    """The duration in the Xing, Info or VBRI header in the first frame of an mp3; None without such a header.

    Source: the MPEG frame header, and the layouts of Xing (with LAME's delay and padding) and VBRI.
    """
    begin = 0
    for _ in range(4):  # some taggers prepend another tag to an existing one
        head = source.peek(begin, 10)
        if head.startswith(b"ID3") and len(head) == 10:  # ID3v2.4, section 3.1: the size in four times seven bits
            begin += 10 + sum((byte & 0x7F) << shift for byte, shift in zip(head[6:], (21, 14, 7, 0), strict=True))
    frame = source.peek(begin, 1024)
    if len(frame) < 4 or frame[0] != 0xFF or frame[1] & 0xE6 != 0xE2:  # sync, layer III
        return None
    version, rate = frame[1] >> 3 & 3, frame[2] >> 2 & 3  # versions 2.5, reserved, 2, 1
    if version == 1 or rate == 3:
        return None
    rate_hz = (44_100, 48_000, 32_000)[rate] >> (2, 0, 1, 0)[version]
    n_frames, n_padding = 0, 0
    if (at := max(frame.find(b"Xing"), frame.find(b"Info"))) >= 0 and frame[at + 7] & 1:
        n_frames = int.from_bytes(frame[at + 8 : at + 12])
        if frame[at + 120 : at + 124] in (b"LAME", b"Lavf", b"Lavc"):
            delays = int.from_bytes(frame[at + 141 : at + 144])
            n_padding = (delays >> 12) + (delays & 0xFFF)
    elif (at := frame.find(b"VBRI")) >= 0:
        n_frames = int.from_bytes(frame[at + 14 : at + 18])
    n_samples = n_frames * (1152 if version == 3 else 576) - n_padding
    return n_samples / rate_hz if n_samples > 0 else None
