"""What the user's tables say of files and the ledger in, rows of ``files`` and ``clips`` with metadata columns out."""

import bisect
from functools import cached_property

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.metadata import Given, common_type


class _Places:
    """Where each uri is, of many. A few are looked up without a look at all of them."""

    def __init__(self, uris: pa.ChunkedArray) -> None:
        self._all = uris

    @cached_property
    def _order(self) -> pa.Array:
        return pc.sort_indices(self._all)  # stable: of equal ones, the first comes first

    @cached_property
    def _sorted(self) -> pa.Array:
        return self._all.cast(pa.large_string()).take(self._order).combine_chunks()

    def find(self, uris: pa.ChunkedArray) -> pa.Array:
        """Positions; null where there is none."""
        if len(uris) > len(self._all) // 100:
            return pc.index_in(uris, value_set=self._all)
        return pa.array([self._find(uri) for uri in uris.to_pylist()], pa.int64())

    def _find(self, uri: str) -> int | None:
        at = bisect.bisect_left(self._sorted, uri, key=lambda other: other.as_py())
        is_there = at < len(self._sorted) and self._sorted[at].as_py() == uri
        return int(self._order[at].as_py()) if is_there else None


class Metadata:
    """What each file of an index has in its metadata columns, when this run is through.

    A column that the sources give holds what they say; one that they do not give any more keeps what it holds. Files
    that are gone keep all.

    Args:
        given: what the sources say, in the types of the ledger or wider ones.
        stored: the ledger as it was: ``uri``, ``status`` and the metadata columns.
    """

    def __init__(self, given: Given, stored: pa.Table) -> None:
        self.notes = given.notes
        self._given, self._stored = given.table, stored
        self._given_places, self._stored_places = _Places(given.table["uri"]), _Places(stored["uri"])
        types = {column.name: column.type for table in (stored, given.table) for column in table.schema}
        self.columns = pa.schema([(name, kind) for name, kind in types.items() if name not in ("uri", "status")])
        """All that the tables have when this run is through; maybe more than they have now, or in wider types."""

    def over(self, former: pa.Table) -> "Metadata":
        """The same columns, with what a former ledger held in those of them whose types can hold it."""
        both = [self._as_wide(ledger) for ledger in (self._stored, former)]
        return Metadata(Given(self._given, self.notes), pa.concat_tables(both, promote_options="default"))

    def _as_wide(self, ledger: pa.Table) -> pa.Table:
        """``uri``, ``status`` and those columns whose values fit into the types of ``columns``, in these types."""
        types = {column.name: column.type for column in self.columns}
        types |= {name: ledger.schema.field(name).type for name in ("uri", "status")}
        fits = [
            c.name for c in ledger.schema if c.name in types and common_type(c.type, types[c.name]) == types[c.name]
        ]
        return ledger.select(fits).cast(pa.schema([(name, types[name]) for name in fits]))

    def attach(self, files: pa.Table) -> pa.Table:
        """Ledger rows with their metadata."""
        if not self.columns.names:
            return files
        return _append(files, self._values(files["uri"], files["status"]))

    def attach_to_clips(self, clips: pa.Table, files: pa.Table) -> pa.Table:
        """Clips with the metadata of their files, which have theirs."""
        if not self.columns.names:
            return clips
        positions = pc.index_in(clips["file_id"], value_set=files["file_id"])
        return _append(clips, files.select(self.columns.names).take(positions))

    def outdated(self) -> set[str]:
        """Files of the ledger, not gone, that hold other values than they should."""
        if self._given.num_columns == 1:
            return set()
        wanted = self._values(self._stored["uri"], self._stored["status"])
        differ = pa.repeat(pa.scalar(False), len(self._stored))
        for name in self._given.column_names[1:]:
            is_stored = name in self._stored.column_names
            kind = wanted[name].type
            old = self._stored[name].cast(kind) if is_stored else pa.nulls(len(self._stored), kind)
            differ = pc.or_(differ, _differ(old, wanted[name]))
        return set(self._stored["uri"].filter(differ).to_pylist())

    def _values(self, uris: pa.ChunkedArray, status: pa.ChunkedArray) -> pa.Table:
        given = self._given.take(self._given_places.find(uris))
        stored = self._stored.take(self._stored_places.find(uris))
        is_gone = pc.equal(status, "deleted")
        columns: dict[str, pa.ChunkedArray] = {}
        for column in self.columns:
            is_stored, is_given = (column.name in table.column_names for table in (stored, given))
            old = stored[column.name].cast(column.type) if is_stored else pa.scalar(None, column.type)
            now = pc.if_else(is_gone, old, given[column.name]) if is_given else old
            columns[column.name] = now.cast(column.type)
        return pa.table(columns, schema=self.columns)


def _append(table: pa.Table, values: pa.Table) -> pa.Table:
    for column in values.schema:
        table = table.append_column(column, values[column.name])
    return table


def _differ(one: pa.ChunkedArray, other: pa.ChunkedArray) -> pa.ChunkedArray:
    """Where values differ; null is a value."""
    return pc.or_(pc.fill_null(pc.not_equal(one, other), False), pc.xor(pc.is_null(one), pc.is_null(other)))
