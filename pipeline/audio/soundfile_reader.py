"""Samples from libsndfile (through soundfile), which reads wav, aiff, flac and their kin exactly and can seek."""

import re
from collections.abc import Iterator
from typing import Any

import soundfile

from pipeline.audio.channels import PROBES, Channels, Mixer
from pipeline.audio.header_lengths import View, find_sound, is_unknown
from pipeline.audio.pieces import PIECE_S, PIECE_VALUES, AudioInfo, Piece
from pipeline.audio.source import Bytes
from pipeline.errors import one_line

_CLAIM = re.compile(r"(?:data|SSND|BODY|riff|Riff size|Data Size) *: (\d+) \(should be (\d+)\)")
"""libsndfile's log line on a header with a wrong size. For wav and AIFF, ``header_lengths`` finds the size instead."""

_ENDLESS_SAMPLES = 1 << 62
"""libsndfile's count of samples is at least this if a flac does not state its length."""

_CODECS = {"PCM_S8": "pcm_s8", "PCM_U8": "pcm_u8", "PCM_16": "pcm_s16", "PCM_24": "pcm_s24", "PCM_32": "pcm_s32"}
_CODECS |= {"FLOAT": "pcm_f32", "DOUBLE": "pcm_f64", "ULAW": "pcm_mulaw", "ALAW": "pcm_alaw"}


class SoundfileReader:
    """A file as libsndfile reads it."""

    trouble: str | None = None

    def __init__(self, source: Bytes) -> None:
        self._source = source
        self.mixer = Mixer()
        self._sound = find_sound(source)
        self._file = self._open()
        self.n_read = 0
        self.n_samples = self._count()
        subtype: str = "FLAC" if self._file.format == "FLAC" else self._file.subtype
        self.info = AudioInfo(
            codec=_CODECS.get(subtype, subtype.lower()),
            sample_rate_hz=self._file.samplerate,
            channels=self._file.channels,
            expected_duration_s=self._promised_s(),
        )

    def seek(self, sample: int) -> bool:
        """Go on with exactly this sample. If that fails, go on with the first one, and return False."""
        try:
            self.n_read = self._file.seek(sample)
        except soundfile.LibsndfileError:
            self._file.close()  # it cannot seek any more, not even to its beginning
            self._file, self.n_read = self._open(), 0
        return self.n_read == sample

    note: str | None = None
    """It has no remarks for people."""

    is_alone = True
    """Its formats hold one stream."""

    @property
    def unplaced(self) -> str | None:
        """A trouble of which nothing tells where it lies."""
        return self.trouble

    @property
    def shortfall(self) -> str | None:
        """Why there may be fewer samples than promised, though nothing failed."""
        sound = self._sound
        if sound is None or sound.promised_bytes is None:
            return None
        goes_on = sound.size_bytes < sound.promised_bytes == self._source.size_bytes - sound.begin
        return "the file goes on, but its header ends the sound there" if goes_on else None

    def _count(self) -> int | None:
        found: int = self._file.frames
        if not 0 < found < _ENDLESS_SAMPLES:
            return None
        counted, in_block = (self._sound and self._sound.counted) or (found, 1)
        return counted if 0 < found - counted < in_block else found

    def _open(self) -> Any:
        if self._sound is not None and self._sound.head is not None:
            view = View(self._source, self._sound.begin, self._sound.size_bytes, self._sound.head)
            return soundfile.SoundFile(view)
        self._source.seek(0)
        # libsndfile takes an error of the disk for the end of the file. FFmpeg meets the error when it reads the rest.
        descriptor = self._source.descriptor
        return soundfile.SoundFile(self._source if descriptor is None else descriptor, closefd=False)

    def pieces(self) -> Iterator[Piece]:
        yield from self.mixer.mix(self.parts())

    def listen(self) -> None:
        """Decide how the channels are mixed, by seconds at fixed fractions of a file that can be sought in."""
        rate_hz = self.info.sample_rate_hz
        if self.info.channels != 2 or not self.n_samples:
            return
        self.mixer = Mixer(PROBES)
        n_samples = min(rate_hz, PIECE_VALUES)
        try:
            for number in range(PROBES):
                self._file.seek(max(0, self.n_samples - n_samples) * number // (PROBES - 1))
                self.mixer.listen(rate_hz, self._file.read(n_samples, "float32", always_2d=True).T)
                if self.mixer.decided or self.n_samples <= n_samples:
                    break
        except soundfile.LibsndfileError:
            pass  # reading meets the error again, and tells it
        if not self.mixer.decided:
            self.mixer.decide()
        self.mixer.forget()
        self.seek(0)

    def parts(self) -> Iterator[Channels]:
        """The samples of all channels, from where the reader is."""
        rate_hz, channels = self.info.sample_rate_hz, self.info.channels
        n_samples = max(1, min(PIECE_S * rate_hz, PIECE_VALUES // channels))
        while True:
            wanted = n_samples if self.n_samples is None else max(0, min(n_samples, self.n_samples - self.n_read))
            try:
                values = self._file.read(wanted, "float32", always_2d=True)
            except soundfile.LibsndfileError as error:
                self.trouble = f"libsndfile: {one_line(error)}"
                return
            if not len(values):
                return
            self.n_read += len(values)
            yield rate_hz, values.T

    def stopped_short(self) -> bool:
        """Whether the file may have more: an error, no samples, fewer than counted, or unread bytes of a flac."""
        if self._sound is not None and self._sound.promised_bytes == 0:
            return False  # FFmpeg would take the following chunks for samples
        if self.trouble or not self.n_read or self.n_read < (self.n_samples or 0):
            return True
        return self._file.format == "FLAC" and self._source.tell() < 0.99 * self._source.size_bytes

    def close(self) -> None:
        self._file.close()

    def _promised_s(self) -> float | None:
        if self.n_samples is None:
            return None
        promised = float(self.n_samples)
        if self._sound is not None:
            if self._sound.promised_bytes is None:
                return None
            promised *= self._sound.promised_bytes / max(1, self._sound.size_bytes)
        elif claim := _CLAIM.search(self._file.extra_info):
            claimed_bytes, found_bytes = int(claim[1]), int(claim[2])
            if is_unknown(claimed_bytes):
                return None
            promised *= max(1.0, claimed_bytes / max(1, found_bytes))
        return promised / float(self._file.samplerate)
