"""Estimates durations: reads the headers of a few files of each extension, and takes the others to be like them.

As wav, an hour of telephone speech has the size of four minutes from a studio, so the usual bytes per second of an
extension may be far off. Estimates balance the work and tell how much is left; they are never stored.
"""

from collections.abc import Callable, Sequence

from pipeline import storage
from pipeline.corpus.corpus_file import CorpusFile, estimate_seconds
from pipeline.corpus.shards import extension_of

SAMPLED, MOST_OPENED = 24, 100
"""Files that are opened, of each extension and in all: on a slow disk, each may take some milliseconds."""

THINNEST, THICKEST = 100.0, 5e6
"""Bytes a second of audio that a header can mean; others are wrong."""


def correct_estimates(files: Sequence[CorpusFile], measure_s: Callable[[str], float | None]) -> None:
    """Correct ``estimated_s`` of local files by the lengths of some of them.

    Members of shards and files in object stores keep the usual estimate: opening them would cost requests.

    Args:
        measure_s: the duration of a recording by its header; None where that does not tell.
    """
    by_extension: dict[str, list[CorpusFile]] = {}
    for file in files:
        if file.offset is None and not storage.is_url(file.uri):
            by_extension.setdefault(extension_of(file.recording), []).append(file)
    frequent = sorted(by_extension.values(), key=len, reverse=True)[:MOST_OPENED]
    for alike in frequent:
        bytes_per_s = _measure_rate(alike, min(SAMPLED, MOST_OPENED // len(frequent)), measure_s)
        if bytes_per_s is not None:
            for file in alike:
                file.estimated_s = estimate_seconds(file.recording, file.size_bytes, file.time_range, bytes_per_s)


def _measure_rate(files: list[CorpusFile], n_sampled: int, measure_s: Callable[[str], float | None]) -> float | None:
    n_bytes, seconds = 0, 0.0
    step = -(-len(files) // n_sampled)
    sampled = {file.recording: file.size_bytes for file in files[::step]}  # several may be ranges of one recording
    for recording, size_bytes in sampled.items():
        duration_s = measure_s(recording)
        if duration_s and THINNEST <= size_bytes / duration_s <= THICKEST:
            n_bytes, seconds = n_bytes + size_bytes, seconds + duration_s
    return n_bytes / seconds if seconds else None
