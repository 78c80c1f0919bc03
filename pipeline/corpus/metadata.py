"""Metadata: the columns that users' own tables hold about files, read into one Arrow table by uri.

They are the columns of manifests, of the metadata table ``corpus.metadata`` and of tables with audio, except ``uri``,
``start_s`` and ``end_s``. If several tables have a value for the same column of a file, the first one counts: the order
is ``corpus.metadata``, the manifests as the sources name them, the table that holds the file; and within a table, the
rows. Values stay in Arrow all the way: a million files with a few columns take as much memory as their bytes.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline import schema
from pipeline.config import CorpusConfig
from pipeline.corpus.manifest import COLUMNS, find_near_misses, name_files
from pipeline.corpus.metadata_types import LEAVE_OUT, common_type, example, normalize, show, store_as, stored_type
from pipeline.corpus.shards import is_audio_table, shards_of
from pipeline.corpus.table_columns import Memory, read_columns
from pipeline.corpus.table_files import check_once, clean_name, is_csv, read_table_file
from pipeline.corpus.time_ranges import split_uri
from pipeline.errors import CorpusError, one_line
from pipeline.storage import map_in_threads

MOST_NOTES = 20
"""Notes to a person: a thousand tables may have the same fault."""

ROWS_AT_ONCE = 100_000
"""Rows whose values are compared or joined at the same time."""

_INDEX = "the index"
_ENGINE = ("_rowid", "_rowaddr", "_rowoffset", "_distance", "_score", "_relevance_score")


@dataclass(frozen=True)
class MetadataTable:
    """One table of a user: ``uri`` and its metadata columns."""

    path: str
    table: pa.Table
    notes: tuple[str, ...] = ()
    """One line for each column that is left out, with the reason."""

    @property
    def names(self) -> list[str]:
        return [name for name in self.table.column_names if name != "uri"]


@dataclass(frozen=True)
class CorpusMetadata:
    """The metadata of a corpus: ``uri`` and the columns, one row for each file that a table has."""

    table: pa.Table = field(default_factory=lambda: pa.table({"uri": pa.array([], pa.string())}))
    notes: tuple[str, ...] = ()
    """One line for each thing that a person should know about it."""


def read_metadata(
    listed: pa.Table, manifests: Sequence[str], config: CorpusConfig, stored: pa.Schema
) -> CorpusMetadata:
    """The metadata of the files of a corpus.

    Args:
        listed: a LISTED table. manifests: those that the sources name.
        stored: the metadata columns of the index, whose types have to hold the values.

    Raises:
        CorpusError: naming the file, the column and a value.
    """
    tables = [_read(path, config) for path in dict.fromkeys([*filter(None, [config.metadata]), *manifests])]
    memory = Memory()
    tables += map_in_threads(lambda one: _read_rows(*one, config, memory), _tables_of_audio(listed))
    notes = [note for one in tables for note in one.notes]
    if len(notes) > MOST_NOTES:
        notes = [*notes[: MOST_NOTES - 1], f"and {len(notes) - MOST_NOTES + 1} more such lines"]
    tables = [one for one in _agree(tables, stored) if one.names]
    if not tables:
        return CorpusMetadata(notes=tuple(notes))
    table, strange = _join(tables, listed["uri"], config.metadata)
    del tables  # from here on, only the table that they became is in memory
    table, doubled = _first_values(table)
    table = table.combine_chunks()
    pa.default_memory_pool().release_unused()  # memory for later steps that do not use Arrow
    return CorpusMetadata(table, (*notes, *strange, *doubled))


def _join(
    tables: list[MetadataTable], listed: pa.ChunkedArray, metadata_table: str | None
) -> tuple[pa.Table, list[str]]:
    """The rows of all tables that belong to files of the corpus, and notes on the others.

    One look-up serves all tables: a look-up for each would scan the whole corpus each time.
    """
    table = pa.concat_tables([one.table for one in tables], promote_options="default")
    table = table.set_column(0, "uri", _with_ranges(table["uri"], listed))
    is_listed = pc.is_in(table["uri"], value_set=listed)
    if pc.all(is_listed).as_py():
        return table, []
    n_first = len(tables[0].table) if tables[0].path == metadata_table else 0
    notes = _note_strange(str(metadata_table), table["uri"][:n_first], is_listed[:n_first])
    return table.filter(is_listed), notes


def _note_strange(path: str, uris: pa.ChunkedArray, is_listed: pa.ChunkedArray) -> list[str]:
    """A line on the rows of ``corpus.metadata`` that belong to no file, if there are any. At least one must."""
    strange = uris.filter(pc.invert(is_listed))
    if not len(strange):
        return []
    if len(strange) == len(uris):
        n_rows = f"{len(strange):,}"
        raise CorpusError(
            f"{path}: none of its rows ({n_rows}) belongs to a file of the corpus; the first one is {strange[0]}"
        )
    said = "1 row belongs" if len(strange) == 1 else f"{len(strange)} rows belong"
    return [f"{path}: {said} to no file of the corpus; the first one is {strange[0]}"]


def _with_ranges(uris: pa.ChunkedArray, listed: pa.ChunkedArray) -> pa.ChunkedArray:
    """The same uris; those of time ranges in the spelling of the corpus."""
    is_other = pc.and_(pc.match_substring(uris, "#t="), pc.invert(pc.is_in(uris, value_set=listed)))
    if not pc.any(is_other).as_py():
        return uris
    normal = ["".join(map(str, split_uri(uri))) for uri in uris.filter(is_other).to_pylist()]
    return pc.replace_with_mask(uris.combine_chunks(), is_other.combine_chunks(), pa.array(normal))


def _tables_of_audio(listed: pa.Table) -> Iterator[tuple[str, pa.Table]]:
    """Each table with audio, and ``uri`` and ``offset`` of its rows, which are neighbours in ``listed``."""
    members = listed.select(["uri", "offset"]).filter(pc.is_valid(listed["offset"]))
    first = 0
    for shard, n_rows in map(dict.values, pc.value_counts(shards_of(members["uri"])).to_pylist()):
        if shard is not None and is_audio_table(shard):
            yield shard, members.slice(first, n_rows)
        first += n_rows


def _read(path: str, config: CorpusConfig) -> MetadataTable:
    table = read_table_file(path, as_text=COLUMNS)
    if is_csv(path) and (times := [column.name for column in table.schema if pa.types.is_time(column.type)]):
        table = read_table_file(path, as_text=[*COLUMNS, *times])
    named = name_files(path, table)
    uris = iter(lambda: [f"{uri}{time_range}" for uri, time_range in islice(named, ROWS_AT_ONCE)], [])
    kept = pa.table({"uri": pa.chunked_array(uris, pa.string()), **_choose(path, table, config)})
    return MetadataTable(path, kept, tuple(_note_near_misses(path, table.column_names, config)))


def _note_near_misses(path: str, names: list[str], config: CorpusConfig) -> Iterator[str]:
    """A line on each column that may be meant to give time ranges and does not, unless ``corpus.columns`` names it."""
    for name in find_near_misses(names):
        if config.columns is None or name not in config.columns:
            is_ = "metadata" if _is_wanted(name, config) else "left out"
            yield f"{path}: column `{name}` is {is_}; a range is given by `start_s` and `end_s`"


def _choose(path: str, table: pa.Table, config: CorpusConfig) -> dict[str, pa.ChunkedArray]:
    """The columns of a table that are kept, in the types in which they are stored. Refuses a column that cannot be
    stored, has a name that SQL cannot have, or occurs twice."""
    kept: dict[str, pa.ChunkedArray] = {}
    for name, column in zip(table.column_names, table.columns, strict=True):
        if name in COLUMNS or not _is_wanted(name, config):
            continue
        if pa.types.is_null(column.type) and _refuse_name(name, kept):
            continue
        check_once(path, table, [name])
        if why := _refuse_name(name, kept):
            meant = find_near_misses(table.column_names).get(name)
            advice = f"rename it, to `{meant}` if it gives time ranges" if meant else "rename it"
            raise CorpusError(f"{path}: column `{name}`{example(column)}: {why}: {advice}, {LEAVE_OUT}")
        kept[name] = normalize(path, name, column)
    return kept


def _is_wanted(name: str, config: CorpusConfig) -> bool:
    # pandas stores its row numbers under these names.
    return name in config.columns if config.columns is not None else not name.startswith("__index_level_")


def _refuse_name(name: str, others: Iterable[str]) -> str | None:
    """Why a column cannot have this name. In SQL, names that differ only in case are the same."""
    if not name.strip() or not name.isprintable() or "." in name or "`" in name:
        return "a name that no `--where` can use"
    if name.casefold() in {reserved.casefold() for reserved in (*schema.RESERVED, *_ENGINE)}:
        return "Earshot's own tables have a column of this name"
    if name.casefold() in {other.casefold() for other in others}:
        return "another column has this name"
    return None


# --- tables with audio ------------------------------------------------------------------------------------------------


def _read_rows(shard: str, here: pa.Table, config: CorpusConfig, memory: Memory) -> MetadataTable:
    """The columns beside the audio, of the rows of the corpus: ``here`` has their ``uri`` and ``offset``.

    Users often did not make such tables: a column that cannot be stored is left out.
    """

    def is_kept(column: pa.Field) -> bool:
        name = clean_name(column.name)
        is_storable = stored_type(column.type) is not None and not _refuse_name(name, ())
        return is_storable and name not in COLUMNS and _is_wanted(name, config)

    try:
        table, notes = read_columns(shard, is_kept, memory)
        columns = [column.take(here["offset"]) for column in table.columns]
    except Exception as error:  # each store has errors of its own; the audio may be readable
        return MetadataTable(shard, here.select(["uri"]), (f"{shard}: its metadata cannot be read: {one_line(error)}",))
    kept: dict[str, pa.ChunkedArray] = {}
    for name, column in zip(map(clean_name, table.column_names), columns, strict=True):
        if not _refuse_name(name, kept):
            try:
                kept[name] = normalize(shard, name, column)
            except CorpusError as error:
                notes.append(f"{error}: left out")
    return MetadataTable(shard, pa.table({"uri": here["uri"], **kept}), tuple(notes))


# --- several tables ---------------------------------------------------------------------------------------------------


def _agree(tables: list[MetadataTable], stored: pa.Schema) -> list[MetadataTable]:
    """All tables with one type for each column, which can hold the values of all: that of the index, or a wider one.

    A column without any value has no type, and is left out if no other table gives it one. A column of CSV that looks
    like numbers is text if another table has text in it.
    """
    types: dict[str, tuple[pa.DataType, str]] = {column.name: (column.type, _INDEX) for column in stored}
    text = {name for name, (kind, _) in types.items() if kind == pa.string()}
    text |= {name for one in tables for name in one.names if one.table[name].type == pa.string()}
    tables = [_as_text(one, text) for one in tables]
    for one in tables:
        for name in one.names:
            kind, origin = types.get(name, (pa.null(), one.path))
            common = common_type(kind, one.table[name].type)
            if why := _refuse_beside(name, types) if common is not None else f"in {origin} it is {kind}":
                rebuild = "; or build the index again with --rebuild" if origin == _INDEX else ""
                column = one.table[name]
                raise CorpusError(
                    f"{one.path}: column `{name}` is {column.type}{example(column)}, and {why}: rename it,"
                    f" {LEAVE_OUT}{rebuild}"
                )
            types[name] = (common, origin if common == kind else one.path)
    known = {name: kind for name, (kind, _) in types.items() if not pa.types.is_null(kind)}
    return [_cast(one, known) for one in tables]


def _refuse_beside(name: str, types: dict[str, tuple[pa.DataType, str]]) -> str | None:
    """Why a column cannot stand beside the others: SQL would not tell their names apart."""
    same = [(other, origin) for other, (_, origin) in types.items() if other.casefold() == name.casefold()]
    return f"{same[0][1]} has `{same[0][0]}`, the same name in SQL" if same and same[0][0] != name else None


def _as_text(one: MetadataTable, text: set[str]) -> MetadataTable:
    guessed = [name for name in one.names if name in text and one.table[name].type != pa.string()]
    if not is_csv(one.path) or not guessed:
        return one
    again = read_table_file(one.path, as_text=guessed)
    table = one.table
    for name in guessed:
        table = table.set_column(table.column_names.index(name), name, again[name])
    return replace(one, table=table)


def _cast(one: MetadataTable, types: dict[str, pa.DataType]) -> MetadataTable:
    """The columns whose types are known, in these types."""
    columns = {name: store_as(types[name], one.path, name, one.table[name]) for name in one.names if name in types}
    return replace(one, table=pa.table({"uri": one.table["uri"].cast(pa.string()), **columns}))


def _first_values(table: pa.Table) -> tuple[pa.Table, list[str]]:
    """One row for each uri, with the first value of each column; and a line on each column whose values differ."""
    uris = pc.unique(table["uri"])
    if len(uris) == len(table):
        return table, []
    files = np.asarray(pc.index_in(table["uri"], value_set=uris))
    found, notes = {"uri": pa.chunked_array([uris])}, list[str]()
    for name, column in zip(table.column_names[1:], in_one_piece(table).columns[1:], strict=True):
        rows = np.flatnonzero(column.is_valid())
        first = np.full(len(uris), len(table))
        np.minimum.at(first, files[rows], rows)
        taken = pa.array(first, mask=first == len(table))
        found[name] = pa.chunked_array(
            # All values in one piece can be too long for the type.
            [column.take(taken[at : at + ROWS_AT_ONCE]).chunk(0) for at in range(0, len(uris), ROWS_AT_ONCE)]
        ).cast(table.schema.field(name).type)
        later = rows[first[files[rows]] != rows]
        values, firsts = (column.take(pa.array(some)) for some in (later, first[files[later]]))
        differs = later[np.asarray(pc.not_equal(values, firsts), bool)]
        if len(differs):
            least, n_files = files[differs].min(), len(np.unique(files[differs]))
            said = "1 file has" if n_files == 1 else f"{n_files} files have"
            notes.append(
                f"column `{name}`: {said} several values; the first one counts:"
                f" {show(found[name][least].as_py())} for {uris[least]}"
            )
    return pa.table(found), notes


def in_one_piece(table: pa.Table) -> pa.Table:
    """The same rows in one chunk, for many look-ups: with several chunks, each look-up would copy them all. Texts get
    64-bit offsets: otherwise two gigabytes of text would need two chunks, in which Arrow cannot look up at all."""
    wide = {column.name: pa.large_string() if column.type == pa.string() else column.type for column in table.schema}
    return table.cast(pa.schema(list(wide.items()))).combine_chunks()
