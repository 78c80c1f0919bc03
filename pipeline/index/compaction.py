"""Compaction: a table's small fragments become few large ones."""

from typing import Any

from pipeline.index.tables import FILE_FORMAT

ROWS_PER_FRAGMENT = 250_000
"""Fragments with fewer rows are merged, up to this size: half a gigabyte of frames of 1,024 numbers."""

ROWS_TO_COPY = 4_000
"""From this many rows a fragment, on average, pages are copied as they are. That is several times as fast as encoding
them again, but each page is read by itself: many pages of a few rows would slow down every query."""

FRAGMENTS_BETWEEN = 8
"""Up to this many small fragments stay unmerged: in the journal, and at the end of a run in ``files`` and ``clips``."""


def compact(table: Any) -> Any:
    """Merge the small fragments of ``table``, in order, and drop deleted rows from their files. Makes two versions: the
    first reserves the numbers of fragments."""
    small = small_fragments(table)
    table.optimize.compact_files(
        target_rows_per_fragment=ROWS_PER_FRAGMENT,
        compaction_mode="try_binary_copy" if sum(small) > ROWS_TO_COPY * len(small) else "reencode",
        data_storage_version=FILE_FORMAT,
    )
    return table


def small_fragments(table: Any) -> list[int]:
    """The number of rows of each fragment that could be merged."""
    return [n for fragment in table.get_fragments() if (n := fragment.count_rows()) < ROWS_PER_FRAGMENT]
