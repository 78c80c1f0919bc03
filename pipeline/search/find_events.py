"""The best events of an index for a query embedding, found in stored frames; no audio is read.

Candidates are the best frames of the whole corpus, or its best pools of like frames, so that a short event in a long
clip is found. From the best one down, the frames around each candidate are read and turned into events, until no
further candidate can change the answer. Memory depends on the events, not on the size of the corpus.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import NamedTuple

import pyarrow.compute as pc

from pipeline.index.tables import indexed_files
from pipeline.search.candidates import FrameScan, PoolSearch, Scope
from pipeline.search.event_reader import EventQuery, EventReader
from pipeline.search.event_tables import EventTables
from pipeline.search.events import EventFrames, Holder
from pipeline.search.scores import check_query, max_score_error
from pipeline.search.stopping import carried
from pipeline.search.tables import read_rows

MAX_CHOSEN = 10_000
"""Audios that a search of the corpus may include by name. With more, it searches all and skips the others later."""

FEW_FRAMES = 100_000
"""Where the user's choice leaves at most so many frames, all of them are read."""

LONGER = 4.0
"""The search assumes that no vector is more than four times as long as the longest one of the sample."""


AT_ONCE = 4
"""Questions that ``find_all_events`` asks at the same time."""

Found = list[tuple[Holder, EventFrames]]


class FoundEvents(NamedTuple):
    """``is_cut``: there were too few candidates to be as sure as usual that these are the best events."""

    events: Found
    is_cut: bool


def find_all_events(tables: EventTables, queries: Sequence[EventQuery]) -> list[FoundEvents]:
    """``find_events`` for each query. All queries have the same ``where``.

    Through pools, a few queries are asked at the same time: the engine does not hold Python's lock. Exact scans are
    made one after the other: one alone uses every core and up to a million candidates.

    Raises:
        UsageError: as ``find_events``.
    """
    if not queries:
        return []
    for query in queries:
        check_query(tables.dimension, query.vector)
    tables = tables.keep_for(queries[0].where)
    find = partial(_find, tables, _choose_audios(tables, queries[0].where))
    if tables.pools is None or len(queries) == 1:
        return list(map(find, queries))
    with ThreadPoolExecutor(min(AT_ONCE, len(queries))) as threads:
        return list(threads.map(carried(find), queries))


def find_events(tables: EventTables, query: EventQuery) -> Found:
    """The events with the highest peaks, best first, each with the file that it is in.

    With pools, some events may be missed; those found have their exact scores and spans. Without, the result equals
    that of a scan over all frames, except that any of several events with a peak equal to the k-th may be left out: see
    ``_scan_frames``.

    Raises:
        UsageError: ``where`` is not valid, or the query is not a finite vector of the table's dimension.
    """
    check_query(tables.dimension, query.vector)
    tables = tables.keep_for(query.where)
    return _find(tables, _choose_audios(tables, query.where), query).events


def _find(tables: EventTables, scope: Scope, query: EventQuery) -> FoundEvents:
    if scope.audio_ids is not None and not scope.audio_ids:
        return FoundEvents([], is_cut=False)
    if tables.pools is None or (scope.is_named and scope.n_frames <= FEW_FRAMES):
        return FoundEvents(_scan_frames(tables, query, scope), is_cut=False)
    source = PoolSearch(tables.pools, tables.n_pools, query.vector, scope, k=query.k, settings=tables.settings)
    events = _search(source, EventReader(tables, query, source)).events
    return FoundEvents(events, source.is_cut)


def _scan_frames(tables: EventTables, query: EventQuery, scope: Scope) -> Found:
    """The events around the best of all frames.

    The engine finds candidates with a query rounded to float16; the longer a vector, the larger the error. So lengths
    are measured in a sample, and no vector is assumed to be over ``LONGER`` times as long as the longest of it. If one
    that is read is longer, the search is repeated with a wider margin; a longer one that is never read may be missed.
    """
    longest, is_all = tables.sampled_norm
    longest *= 1.0 if is_all else LONGER
    while True:
        margin = max_score_error(query.vector, longest)
        source = FrameScan(
            tables.frames, tables.positions, query.vector, scope, k=query.k, on=query.levels.on, margin=margin
        )
        reader = _search(source, EventReader(tables, query, source))
        if not reader.longest > longest:
            return reader.events
        longest = LONGER * reader.longest


def _search(source: FrameScan | PoolSearch, reader: EventReader) -> EventReader:
    """Give the reader candidates, page by page, until no further one can change its events."""
    for page in source.pages(reader):
        reader.read(page.candidates)
        if reader.is_sure(page.worst):
            break
    return reader


def _choose_audios(tables: EventTables, where: str | None) -> Scope:
    """The audios of the files that ``where`` selects."""
    if where is None:
        return Scope()
    for scope in tables.kept.scopes.find([where]).values():
        return scope
    rows = read_rows(tables.files, ["audio_id", "n_frames"], indexed_files(where), asked=where)
    audio_ids = frozenset(rows["audio_id"].to_pylist())
    share = min(1.0, max(rows.num_rows, 1) / max(tables.n_files, 1))
    scope = Scope(audio_ids, len(audio_ids) <= MAX_CHOSEN, share, pc.sum(rows["n_frames"]).as_py() or 0)
    tables.kept.scopes.keep({where: scope})
    return scope
