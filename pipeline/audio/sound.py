"""The bytes of a sound in, its mono samples out: the readers that one file may need, one after the other.

FFmpeg goes on where libsndfile fails. Several FLAC files that were joined into one are read one by one: libsndfile
reads the first one only, and FFmpeg repeats sound where one of another rate follows.
"""

import math
from collections.abc import Iterator

from pipeline.audio.av_reader import AvReader
from pipeline.audio.damage import Damage
from pipeline.audio.pieces import Piece
from pipeline.audio.readers import cut_out, first_flac, open_reader
from pipeline.audio.soundfile_reader import SoundfileReader
from pipeline.audio.source import Bytes
from pipeline.corpus.raw_formats import RawFormat
from pipeline.errors import FileFailure

MOST_JOINED = 10_000
"""FLAC files that are read behind the first one. A recorder that joins those of ten seconds makes 8,640 a day."""


class Sound:
    """A sound and its present reader. ``trouble`` tells what is wrong with it, once its pieces are exhausted."""

    def __init__(self, source: Bytes, raw: RawFormat | None) -> None:
        self.reader = open_reader(source, raw)
        self.trouble: str | None = None
        self._unplaced: str | None = None  # a trouble of which `_damage` does not tell where it lies
        self._damage = Damage()
        self._whole = self._source = source
        self._begin = 0  # where the present one of joined FLAC files begins
        self._begin_s = 0.0

    def describe_range(self, first_s: float, stop_s: float | None) -> str | None:
        """What is wrong with a range of the sound, once it is decoded.

        Args:
            stop_s: None: the end of the sound.
        """
        if stop_s is None:
            return self._damage.describe(first_s, math.inf) or self._unplaced
        return self._damage.describe(first_s, stop_s)

    @property
    def is_joined(self) -> bool:
        """Whether another FLAC follows the one that the header describes. Reads all of a FLAC."""
        return first_flac(self._source) is not self._source

    def pieces(self, *, exactly: bool) -> Iterator[Piece]:
        """The samples at their own rate, from where the reader is.

        Args:
            exactly: raise a failure where libsndfile fails.
        """
        at_s = self.reader.n_read / self.reader.info.sample_rate_hz if isinstance(self.reader, SoundfileReader) else 0.0
        for rate_hz, mono in self._read_one(exactly=exactly):
            at_s += len(mono) / rate_hz
            yield rate_hz, mono
        for _ in range(MOST_JOINED):
            if (size_bytes := self._find_behind()) is None:
                return
            trouble, unplaced, mixer = self.trouble, self._unplaced, self.reader.mixer
            self.reader.close()
            self._begin += size_bytes
            self._begin_s = at_s
            # From the whole file: a part of a part of a part would be read through as many layers.
            self._source = cut_out(self._whole, self._begin, self._whole.size_bytes)
            try:
                self.reader = open_reader(self._source)
            except FileFailure as failure:
                self._add_trouble(f"what is joined to it cannot be read: {failure.message}")
                return
            self.reader.mixer, info = mixer, self.reader.info
            missing_s = info.expected_duration_s or 0.0
            for rate_hz, mono in self._read_one(exactly=False):
                missing_s -= len(mono) / rate_hz
                at_s += len(mono) / rate_hz
                yield rate_hz, mono
            if missing_s > info.tolerance_s:
                missing = f"{missing_s:.3f} s are missing of what is joined to it"
                trouble, unplaced = trouble or missing, unplaced or missing
            self.trouble, self._unplaced = trouble or self.trouble, unplaced or self._unplaced
        if self._find_behind() is not None:
            self._add_trouble(f"only {MOST_JOINED:,} of the FLAC files that are joined to it are read")

    def _add_trouble(self, message: str) -> None:
        """Note what nothing places."""
        self.trouble, self._unplaced = self.trouble or message, self._unplaced or message

    def _read_one(self, *, exactly: bool) -> Iterator[Piece]:
        """The samples of the sound, or of the first of joined FLAC files."""
        yield from self._read_by_reader()
        if not isinstance(self.reader, SoundfileReader) or not self.reader.stopped_short():
            return
        if exactly:
            raise FileFailure("decode", "decode_error", self.trouble or "stops short")
        n_read, mixer = self.reader.n_read, self.reader.mixer
        if not self.trouble and n_read == self.reader.n_samples and self._find_behind() is not None:
            return
        self.reader.close()
        try:
            self.reader = AvReader(first_flac(self._source))
        except FileFailure:
            return
        self.reader.mixer = mixer
        yield from _skip(self._read_by_reader(), n_read)

    def _read_by_reader(self) -> Iterator[Piece]:
        """The samples as the present reader has them."""
        if isinstance(self.reader, AvReader):
            self.reader.follow(self._damage, self._begin_s)
        yield from self.reader.pieces()
        self.trouble, self._unplaced = self.reader.trouble, self.reader.unplaced

    def _find_behind(self) -> int | None:
        """How far behind the beginning of the present FLAC the next one begins; None if it is the last one."""
        if self.reader.info.codec != "flac":
            return None
        size_bytes = self._source.size_bytes
        is_nearly_whole = isinstance(self.reader, SoundfileReader) and not self.reader.stopped_short()
        first = first_flac(self._source, _find_last_part(size_bytes) if is_nearly_whole else 0)
        return None if first is self._source else first.size_bytes


def _find_last_part(size_bytes: int) -> int:
    """Where the part of a FLAC begins that libsndfile may leave unread without being found out."""
    return max(0, round(0.98 * size_bytes) - (1 << 20))


def _skip(pieces: Iterator[Piece], n_samples: int) -> Iterator[Piece]:
    """Leave out the first ``n_samples``."""
    for rate_hz, mono in pieces:
        if n_samples < len(mono):
            yield rate_hz, mono[n_samples:]
        n_samples = max(0, n_samples - len(mono))
