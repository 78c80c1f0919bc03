"""Score curves: how well each stored frame of a file fits a text. Only the index is read, so the file may be gone."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline import storage
from pipeline.encoder.checkpoint import ModelIdentity
from pipeline.encoder.encoder import probability
from pipeline.errors import UsageError
from pipeline.grid import FRAME_S, frames_to_seconds
from pipeline.index.tables import among
from pipeline.search.event_tables import EventTables
from pipeline.search.events import Event, Holder, Levels, Rules, read_events, to_event
from pipeline.search.frame_scores import FrameScorer, FrameSpan, Scores
from pipeline.search.scores import Vector, check_query


@dataclass(frozen=True)
class FileFrames:
    """The stored frames of an indexed file."""

    holder: Holder
    audio_id: str
    n_frames: int
    size_bytes: int | None = None
    modified_ns: int | None = None
    content_hash: str | None = None
    """As it was indexed."""


@dataclass(frozen=True, eq=False)
class Curve:
    """The scores of consecutive frames of a file for a text: float32 (n,), dot products as ``locate`` computes them.

    Frame k of the file covers the 40 ms from k x 0.04 s on; ``scores[0]`` belongs to ``first_frame``. The probability
    of a score is sigmoid(``logit_scale`` x score + ``logit_bias``).
    """

    uri: str
    audio_id: str
    text: str
    first_frame: int
    scores: Scores
    identity: ModelIdentity = field(repr=False)
    holder: Holder = field(repr=False)

    @property
    def start_s(self) -> float:
        """When the first of its frames begins."""
        return frames_to_seconds(self.first_frame)

    @property
    def logit_scale(self) -> float:
        return self.identity.logit_scale

    @property
    def logit_bias(self) -> float:
        return self.identity.logit_bias

    @property
    def times_s(self) -> npt.NDArray[np.float64]:
        """The middle of each frame (n,)."""
        return (self.first_frame + 0.5 + np.arange(len(self.scores), dtype=np.float64)) * FRAME_S

    @property
    def probabilities(self) -> npt.NDArray[np.float64]:
        """(n,)"""
        return probability(self.scores, self.identity)

    def coarsen(self, max_points: int) -> tuple[Scores, int, int]:
        """At most so many scores (m,), each the best of ``step`` frames; ``step``; and the first frame of the first.

        A score stands for ``step`` frames of the file from a multiple of ``step`` on, of which the first and the last
        may lie outside of the curve. So parts of one file with the same step fit together.
        """
        first, stop = self.first_frame, self.first_frame + len(self.scores)
        step = max(1, -(-len(self.scores) // max_points))
        while -(-stop // step) - first // step > max_points:
            step += 1
        begins = np.arange(first // step, -(-stop // step)) * step - first
        best = np.maximum.reduceat(self.scores, np.maximum(begins, 0)) if len(self.scores) else self.scores
        return best, step, first // step * step

    def events(self, rules: Rules | None = None) -> list[Event]:
        """The events within the curve, in order of time. One that crosses an end of it is cut there.

        ``rank`` counts from the best one.
        """
        levels = Levels.from_rules(rules or Rules(), self.logit_scale, self.logit_bias)
        found = read_events(self.scores, levels, self.first_frame)
        best_first = sorted(range(len(found)), key=lambda number: -found[number].score)
        ranks = {number: rank for rank, number in enumerate(best_first, start=1)}
        return [
            to_event(ranks[number], self.holder, event, float(probability(event.score, self.identity)))
            for number, event in enumerate(found)
        ]


def read_scores(tables: EventTables, file: FileFrames, query: Vector, first: int, stop: int) -> Scores:
    """The dot products (n,) of ``query`` (D,) and the frames ``first`` .. ``stop - 1`` of a file.

    Raises:
        UsageError: the query is not a finite vector of the table's dimension.
    """
    check_query(tables.dimension, query)
    stop = min(stop, file.n_frames)
    if first >= stop:
        return np.empty(0, np.float32)
    _, positions = tables.look_up({file.audio_id}, None, with_positions=True)
    span = FrameSpan(file.audio_id, first, stop, positions.get(file.audio_id, 0))
    return FrameScorer(tables.frames, tables.positions, query).score([span])[span]


def find_file(files: Any, uri: str, metadata: list[str], index: str) -> FileFrames:
    """The indexed file of a uri, or of the path that it is short for.

    Args:
        files: the table, from ``tables.open_table``. metadata: the user's columns of it. index: for messages.

    Raises:
        UsageError: there is no such file, or it is not indexed.
    """
    uris = [uri] if storage.is_url(uri) else list(dict.fromkeys([uri, storage.absolute(uri)]))
    columns = ["audio_id", "uri", "status", "reason", "message", "duration_s", "n_frames", "size_bytes", "modified_ns"]
    columns += ["content_hash", *metadata]
    rows = files.search().where(among("uri", uris)).select(columns).limit(len(uris)).to_arrow().to_pylist()
    by_uri = {row["uri"]: row for row in rows}
    row = next((by_uri[name] for name in uris if name in by_uri), None)
    if row is None:
        raise UsageError(f"{uri}: no such file in {index}; give it as `earshot query --json` prints it")
    if row["status"] == "failed":
        raise UsageError(f"{uri}: not indexed in {index}: {row['reason']}: {row['message']}")
    if row["status"] != "indexed":
        raise UsageError(f"{uri}: {index} no longer has it: it left the sources")
    holder = Holder(row["uri"], row["duration_s"], {name: row[name] for name in metadata}, row["audio_id"])
    as_indexed = (row[name] for name in ("size_bytes", "modified_ns", "content_hash"))
    return FileFrames(holder, row["audio_id"], row["n_frames"], *as_indexed)
