"""A file in, the reader that suits it out: libsndfile (``soundfile_reader``) or FFmpeg (``av_reader``).

libsndfile reads the formats that it reads exactly: wav, aiff, flac and their kin. FFmpeg reads the rest: mp3, ogg,
opus, m4a, webm. The first bytes of a file decide; its name counts only if it has no header (``raw``). Both readers have
one interface: ``info``, ``pieces()``, ``close()``, and ``trouble`` once the pieces are exhausted.
"""

from typing import BinaryIO, cast

import soundfile

from pipeline.audio.av_reader import AvReader
from pipeline.audio.containers import begins_as_audio, begins_exact, find_joined_flac, is_short_vorbis
from pipeline.audio.header_lengths import View
from pipeline.audio.mpeg_tags import skip_tags
from pipeline.audio.soundfile_reader import SoundfileReader
from pipeline.audio.source import Bytes
from pipeline.corpus.raw_formats import RawFormat


def open_reader(source: Bytes, raw: RawFormat | None = None) -> "SoundfileReader | AvReader":
    """The reader that suits the beginning of a file.

    Args:
        raw: how to read it if it does not begin like a container.

    Raises:
        FileFailure: ``not_audio``, ``no_audio_stream``, ``unsupported`` or ``decode_error``.
    """
    headerless = find_raw(source, raw)
    reader = None if headerless else open_exact(source)
    if reader is None:
        return AvReader(source if headerless else first_flac(source), headerless)
    reader.listen()
    return reader


def open_exact(source: Bytes) -> SoundfileReader | None:
    """libsndfile's reader, if it suits the beginning of a file. It has not listened to the channels yet."""
    # In a single page of vorbis, FFmpeg misplaces the end by up to 20 ms.
    if begins_exact(source) or is_short_vorbis(source):
        try:
            reader = SoundfileReader(source)
        except soundfile.LibsndfileError:
            return None
        # libsndfile silently loses parts of MPEG audio inside a wav, and finds no end of a flac of unknown length.
        if "mpeg" not in reader.info.codec and (reader.n_samples or reader.info.codec != "flac"):
            return reader
        reader.close()
    return None


def first_flac(source: Bytes, begin: int = 0) -> Bytes:
    """The first of several FLAC files that were joined into one; other files as they are.

    libsndfile reads the first one only, and FFmpeg repeats sound where one of another rate follows.

    Args:
        begin: where to begin to look for the second one. From there on, all of a FLAC is read.
    """
    position = source.tell()
    end = find_joined_flac(source, begin) if source.peek(0, 4) == b"fLaC" else None
    source.seek(position)
    return source if end is None else cut_out(source, 0, end)


def cut_out(source: Bytes, begin: int, end: int) -> Bytes:
    """A part of a file."""
    return Bytes(cast(BinaryIO, View(source, begin, end - begin)))


def without_tag(source: Bytes) -> Bytes:
    """The file behind an ID3v2 tag, if it is then one that libsndfile reads; else the file itself."""
    begin = skip_tags(source)
    if not 0 < begin < source.size_bytes:
        return source
    behind = cut_out(source, begin, source.size_bytes)
    return behind if begins_exact(behind) else source


def find_raw(source: Bytes, raw: RawFormat | None) -> RawFormat | None:
    """``raw`` if a file can have no header: it does not begin like a container, and GSM begins with its mark."""
    if raw is None or begins_as_audio(source):
        return None
    first_bytes = source.peek(0, 4 * _GSM_FRAME_BYTES)[::_GSM_FRAME_BYTES]
    return raw if raw.format != "gsm" or all(byte >> 4 == _GSM_MARK for byte in first_bytes) else None


_GSM_FRAME_BYTES, _GSM_MARK = 33, 0xD
"""The size of a frame of 20 ms, and the four bits that each frame begins with (RFC 3551, section 4.5.8)."""
