"""Pools: runs of like frames, each stored as one vector. Search looks at these few rows first, then at the frames.

A window's own frames are cut where they differ most, by Ward's rule for neighbours: at first each frame is a run, and
the two neighbouring runs whose union adds least to the squared error become one, until few enough are left. A pool's
vector is the mean of its frames. Boundaries depend on the vectors of one window alone, so neither the number of workers
nor the order of their work matters.
"""

from collections.abc import Iterable, Iterator

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline import schema
from pipeline.grid import Grid, Part, Span, list_certain_windows, plan_windows
from pipeline.index.tables import to_matrix

FRAMES_PER_POOL = 25
"""Frames in a pool, on average: one second. Of a million frames with events of 0.2 to 4 s, the 100 best pools of this
size hold 99.9 % of the 20 best events; of pools cut every second, the best 1,000 do."""

Vectors = npt.NDArray[np.float16]


def count_pools(n_frames: int, frames_per_pool: int = FRAMES_PER_POOL) -> int:
    """How many pools the own frames of a window are cut into."""
    return -(-n_frames // frames_per_pool)


def pool_frames(vectors: Vectors, frames_per_pool: int = FRAMES_PER_POOL) -> tuple[npt.NDArray[np.int32], Vectors]:
    """Cut the frames of one window, (n, D), into runs of like frames.

    Returns:
        The first frame of each run, and the means of the runs: (``count_pools(n)``,) and (``count_pools(n)``, D).
    """
    n = len(vectors)
    sums = vectors.astype(np.float32)
    means = sums.copy()
    sizes, before, after = [1] * n, list(range(-1, n - 1)), list(range(1, n + 1))
    costs = np.full(n, np.inf)  # of merging a run, known by its first frame, with the next one
    change = np.diff(means, axis=0)
    costs[:-1] = np.vecdot(change, change) / 2
    difference = np.empty(vectors.shape[1], np.float32)

    def price(first: int, second: int) -> float:
        """What merging two runs adds to the squared error."""
        np.subtract(means[first], means[second], out=difference)
        size, other = sizes[first], sizes[second]
        return float(difference.dot(difference)) * (size * other / (size + other))

    for _ in range(n - count_pools(n, frames_per_pool)):
        first = int(costs.argmin())  # of equals, the earliest
        second = after[first]
        sums[first] += sums[second]
        sizes[first] += sizes[second]
        np.multiply(sums[first], 1 / sizes[first], out=means[first])
        costs[first] = costs[second] = np.inf
        after[first] = third = after[second]
        if third < n:
            before[third] = first
            costs[first] = price(first, third)
        if first:
            costs[before[first]] = price(before[first], first)
    starts = [0] * (n > 0)
    while starts and after[starts[-1]] < n:
        starts.append(after[starts[-1]])
    return np.array(starts, np.int32), means[starts].astype(np.float16)


def pool_rows(frames: pa.RecordBatch) -> pa.RecordBatch:
    """The rows of ``pools`` for rows of ``frames``: those that one window owns, in order."""
    vectors = to_matrix(frames["vector"])
    starts, means = pool_frames(vectors)
    pools = schema.pools_schema(vectors.shape[1])
    values = pa.FixedSizeListArray.from_arrays(pa.array(means.reshape(-1)), vectors.shape[1])
    columns = {
        "audio_id": frames["audio_id"].slice(0, len(starts)),
        "first_frame": pa.array(frames["frame"].to_numpy()[starts]),
        "n_frames": pa.array(np.diff(starts, append=len(vectors)).astype(np.int32)),
        "batch_id": frames["batch_id"].slice(0, len(starts)),
        "vector": values.cast(pools.field("vector").type),
    }
    return pa.RecordBatch.from_arrays([columns[name] for name in pools.names], schema=pools)


# --- pools of frames that are stored already --------------------------------------------------------------------------


def pool_stored(pieces: Iterable[pa.RecordBatch], grid: Grid) -> Iterator[pa.RecordBatch]:
    """The pools of rows of ``frames`` in the order in which they are stored, window by window.

    The frames of one audio follow each other. Where some are missing, the rest is cut as if it were an audio of its
    own. Two windows are in memory at a time, and the piece that was read last.
    """
    held: _Held | None = None
    for piece in pieces:
        for rows in _split(piece):
            if held is not None and not held.goes_on_with(rows):
                yield from held.finish()
                held = None
            held = held or _Held(rows, grid)
            yield from held.add(rows)
    if held is not None:
        yield from held.finish()


def _split(piece: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    """The parts of a piece in which the frames of one audio count on by one."""
    if not piece.num_rows:
        return
    audio, frame = piece["audio_id"].dictionary_encode().indices.to_numpy(), piece["frame"].to_numpy()
    begins = np.flatnonzero((np.diff(audio) != 0) | (np.diff(frame) != 1)) + 1
    for begin, end in zip([0, *begins], [*begins, piece.num_rows], strict=True):
        yield piece.slice(begin, end - begin)


class _Held:
    """The newest frames of an audio, from ``rows`` on: those of windows that may still change."""

    def __init__(self, rows: pa.RecordBatch, grid: Grid) -> None:
        self._audio_id, self._first = rows["audio_id"][0], rows["frame"][0].as_py()
        self._grid, self._window = grid, 0
        self._table = pa.Table.from_batches([], rows.schema)
        self._at = 0
        """The number of the first row of ``_table``, from that of the first frame."""

    def goes_on_with(self, rows: pa.RecordBatch) -> bool:
        frame = self._first + self._at + self._table.num_rows
        return bool(rows["audio_id"][0] == self._audio_id and rows["frame"][0].as_py() == frame)

    def add(self, rows: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
        self._table = pa.concat_tables([self._table, pa.Table.from_batches([rows])])
        n_frames = self._at + self._table.num_rows
        yield from self._pool(list_certain_windows(n_frames, self._grid, Part(self._window)))

    def finish(self) -> Iterator[pa.RecordBatch]:
        n_frames = self._at + self._table.num_rows
        return self._pool(plan_windows(n_frames, self._grid, self._window))

    def _pool(self, spans: list[Span]) -> Iterator[pa.RecordBatch]:
        for span in spans:
            n_own = span.own_stop - span.own_first
            [own] = self._table.slice(span.own_first - self._at, n_own).combine_chunks().to_batches()
            yield pool_rows(own)
            self._window += 1
            self._table = self._table.slice(span.own_stop - self._at)
            self._at = span.own_stop
