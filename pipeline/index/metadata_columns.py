"""Metadata of the corpus and the ledger in, rows of ``files`` and ``clips`` with metadata columns out."""

import bisect
from functools import cached_property

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.corpus.metadata import ROWS_AT_ONCE, CorpusMetadata, in_one_piece
from pipeline.corpus.metadata_types import common_type


class _Rows:
    """The rows of a table by ``uri``; if several rows have the same, the first one. Looking up a few of many rows does
    not read them all."""

    def __init__(self, table: pa.Table) -> None:
        self.table = table

    @cached_property
    def _in_one_piece(self) -> pa.Table:
        return in_one_piece(self.table)

    @cached_property
    def _order(self) -> pa.Array:
        return pc.sort_indices(self.table["uri"])  # stable: of equal ones, the first comes first

    @cached_property
    def _sorted(self) -> pa.Array:
        return self._in_one_piece["uri"].take(self._order).combine_chunks()

    def find(self, uris: pa.ChunkedArray) -> pa.Array:
        """The positions of their rows; null where there is none."""
        if len(uris) > len(self.table) // 100:
            return pc.index_in(uris, value_set=self.table["uri"])
        return pa.array([self._find(uri) for uri in uris.to_pylist()], pa.int64())

    def take(self, positions: pa.Array) -> pa.Table:
        """The rows at these positions; null where a position is."""
        return self._in_one_piece.take(positions)

    def _find(self, uri: str) -> int | None:
        at = bisect.bisect_left(self._sorted, uri, key=lambda other: other.as_py())
        is_there = at < len(self._sorted) and self._sorted[at].as_py() == uri
        return int(self._order[at].as_py()) if is_there else None


class MetadataColumns:
    """The values that each file of an index has in its metadata columns after this run.

    A column that the sources give holds their values; a column that they no longer give keeps its own. Files that were
    deleted keep all values.

    Args:
        given: the values of the sources, in the types of the ledger or wider ones.
        stored: the ledger before this run: ``uri``, ``status`` and the metadata columns.
    """

    def __init__(self, given: CorpusMetadata, stored: pa.Table) -> None:
        self.notes = given.notes
        self._given, self._stored = _Rows(given.table), _Rows(stored)
        types = {column.name: column.type for table in (stored, given.table) for column in table.schema}
        self.columns = pa.schema([(name, kind) for name, kind in types.items() if name not in ("uri", "status")])
        """The metadata columns after this run: maybe more than now, or wider types."""

    def over(self, former: pa.Table) -> "MetadataColumns":
        """The same columns, with the values of a former ledger in those whose types can hold them."""
        both = [self._as_wide(ledger) for ledger in (self._stored.table, former)]
        return MetadataColumns(
            CorpusMetadata(self._given.table, self.notes), pa.concat_tables(both, promote_options="default")
        )

    def _as_wide(self, ledger: pa.Table) -> pa.Table:
        """``uri``, ``status`` and the columns whose values fit into the types of ``columns``, in those types.

        Integers of more than 53 bits are rounded where they become floats, as in the tables.
        """
        types = {column.name: column.type for column in self.columns}
        types |= {name: ledger.schema.field(name).type for name in ("uri", "status")}
        fits = [
            c.name for c in ledger.schema if c.name in types and common_type(c.type, types[c.name]) == types[c.name]
        ]
        return ledger.select(fits).cast(pa.schema([(name, types[name]) for name in fits]), safe=False)

    def join(self, files: pa.Table) -> pa.Table:
        """Ledger rows with their metadata."""
        if not self.columns.names:
            return files
        given, stored = (rows.take(rows.find(files["uri"])) for rows in (self._given, self._stored))
        return _append(files, self._values(given, stored, files["status"]))

    def join_to_clips(self, clips: pa.Table, files: pa.Table) -> pa.Table:
        """Clips with the metadata of ``files``, which have theirs already."""
        if not self.columns.names:
            return clips
        positions = pc.index_in(clips["file_id"], value_set=files["file_id"])
        return _append(clips, files.select(self.columns.names).take(positions))

    def outdated(self) -> set[str]:
        """The uris of files in the ledger, not deleted, whose stored metadata is out of date."""
        names = self._given.table.column_names[1:]
        if not names:
            return set()
        places = self._given.find(self._stored.table["uri"])
        found: set[str] = set()
        for first in range(0, len(places), ROWS_AT_ONCE):
            stored = self._stored.table.slice(first, ROWS_AT_ONCE)
            wanted = self._values(self._given.take(places.slice(first, ROWS_AT_ONCE)), stored, stored["status"])
            differ = pa.repeat(pa.scalar(False), len(stored))
            for name in names:
                kind = wanted[name].type
                is_stored = name in stored.column_names
                old = stored[name].cast(kind, safe=False) if is_stored else pa.nulls(len(stored), kind)
                differ = pc.or_(differ, _differ(old, wanted[name]))
            found.update(stored["uri"].filter(differ).to_pylist())
        return found

    def _values(self, given: pa.Table, stored: pa.Table, status: pa.ChunkedArray) -> pa.Table:
        """The ``columns`` of some files, from the given and the stored row of each."""
        is_deleted = pc.equal(status, "deleted")
        columns: dict[str, pa.ChunkedArray] = {}
        for name, kind in zip(self.columns.names, self.columns.types, strict=True):
            old, now = (t[name].cast(kind, safe=False) if name in t.column_names else None for t in (stored, given))
            if old is not None and now is not None:
                columns[name] = pc.if_else(is_deleted, old, now)
            else:
                columns[name] = old if now is None else pc.if_else(is_deleted, pa.scalar(None, kind), now)
        return pa.table(columns, schema=self.columns)


def _append(table: pa.Table, values: pa.Table) -> pa.Table:
    for column in values.schema:
        table = table.append_column(column, values[column.name])
    return table


def _differ(one: pa.ChunkedArray, other: pa.ChunkedArray) -> pa.ChunkedArray:
    """Where values differ; null is a value."""
    return pc.or_(pc.fill_null(pc.not_equal(one, other), False), pc.xor(pc.is_null(one), pc.is_null(other)))
