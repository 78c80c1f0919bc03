"""An index asked through its vector indexes, with settings that are on trial: for ``audit_index``."""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from pipeline.index import vector_index
from pipeline.index.handle import Generation
from pipeline.index.search_settings import SearchSettings
from pipeline.index.tuning import has_vector_index
from pipeline.search.clips import find_clips
from pipeline.search.event_reader import EventQuery, EventTables
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

    def clips(self, vectors: Matrix, k: int, settings: SearchSettings) -> list[list[tuple[str, float]]]:
        """The ``k`` best clips for each vector by dot product, best first: ids and scores."""
        found = [find_clips(self._clips, vector, k=k, all_windows=True, settings=settings) for vector in vectors]
        return [[(hit.clip_id, hit.score) for hit in hits] for hits in found]

    @property
    def n_partitions(self) -> int:
        """Of the vector index of ``clips``; 1 where there is none."""
        if not has_vector_index(self.tables, "clips"):
            return 1
        return len(self.tables.open("clips").get_ivf_model(vector_index.NAME).centroids)

    @cached_property
    def _events(self) -> EventTables:
        return EventTables(*(self._open(name) for name in ("frames", "files", "pools")))

    @cached_property
    def _clips(self) -> Any:
        return self._open("clips")

    def _open(self, name: str) -> Any:
        return open_table(self.tables.path, name, self.tables.versions[name])
