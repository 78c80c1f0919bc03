"""The tables that events are found in, and what questions look up there: who holds an audio, where its frames lie."""

import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from pipeline import schema
from pipeline.index.row_positions import RowPositions
from pipeline.index.search_settings import SearchSettings
from pipeline.index.tables import among, indexed_files, to_matrix
from pipeline.search.candidates import Scope
from pipeline.search.events import Holder
from pipeline.search.recent import Recent
from pipeline.search.scores import longest_norm

MAX_KEPT_NAMES = 2_000_000
"""Audios of all the ``where`` that are kept together: 0.15 GB a million."""

MAX_KEPT_BYTES, MAX_KEPT_POSITIONS = 50_000_000, 100_000
"""Of the files that are kept, in memory; and of the places of audios."""

VOLATILE = re.compile(r"\b(now|today|current_\w+|random|uuid)\b", re.IGNORECASE)
"""SQL whose value differs from question to question."""

MEASURED_AT_ONCE, MEASURED_PARTS = 64, 64
"""Vector lengths are measured in a sample: 64 rows in each of 64 parts of the table."""

READS_AT_ONCE = 4
"""As many as questions that are asked at the same time."""


@dataclass
class AudioFiles:
    """The selected files that hold an audio."""

    n_frames: int
    holders: list[Holder]

    def count_bytes(self) -> int:
        """About as many as it takes in memory."""
        values = (value for holder in self.holders for value in holder.metadata.values())
        return 500 * (1 + len(self.holders)) + sum(len(value) for value in values if isinstance(value, str))


@dataclass(frozen=True)
class Kept:
    """Results of look-ups for earlier questions. The tables stay at their versions, so they stay right."""

    scopes: Recent[str, Scope] = field(
        default_factory=lambda: Recent(MAX_KEPT_NAMES, lambda scope: len(scope.audio_ids or ()))
    )
    """The audios of a ``where``."""
    files: Recent[tuple[str | None, str], AudioFiles] = field(
        default_factory=lambda: Recent(MAX_KEPT_BYTES, AudioFiles.count_bytes)
    )
    """The files of a ``where`` that hold an audio."""
    positions: Recent[str, int] = field(default_factory=lambda: Recent(MAX_KEPT_POSITIONS))
    """The place of the first frame of an audio."""


@dataclass(frozen=True)
class EventTables:
    """The tables of one state of an index, from ``tables.open_table``.

    With ``pools``, candidates come from their vector index; without, from an exact scan of ``frames``. What a question
    needs to know of the tables is kept for the next one: each call of the engine takes a millisecond or more.
    """

    frames: Any
    files: Any
    pools: Any = None
    settings: SearchSettings = field(default_factory=SearchSettings)
    kept: Kept = field(default_factory=Kept)
    threads: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(READS_AT_ONCE))
    """They read positions while files are read. Starting a thread for each question would take milliseconds."""

    def keep_for(self, where: str | None) -> "EventTables":
        """These tables; without earlier results if the clock or chance decides what ``where`` means."""
        return replace(self, kept=Kept()) if where and VOLATILE.search(where) else self

    @cached_property
    def positions(self) -> RowPositions:
        return RowPositions.of_table(self.frames.to_lance())

    @cached_property
    def n_files(self) -> int:
        return int(self.files.count_rows())

    @cached_property
    def n_pools(self) -> int:
        return int(self.pools.count_rows())

    @cached_property
    def dimension(self) -> int:
        return int(self.frames.schema.field("vector").type.list_size)

    @cached_property
    def sampled_norm(self) -> tuple[float, bool]:
        """The length of the longest vector of a sample of ``frames``, and whether the sample holds all of them."""
        n_rows = int(self.frames.count_rows())
        is_all = n_rows <= MEASURED_PARTS * MEASURED_AT_ONCE
        begins = np.linspace(0, max(0, n_rows - MEASURED_AT_ONCE), MEASURED_PARTS, dtype=np.int64)
        offsets = np.arange(n_rows) if is_all else np.unique(begins[:, None] + np.arange(MEASURED_AT_ONCE))
        rows = self.frames.take_offsets(offsets.tolist()).select(["vector"]).to_arrow()
        return longest_norm(to_matrix(rows["vector"])), is_all

    @cached_property
    def metadata(self) -> list[str]:
        """The names of the user's columns."""
        return list(schema.metadata_columns(self.files.schema).names)

    def look_up(
        self, audio_ids: set[str], where: str | None, *, with_positions: bool
    ) -> tuple[dict[str, AudioFiles], dict[str, int]]:
        """The indexed files that hold each audio, of those that ``where`` selects; and the place of its first frame."""
        known = self.kept.files.find((where, audio_id) for audio_id in audio_ids)
        files = {audio_id: of_audio for (_, audio_id), of_audio in known.items()}
        positions = self.kept.positions.find(audio_ids) if with_positions else {}
        not_placed = audio_ids - positions.keys() if with_positions else set()
        reading = self.threads.submit(self._read_positions, not_placed) if not_placed else None
        if new := audio_ids - files.keys():
            read = self._read_files(new, where)
            self.kept.files.keep({(where, audio_id): of_audio for audio_id, of_audio in read.items()})
            files |= read
        if reading is not None:
            self.kept.positions.keep(reading.result())
            positions |= reading.result()
        return files, positions

    def _read_files(self, audio_ids: set[str], where: str | None) -> dict[str, AudioFiles]:
        condition = f"{among('audio_id', audio_ids)} AND {indexed_files(where)}"
        columns = ["audio_id", "uri", "duration_s", "n_frames", *self.metadata]
        search = self.files.search().where(condition).select(columns).limit(self.n_files)
        found = {audio_id: AudioFiles(0, []) for audio_id in audio_ids}
        for row in search.to_arrow().to_pylist():
            files = found[row["audio_id"]]
            files.n_frames = row["n_frames"]
            metadata = {name: row[name] for name in self.metadata}
            files.holders.append(Holder(row["uri"], row["duration_s"], metadata, row["audio_id"]))
        return found

    def _read_positions(self, audio_ids: set[str]) -> dict[str, int]:
        search = self.frames.search().where(among("begins", audio_ids)).select(["begins"])
        found = search.with_row_id(True).limit(len(audio_ids)).to_arrow()
        positions = self.positions.of(found["_rowid"].to_numpy()).tolist()
        return dict(zip(found["begins"].to_pylist(), positions, strict=True))
