"""Asks an index through its vector indexes, with settings that are on trial: for ``audit_index``."""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from pipeline.index.handle import Generation
from pipeline.index.search_settings import SearchSettings
from pipeline.index.tuning import read_trained
from pipeline.search.audit import Answer, Found
from pipeline.search.clips import Measure, find_clips
from pipeline.search.event_reader import EventQuery
from pipeline.search.event_tables import EventTables
from pipeline.search.events import EventFrames, Levels
from pipeline.search.find_events import find_events
from pipeline.search.sample import Matrix
from pipeline.search.tables import open_table


@dataclass(frozen=True)
class IndexSearches:
    """The published state of an index; its tables are opened at the first question."""

    tables: Generation

    def events(
        self, vectors: Matrix, k: int, levels: Levels, settings: SearchSettings
    ) -> list[list[tuple[str, EventFrames]]]:
        """The ``k`` best events for each vector, best first, with the uri of the file."""
        tables = replace(self._events, settings=settings)
        found = [find_events(tables, EventQuery(vector, levels, k)) for vector in vectors]
        return [[(holder.uri, event) for holder, event in events] for events in found]

    def clips(self, vectors: Matrix, k: int, settings: SearchSettings, measure: Measure) -> list[Answer]:
        """The ``k`` best clips for each vector: of a text by dot product, of a sound by cosine."""
        settings = settings.for_partitions(self._n_partitions)
        found = [
            find_clips(self._clips, vector, k=k, all_windows=True, measure=measure, settings=settings)
            for vector in vectors
        ]
        return [Answer([Found(hit.clip_id, 0, 1, hit.score) for hit in hits], len(hits) >= k) for hits in found]

    @cached_property
    def _n_partitions(self) -> int | None:
        """Of the vector index of ``clips``; None where it cannot be read, so that no partition is left out."""
        trained = read_trained(self.tables, "clips")
        return trained.n_partitions if trained else None

    @cached_property
    def _events(self) -> EventTables:
        return EventTables(*(self._open(name) for name in ("frames", "files", "pools")))

    @cached_property
    def _clips(self) -> Any:
        return self._open("clips")

    def _open(self, name: str) -> Any:
        return open_table(self.tables.path, name, self.tables.versions[name])
