"""Estimates durations: reads the headers of a few files of each extension, and takes the others to be like them.

As wav, an hour of telephone speech has the size of four minutes from a studio, so the usual bytes per second of an
extension may be far off. Files whose headers are not read are taken to be like those of the same folder or shard, or at
least of the same extension, that the index has already. Estimates balance the work and tell how much is left; they are
never stored.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import pyarrow as pa

from pipeline import storage
from pipeline.audio.source import place_of
from pipeline.corpus.corpus_file import CorpusFile, estimate_seconds
from pipeline.corpus.shards import Place, extension_of
from pipeline.corpus.source_scope import places_above
from pipeline.corpus.time_ranges import split_uri

SAMPLED, MOST_OPENED = 24, 100
"""Files that are opened, of each extension and in all: on a slow disk, each may take some milliseconds."""

THINNEST, THICKEST = 100.0, 5e6
"""Bytes a second of audio that a header can mean; others are wrong."""


MeasureLength = Callable[[str | Place], float | None]
"""The duration of a recording by its header; None where that does not tell."""


_Kind = tuple[str, str]
"""An extension, and a folder or shard; of files anywhere, "" in its place."""


def correct_estimates(files: Sequence[CorpusFile], measure_s: MeasureLength, stored: pa.Table | None = None) -> None:
    """Correct ``estimated_s``.

    The headers of some files tell the lengths of local ones, members of local tar shards among them. The lengths of
    files in the index tell those of all others: of files in object stores, a header costs requests. Of rows of tables,
    it costs pages with many rows, and the size of a row of Parquet is itself an estimate. Files of a kind that the
    index does not have keep the usual estimate.

    Args:
        stored: ``uri``, ``size_bytes`` and ``duration_s`` of files of the index.
    """
    by_extension: dict[str, list[CorpusFile]] = {}
    unread: list[CorpusFile] = []
    for file in files:
        if file.stored is not None:
            file.estimated_s = file.stored.duration_s
        elif file.row_of is None and not storage.is_url(file.uri):
            by_extension.setdefault(extension_of(file.recording), []).append(file)
        else:
            unread.append(file)
    frequent = sorted(by_extension.values(), key=len, reverse=True)
    for alike in frequent[:MOST_OPENED]:
        bytes_per_s = _measure_rate(alike, min(SAMPLED, MOST_OPENED // min(len(frequent), MOST_OPENED)), measure_s)
        if bytes_per_s is None:
            unread += alike
        else:
            _estimate(alike, partial(_same, bytes_per_s))
    unread += [file for alike in frequent[MOST_OPENED:] for file in alike]
    if unread and stored is not None and (rates := _learn_rates(stored)):
        _estimate(unread, lambda file: next(filter(None, map(rates.get, _kinds_of(file.recording))), None))


def _same(bytes_per_s: float, file: CorpusFile) -> float:
    return bytes_per_s


def _estimate(files: Sequence[CorpusFile], find_bytes_per_s: Callable[[CorpusFile], float | None]) -> None:
    for file in files:
        bytes_per_s = find_bytes_per_s(file)
        file.estimated_s = estimate_seconds(file.recording, file.size_bytes, file.time_range, bytes_per_s)


def _kinds_of(recording: str) -> tuple[_Kind, _Kind]:
    """The kinds that a file belongs to, the nearest first."""
    extension = extension_of(recording)
    return (extension, next(places_above(recording), "")), (extension, "")


def _learn_rates(stored: pa.Table) -> Mapping[_Kind, float]:
    """Bytes a second of the files of an index, by kind."""
    sums: dict[_Kind, tuple[int, float]] = {}
    for row in stored.to_pylist():
        recording, time_range = split_uri(row["uri"])
        if time_range or not _is_plausible(row["size_bytes"], row["duration_s"]):
            continue
        for kind in _kinds_of(recording):
            n_bytes, seconds = sums.get(kind, (0, 0.0))
            sums[kind] = n_bytes + row["size_bytes"], seconds + row["duration_s"]
    return {kind: n_bytes / seconds for kind, (n_bytes, seconds) in sums.items()}


def _is_plausible(size_bytes: int, duration_s: float | None) -> bool:
    return bool(duration_s) and THINNEST <= size_bytes / (duration_s or 1.0) <= THICKEST


def _measure_rate(files: list[CorpusFile], n_sampled: int, measure_s: MeasureLength) -> float | None:
    n_bytes, seconds = 0, 0.0
    step = -(-len(files) // n_sampled)
    sampled = {file.recording: file for file in files[::step]}  # several may be ranges of one recording
    for recording, file in sampled.items():
        duration_s = measure_s(place_of(recording, file.offset, file.size_bytes))
        if duration_s and _is_plausible(file.size_bytes, duration_s):
            n_bytes, seconds = n_bytes + file.size_bytes, seconds + duration_s
    return n_bytes / seconds if seconds else None
