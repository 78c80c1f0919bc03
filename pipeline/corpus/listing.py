"""The files of a corpus as they are found in, one table of them out: each once, in the order of uris.

Rows are put into Arrow as they come: a million files take some hundred megabytes, not gigabytes.
"""

import gc
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import CorpusError
from pipeline.schema import LISTED, Row

ROWS_AT_ONCE, ROWS_PER_REPORT = 10_000, 1_000


@contextmanager
def gc_paused() -> Iterator[None]:
    """Let Python not look for garbage in cycles, while millions of objects are made that are none: a third of the time.

    Also a decorator.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


class Listing:
    """Takes rows of LISTED; of several with one uri, the first one counts.

    Args:
        report: told now and then how many rows there are.
    """

    def __init__(self, report: Callable[[int], None] = lambda n_rows: None) -> None:
        self._report, self._n_rows = report, 0
        self._rows: list[Row] = []
        self._batches: list[pa.RecordBatch] = []

    def add(self, row: Row) -> None:
        self._rows.append(row)
        if len(self._rows) % ROWS_PER_REPORT == 0:
            self._report(self._n_rows + len(self._rows))
        if len(self._rows) >= ROWS_AT_ONCE:
            self._flush()

    def extend(self, rows: pa.Table) -> None:
        """Take the rows of a LISTED table."""
        self._flush()
        self._batches += rows.to_batches()
        self._n_rows += rows.num_rows
        self._report(self._n_rows)

    def _flush(self) -> None:
        self._n_rows += len(self._rows)
        self._batches += to_table(self._rows).to_batches()
        self._rows = []

    def to_table(self) -> pa.Table:
        """Every file once.

        Raises:
            CorpusError: one of two with the same uri is a range of a recording, the other one a file that is called so.
        """
        self._flush()
        rows = pa.Table.from_batches(self._batches, schema=LISTED)
        self._batches = []
        order = pc.sort_indices(
            pa.table({"uri": rows["uri"], "found": np.arange(rows.num_rows)}),
            sort_keys=[("uri", "ascending"), ("found", "ascending")],
        )
        rows = rows.take(order)
        if rows.num_rows < 2:
            return rows
        again = np.asarray(pc.equal(rows["uri"].slice(1), rows["uri"].slice(0, rows.num_rows - 1)))
        if not again.any():
            return rows
        _check_ranges(rows, np.flatnonzero(again))
        return rows.filter(pa.array(np.concatenate([[True], ~again])))


def _check_ranges(rows: pa.Table, before_again: Any) -> None:
    """Rows that have the uri of the one before are of the same range."""
    for name in ("start_s", "end_s"):
        one, other = (pc.fill_null(rows[name].take(pa.array(before_again + k)), -1.0) for k in (0, 1))
        differs = pc.not_equal(one, other)
        if pc.any(differs).as_py():
            uri = rows["uri"][int(before_again[pc.index(differs, True).as_py()])]
            raise CorpusError(f"{uri}: the name of a file, and of a range in a manifest: rename the file")


def to_table(rows: Iterable[Row]) -> pa.Table:
    """Rows as a LISTED table."""
    return pa.Table.from_pylist(list(rows), schema=LISTED)
