"""The rows of the files that are found, and the table that they become: each file once, in the order of uris.

Rows are put into Arrow as they come: a million files take some hundred megabytes, not gigabytes.
"""

import gc
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.corpus.shards import is_shard
from pipeline.errors import CorpusError
from pipeline.schema import LISTED, Row

ROWS_AT_ONCE, ROWS_PER_REPORT = 10_000, 1_000

ADVICE = "; if it was renamed or is given up, see --move-source and --forget of `earshot index`"
"""The end of a message about a source that is not there."""


def listed_row(
    path: str,
    size_bytes: int = 0,
    modified_ns: int = 0,
    reason: str | None = None,
    message: str | None = None,
    offset: int | None = None,
    hides_files: bool = False,
) -> Row:
    """The LISTED row of a file that is no time range."""
    try:
        path.encode()
    except UnicodeEncodeError:
        # Tables hold UTF-8 only: the name is shown escaped, and the file is left to be renamed.
        path = _encode(path).decode("utf-8", "backslashreplace")
        if reason != "bad_name":
            reason, message = "bad_name", "the file's name is not UTF-8: rename it"
    where = dict(uri=path, start_s=None, end_s=None, size_bytes=size_bytes, modified_ns=modified_ns, offset=offset)
    hides_files = hides_files or (reason == "unreadable" and is_shard(path))
    return {**where, "reason": reason, "message": message, "hides_files": hides_files}


def _encode(path: str) -> bytes:
    """The bytes of a name as they are on a disk; escaped, if none can have it."""
    try:
        return os.fsencode(path)
    except UnicodeEncodeError:
        return path.encode("utf-8", "backslashreplace")


def named_row(row: Row) -> Row:
    """The row of a file that a source names, or its pattern matches: only such files can be manifests."""
    return {**row, "named": row["reason"] is None}


@contextmanager
def gc_paused() -> Iterator[None]:
    """Pause Python's search for cyclic garbage, which takes a third of the time where millions of objects are made.

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
    """Collects rows of LISTED. If several have the same uri, the first one counts.

    Args:
        report: receives the number of rows, now and then.
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
            CorpusError: two have the same uri, one as a range of a recording, the other as a file with this very name.
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
    """Refuse rows that have the uri of the row before, but another time range."""
    for name in ("start_s", "end_s"):
        one, other = (pc.fill_null(rows[name].take(pa.array(before_again + k)), -1.0) for k in (0, 1))
        differs = pc.not_equal(one, other)
        if pc.any(differs).as_py():
            uri = rows["uri"][int(before_again[pc.index(differs, True).as_py()])]
            raise CorpusError(f"{uri}: the name of a file, and of a range in a manifest: rename the file")


def to_table(rows: Iterable[Row]) -> pa.Table:
    """Rows as a LISTED table."""
    return pa.Table.from_pylist(list(rows), schema=LISTED)
