"""Estimates durations: reads the headers of a few files of each extension, and takes the others to be like them.

As wav, an hour of telephone speech has the size of four minutes from a studio, so the usual bytes per second of an
extension may be far off. Estimates balance the work and tell how much is left; they are never stored.
"""

from collections.abc import Callable, Sequence

from pipeline import storage
from pipeline.audio.source import place_of
from pipeline.corpus.corpus_file import CorpusFile, estimate_seconds
from pipeline.corpus.shards import Place, extension_of

SAMPLED, MOST_OPENED = 24, 100
"""Files that are opened, of each extension and in all: on a slow disk, each may take some milliseconds."""

THINNEST, THICKEST = 100.0, 5e6
"""Bytes a second of audio that a header can mean; others are wrong."""


MeasureLength = Callable[[str | Place], float | None]
"""The duration of a recording by its header; None where that does not tell."""


def correct_estimates(files: Sequence[CorpusFile], measure_s: MeasureLength) -> None:
    """Correct ``estimated_s`` of local files, members of local tar shards among them, by the lengths of some.

    Others keep the usual estimate. Of files in object stores, a header costs requests. Of rows of tables, it costs
    pages with many rows, and the size of a row of Parquet is itself an estimate.
    """
    by_extension: dict[str, list[CorpusFile]] = {}
    for file in files:
        if file.row_of is None and not storage.is_url(file.uri):
            by_extension.setdefault(extension_of(file.recording), []).append(file)
    frequent = sorted(by_extension.values(), key=len, reverse=True)[:MOST_OPENED]
    for alike in frequent:
        bytes_per_s = _measure_rate(alike, min(SAMPLED, MOST_OPENED // len(frequent)), measure_s)
        if bytes_per_s is not None:
            for file in alike:
                file.estimated_s = estimate_seconds(file.recording, file.size_bytes, file.time_range, bytes_per_s)


def _measure_rate(files: list[CorpusFile], n_sampled: int, measure_s: MeasureLength) -> float | None:
    n_bytes, seconds = 0, 0.0
    step = -(-len(files) // n_sampled)
    sampled = {file.recording: file for file in files[::step]}  # several may be ranges of one recording
    for recording, file in sampled.items():
        duration_s = measure_s(place_of(recording, file.offset, file.size_bytes))
        if duration_s and THINNEST <= file.size_bytes / duration_s <= THICKEST:
            n_bytes, seconds = n_bytes + file.size_bytes, seconds + duration_s
    return n_bytes / seconds if seconds else None
