"""Scores of stored frames: spans of frames in, their dot products with a query out."""

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from pipeline.index.row_positions import Integers, RowPositions
from pipeline.index.tables import to_matrix
from pipeline.search.scores import Vector, score_rows
from pipeline.search.stopping import check_stopped

ROWS_AT_ONCE = 8_192
"""Rows of ``frames`` that are read together."""

MAX_OTHERS = 4
"""Places of parts of an audio that a look-up adds to those known."""

Scores = npt.NDArray[np.float32]


class FrameSpan(NamedTuple):
    """Frames ``first`` .. ``stop - 1`` of an audio. Frame f is expected at the position ``position_of_0 + f`` of the
    table: see ``RowPositions``."""

    audio_id: str
    first: int
    stop: int
    position_of_0: int


def merge_spans(spans: Iterable[FrameSpan]) -> list[FrameSpan]:
    """The spans in order, those that touch made one."""
    merged: list[FrameSpan] = []
    for span in sorted(spans):
        if merged and merged[-1].audio_id == span.audio_id and span.first <= merged[-1].stop:
            merged[-1] = merged[-1]._replace(stop=max(merged[-1].stop, span.stop))
        else:
            merged.append(span)
    return merged


def join_scores(scored: dict[FrameSpan, Scores]) -> dict[FrameSpan, Scores]:
    """The scores of the merged spans."""
    merged = merge_spans(scored)
    joined = {span: np.empty(span.stop - span.first, np.float32) for span in merged}
    ends = iter(merged)
    whole = next(ends, None)
    for span in sorted(scored):
        while whole is not None and (whole.audio_id != span.audio_id or span.first >= whole.stop):
            whole = next(ends, None)
        if whole is not None:
            joined[whole][span.first - whole.first : span.stop - whole.first] = scored[span]
    return joined


class FrameScorer:
    """Dot products of ``query`` (D,) and the vectors of ``frames``, a table from ``tables.open_table``."""

    def __init__(self, frames: Any, positions: RowPositions, query: Vector) -> None:
        self._frames, self._positions, self._query = frames, positions, query
        self.longest = 0.0
        """The length of the longest vector read so far."""
        self._others: dict[str, list[int]] = {}
        """By audio, where frame 0 would lie by frames that were looked up: merging fragments may move parts of one."""

    def score(self, spans: list[FrameSpan]) -> dict[FrameSpan, Scores]:
        """The scores of each span. Rows are taken from their expected place, and looked up if they are not there.

        A vector search with a filter would read all vectors of an audio for the few that it keeps.
        """
        if not spans:
            return {}
        numbers = [np.arange(span.first, span.stop) for span in spans]
        positions = [span.position_of_0 + number for span, number in zip(spans, numbers, strict=True)]
        rows = [self._positions.to_row_ids(each) for each in positions]
        result = dict(zip(spans, self._take(spans, numbers, rows), strict=True))
        for span, scores in result.items():
            for position_of_0 in self._others.get(span.audio_id, ()):
                self._fill(span, scores, position_of_0)
            if len(missing := np.flatnonzero(np.isneginf(scores))):
                gap = span._replace(first=span.first + missing[0], stop=span.first + missing[-1] + 1)
                found_numbers, found_rows = self._find_rows(gap)
                [found] = self._take([span], [found_numbers], [found_rows])
                scores[found_numbers - span.first] = found
                others = self._others.setdefault(span.audio_id, [])
                others += np.unique(self._positions.of(found_rows) - found_numbers)[:MAX_OTHERS].tolist()
        return result

    def _fill(self, span: FrameSpan, scores: Scores, position_of_0: int) -> None:
        """Add the scores that are missing, of frames that lie where another part of their audio does."""
        if len(missing := np.flatnonzero(np.isneginf(scores))):
            numbers = span.first + missing
            [found] = self._take([span], [numbers], [self._positions.to_row_ids(position_of_0 + numbers)])
            scores[missing] = found

    def _take(self, spans: list[FrameSpan], numbers: list[Integers], rows: list[Integers]) -> list[Scores]:
        """The scores of the frames ``numbers`` at ``rows``, by span; -inf where another frame is, or none."""
        audios = {audio_id: number for number, audio_id in enumerate({span.audio_id for span in spans})}
        sizes = [len(each) for each in numbers]
        audio = np.repeat([audios[span.audio_id] for span in spans], sizes)
        frame, row_id = np.concatenate(numbers), np.concatenate(rows)
        scores = np.full(len(frame), -np.inf, np.float32)
        for begin in range(0, len(frame), ROWS_AT_ONCE):
            check_stopped()
            some = slice(begin, begin + ROWS_AT_ONCE)
            ids = np.unique(row_id[some])
            search = self._frames.take_row_ids(ids[ids >= 0].tolist()).select(["audio_id", "frame", "vector"])
            table = search.with_row_id().to_arrow()
            if table.num_rows == 0:
                continue
            found_scores, longest = score_rows(to_matrix(table["vector"]), self._query)
            self.longest = max(self.longest, longest)
            found_audio = np.array([audios.get(audio_id, -1) for audio_id in table["audio_id"].to_pylist()])
            found_row_id = table["_rowid"].to_numpy().astype(np.int64)
            order = np.argsort(found_row_id)
            at = order[np.minimum(np.searchsorted(found_row_id, row_id[some], sorter=order), table.num_rows - 1)]
            is_it = (found_row_id[at] == row_id[some]) & (found_audio[at] == audio[some])
            is_it &= table["frame"].to_numpy()[at] == frame[some]
            scores[some][is_it] = found_scores[at[is_it]]
        return np.split(scores, np.cumsum(sizes)[:-1])

    def _find_rows(self, span: FrameSpan) -> tuple[Integers, Integers]:
        """The frames of a span and their row ids: an audio need not lie in one piece."""
        where = f"audio_id = '{span.audio_id}' AND frame >= {span.first} AND frame < {span.stop}"
        search = self._frames.search().where(where).select(["frame"]).with_row_id(True)
        table = search.limit(span.stop - span.first).to_arrow()
        return table["frame"].to_numpy().astype(np.int64), table["_rowid"].to_numpy().astype(np.int64)
