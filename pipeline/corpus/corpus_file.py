"""A file of the corpus: where it is, how large, and about how long."""

import sys
from dataclasses import dataclass
from typing import Any, NamedTuple

from pipeline import schema
from pipeline.corpus.raw_formats import raw_format_of
from pipeline.corpus.shards import extension_of, is_audio_table, is_sized, shard_of
from pipeline.corpus.time_ranges import TimeRange, without_time_range

_BYTES_PER_S = {
    **dict.fromkeys(("wav", "aif", "aiff", "w64", "rf64", "bwf", "caf", "au", "snd"), 150_000),
    **dict.fromkeys(("flac", "ape", "wv", "tta", "tak"), 70_000),
    **dict.fromkeys(("dsf", "dff"), 700_000),
    **dict.fromkeys(("opus", "webm"), 12_000),
    **dict.fromkeys(("mp4", "m4v", "mov", "mkv", "avi", "wmv", "mpg", "mpeg", "m2ts", "mts", "vob", "mxf"), 300_000),
    "g722": 8_000,
    "gsm": 1_650,
}
_OTHER_BYTES_PER_S = 18_000  # lossy codecs at usual rates


def estimate_seconds(
    uri: str, size_bytes: int, time_range: TimeRange = TimeRange(), bytes_per_s: float | None = None
) -> float:
    """Estimate the duration of a recording or of a time range of it. The estimate balances work and is never stored.

    Args:
        bytes_per_s: of audio; by default what is usual for the extension.
    """
    whole_s = size_bytes / (bytes_per_s or _BYTES_PER_S.get(extension_of(uri), _OTHER_BYTES_PER_S))
    return (time_range.within(whole_s) or 0.0) if time_range else whole_s


_WHOLE = TimeRange()


def identify_audio(recording: str, time_range: TimeRange, content_hash: str) -> str:
    """Identity of the audio in a recording or in a time range of it: its bytes, and how they are read."""
    return schema.make_audio_id(content_hash, str(time_range), str(raw_format_of(recording) or ""))


class Stored(NamedTuple):
    """What the index has of a file that is looked at before it is encoded again, and what to look at."""

    look: int
    """One of ``decoder_versions.Look``."""
    duration_s: float
    note: str | None


@dataclass(slots=True)
class CorpusFile:
    """The columns of a LISTED row, and the hash of the content once it is known.

    A corpus may have a million of these objects, so they are small.
    """

    uri: str
    start_s: float | None
    end_s: float | None
    size_bytes: int
    modified_ns: int
    offset: int | None
    content_hash: str | None = None
    estimated_s: float = 0.0
    """See ``estimate_seconds``."""

    def __getitem__(self, name: str) -> Any:
        return getattr(self, name)

    @property
    def _is_range(self) -> bool:
        return bool(self.start_s) or self.end_s is not None

    @property
    def time_range(self) -> TimeRange:
        return TimeRange(self.start_s, self.end_s) if self._is_range else _WHOLE

    @property
    def recording(self) -> str:
        return without_time_range(self.uri) if self._is_range else self.uri

    @property
    def has_size(self) -> bool:
        """Whether its size is exact."""
        return has_size(self.uri, self.offset)

    @property
    def stored(self) -> Stored | None:
        """What to look at before it is encoded again; None: nothing."""
        return None

    @property
    def row_of(self) -> str | None:
        """The table with audio that it is a row of."""
        if self.offset is None or not is_audio_table(shard := shard_of(self.uri)):
            return None
        return sys.intern(shard)  # a million sort keys share a thousand strings

    @classmethod
    def of_listed(cls, row: dict[str, Any]) -> "CorpusFile":
        """The file of a LISTED row."""
        file = cls(row["uri"], row["start_s"], row["end_s"], row["size_bytes"], row["modified_ns"], row["offset"])
        file.estimated_s = estimate_seconds(file.recording, file.size_bytes, file.time_range)
        return file


@dataclass(slots=True)
class ExaminedFile(CorpusFile):
    """A file that is looked at before it is encoded again."""

    stored: Stored | None = None


def has_size(uri: str, offset: int | None) -> bool:
    """Whether the size of a listed file is exact."""
    return offset is None or is_sized(uri)


def estimated_s_of(files: list[CorpusFile]) -> float:
    """The estimated duration of the content that these files hold."""
    return _sized(files).estimated_s


def size_of(files: list[CorpusFile]) -> int:
    """The size in bytes of the content that these files hold; a guess if none of them has a size."""
    return _sized(files).size_bytes


def _sized(files: list[CorpusFile]) -> CorpusFile:
    return files[0] if len(files) == 1 else next((file for file in files if file.has_size), files[0])
