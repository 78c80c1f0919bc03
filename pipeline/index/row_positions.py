"""Where the rows of a table lie: row ids, which number each fragment anew, as positions that count through all of them.

Consecutive rows of an audio have consecutive positions also where a fragment ends between them. Deleted rows have
positions too, so positions follow from the sizes of the fragments alone.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Integers = npt.NDArray[np.int64]


class RowPositions:
    """The positions of the rows of a table, whose fragments have these ``ids`` and ``sizes``, in order."""

    def __init__(self, ids: Sequence[int], sizes: Sequence[int]) -> None:
        self._ids = np.asarray(ids, np.int64)
        self._stops = np.cumsum(np.asarray(sizes, np.int64))
        self._starts = self._stops - np.asarray(sizes, np.int64)
        self._by_id = np.argsort(self._ids)

    @classmethod
    def of_table(cls, table: Any) -> "RowPositions":
        """Those of a ``lance.LanceDataset`` without stable row ids."""
        fragments = [fragment.metadata for fragment in table.get_fragments()]
        return cls([fragment.id for fragment in fragments], [fragment.physical_rows for fragment in fragments])

    def of(self, row_ids: npt.ArrayLike) -> Integers:
        """The positions of rows."""
        rows = np.asarray(row_ids, np.int64)
        at = np.searchsorted(self._ids[self._by_id], rows >> 32)
        return self._starts[self._by_id[at]] + (rows & 0xFFFF_FFFF)

    def to_row_ids(self, positions: Integers) -> Integers:
        """The row ids at ``positions``; -1 outside of the table."""
        if not len(self._ids):
            return np.full(len(positions), -1, np.int64)
        at = np.minimum(np.searchsorted(self._stops, positions, side="right"), len(self._ids) - 1)
        row_ids = (self._ids[at] << 32) + positions - self._starts[at]
        return np.where((positions >= 0) & (positions < self._stops[-1]), row_ids, -1)
