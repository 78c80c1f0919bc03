"""What the user's own tables say of files: typed columns in, one Arrow table by uri out.

The columns of a manifest, of the sidecar ``corpus.metadata`` and of tables with audio, but for ``uri``, ``start_s`` and
``end_s``. Where several have a value for a column of a file, the first one counts: the sidecar, then the manifests in
the order of the sources, then the table that holds the file; within one, the first row. Values stay in Arrow all the
way: a million files with a few columns take as much memory as their bytes.
"""

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import islice

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline import schema
from pipeline.config import CorpusConfig
from pipeline.corpus import audio_tables
from pipeline.corpus.manifest import COLUMNS, find_near_misses, name_files
from pipeline.corpus.shards import is_audio_table, shards_of
from pipeline.corpus.table_files import check_once, clean_name, is_csv, read_table_file
from pipeline.corpus.time_ranges import split_uri
from pipeline.errors import CorpusError, one_line

TABLES_AT_ONCE = 16
"""Tables with audio that are read at once: that waits for disks and servers, not for cores."""

MOST_NOTES = 20
"""Lines on what cannot be read of tables: a thousand of them may have the same trouble."""

KINDS = "text, whole numbers, numbers, true or false, dates or times"
Rows = npt.NDArray[np.int64]

ROWS_AT_ONCE = 100_000
"""Rows whose values are compared or put together at a time."""

_INDEX = "the index"
_LEAVE_OUT = "or name the columns to keep in corpus.columns"
_ENGINE = ("_rowid", "_rowaddr", "_rowoffset", "_distance", "_score", "_relevance_score")
_INSTANT, _INSTANT_UTC = pa.timestamp("us"), pa.timestamp("us", tz="UTC")


@dataclass(frozen=True)
class MetadataTable:
    """One table: ``uri`` and its metadata columns."""

    path: str
    table: pa.Table
    notes: tuple[str, ...] = ()
    """Which columns are not there, and why, a line each."""

    @property
    def names(self) -> list[str]:
        return [name for name in self.table.column_names if name != "uri"]


@dataclass(frozen=True)
class CorpusMetadata:
    """What the sources say: a row for each file of which they say something, ``uri`` and the columns."""

    table: pa.Table = field(default_factory=lambda: pa.table({"uri": pa.array([], pa.string())}))
    notes: tuple[str, ...] = ()
    """What a person should know of it, a line each."""


def read_metadata(
    listed: pa.Table, manifests: Sequence[str], config: CorpusConfig, stored: pa.Schema
) -> CorpusMetadata:
    """The metadata of the files of a corpus.

    Args:
        listed: a LISTED table. manifests: those that its sources name.
        stored: the metadata columns that the index has; their types count.

    Raises:
        CorpusError: naming the file, the column and a value.
    """
    sheets = [_read(path, config) for path in dict.fromkeys([*filter(None, [config.metadata]), *manifests])]
    with ThreadPoolExecutor(TABLES_AT_ONCE) as pool:
        sheets += pool.map(lambda one: _read_rows(one[0], one[1], config), _tables_of_audio(listed))
    notes = [note for sheet in sheets for note in sheet.notes]
    if len(notes) > MOST_NOTES:
        notes = [*notes[: MOST_NOTES - 1], f"and {len(notes) - MOST_NOTES + 1} more such lines"]
    sheets = [sheet for sheet in _agree(sheets, stored) if sheet.names]
    if not sheets:
        return CorpusMetadata(notes=tuple(notes))
    table, strange = _join(sheets, listed["uri"], config.metadata)
    del sheets  # many tables in many pieces: the one that they become is held beside them only here
    table, doubled = _first_values(table)
    table = table.combine_chunks()
    pa.default_memory_pool().release_unused()  # for what comes next, and is not in Arrow
    return CorpusMetadata(table, (*notes, *strange, *doubled))


def _join(sheets: list[MetadataTable], listed: pa.ChunkedArray, sidecar: str | None) -> tuple[pa.Table, list[str]]:
    """The rows of all sheets that are of files of the corpus, and what is to be said of the others.

    All are looked up at once: for each sheet by itself, the whole corpus would be gone through again.

    Raises:
        CorpusError: none of the sidecar's is.
    """
    table = pa.concat_tables([sheet.table for sheet in sheets], promote_options="default")
    table = table.set_column(0, "uri", _with_ranges(table["uri"], listed))
    is_listed = pc.is_in(table["uri"], value_set=listed)
    if pc.all(is_listed).as_py():
        return table, []
    n_first = len(sheets[0].table) if sheets[0].path == sidecar else 0
    return table.filter(is_listed), _note_strange(str(sidecar), table["uri"][:n_first], is_listed[:n_first])


def _note_strange(path: str, uris: pa.ChunkedArray, is_listed: pa.ChunkedArray) -> list[str]:
    """A line on the rows of the sidecar that are of no file, if there are any.

    Raises:
        CorpusError: all of them are.
    """
    strange = uris.filter(pc.invert(is_listed))
    if not len(strange):
        return []
    if len(strange) == len(uris):
        raise CorpusError(
            f"{path}: of its {len(strange)} rows none is of a file of the corpus; the first one is {strange[0]}"
        )
    said = "1 row is" if len(strange) == 1 else f"{len(strange)} rows are"
    return [f"{path}: {said} of no file of the corpus; the first one is {strange[0]}"]


def _with_ranges(uris: pa.ChunkedArray, listed: pa.ChunkedArray) -> pa.ChunkedArray:
    """Uris that are written as those of ranges, as the corpus has them."""
    is_other = pc.and_(pc.match_substring(uris, "#t="), pc.invert(pc.is_in(uris, value_set=listed)))
    if not pc.any(is_other).as_py():
        return uris
    normal = ["".join(map(str, split_uri(uri))) for uri in uris.filter(is_other).to_pylist()]
    return pc.replace_with_mask(uris.combine_chunks(), is_other.combine_chunks(), pa.array(normal))


def _tables_of_audio(listed: pa.Table) -> Iterator[tuple[str, pa.Table]]:
    """Each table with audio, and ``uri`` and ``offset`` of its rows, which are listed one after the other."""
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
    uris = iter(lambda: [f"{uri}{part}" for uri, part in islice(named, ROWS_AT_ONCE)], [])
    kept = pa.table({"uri": pa.chunked_array(uris, pa.string()), **_choose(path, table, config)})
    return MetadataTable(path, kept, tuple(_note_near_misses(path, table.column_names, config)))


def _note_near_misses(path: str, names: list[str], config: CorpusConfig) -> Iterator[str]:
    """A line on each column that may be meant to give ranges and does not. Who keeps it by its name means metadata."""
    for name in find_near_misses(names):
        if config.columns is None or name not in config.columns:
            is_ = "metadata" if _is_wanted(name, config) else "left out"
            yield f"{path}: column `{name}` is {is_}; a range is given by `start_s` and `end_s`"


def _choose(path: str, table: pa.Table, config: CorpusConfig) -> dict[str, pa.ChunkedArray]:
    """The columns of a manifest or sidecar that are kept, each in its type.

    Raises:
        CorpusError: one cannot be stored, or not be asked for, or is there twice.
    """
    kept: dict[str, pa.ChunkedArray] = {}
    for name, column in zip(table.column_names, table.columns, strict=True):
        if name in COLUMNS or not _is_wanted(name, config):
            continue
        if pa.types.is_null(column.type) and _refuse_name(name, kept):
            continue
        check_once(path, table, [name])
        if why := _refuse_name(name, kept):
            meant = find_near_misses(table.column_names).get(name)
            advice = f"call it `{meant}`, if it gives ranges, or otherwise" if meant else "call it otherwise"
            raise CorpusError(f"{path}: column `{name}`{_example(column)}: {why}: {advice}, {_LEAVE_OUT}")
        kept[name] = _normal(path, name, column)
    return kept


def _is_wanted(name: str, config: CorpusConfig) -> bool:
    # Under these names, pandas stores the numbers of its rows.
    return name in config.columns if config.columns is not None else not name.startswith("__index_level_")


def _refuse_name(name: str, others: Iterable[str]) -> str | None:
    """Why a column cannot be called so. In SQL, names that differ only in case are one."""
    if not name.strip() or not name.isprintable() or "." in name or "`" in name:
        return "a name that no `--where` could have"
    if name.casefold() in {reserved.casefold() for reserved in (*schema.RESERVED, *_ENGINE)}:
        return "Earshot's tables have a column of this name themselves"
    if name.casefold() in {other.casefold() for other in others}:
        return "there is another one of this name"
    return None


def _example(column: pa.ChunkedArray) -> str:
    """The first value, in brackets."""
    valid = column.slice(0, 10_000).drop_null()
    return f" ({_show(valid[0].as_py())})" if len(valid) else ""


def _show(value: object) -> str:
    text = str(value)
    return repr(text if len(text) <= 40 else f"{text[:39]}…")


def _normal(path: str, name: str, column: pa.ChunkedArray) -> pa.ChunkedArray:
    """A column in one of the few types that are stored; numbers that are none become null."""
    kind = _stored_type(column.type)
    if kind is None:
        raise CorpusError(
            f"{path}: column `{name}` is {column.type}{_example(column)}, which cannot be stored: give {KINDS},"
            f" {_LEAVE_OUT}"
        )
    column = _store_as(kind, path, name, column)
    return pc.if_else(pc.is_nan(column), None, column) if kind == pa.float64() else column


def _store_as(kind: pa.DataType, path: str, name: str, column: pa.ChunkedArray) -> pa.ChunkedArray:
    """A column in a type, in which each of its values has to have a place.

    Raises:
        CorpusError: one has none.
    """
    try:
        return column.cast(kind, safe=not pa.types.is_timestamp(kind))
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise CorpusError(
            f"{path}: column `{name}` ({column.type}) cannot be stored as {kind}: {one_line(error)}"
        ) from None


def _stored_type(kind: pa.DataType) -> pa.DataType | None:
    """What a type is stored as; None if it cannot be."""
    if pa.types.is_null(kind):
        return kind
    if pa.types.is_dictionary(kind):
        return _stored_type(kind.value_type)
    if pa.types.is_boolean(kind):
        return pa.bool_()
    if pa.types.is_integer(kind):
        return pa.int64()
    if pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        return pa.float64()
    if pa.types.is_date(kind):
        return pa.date32()
    if pa.types.is_timestamp(kind):
        return _INSTANT_UTC if kind.tz else _INSTANT
    is_text = pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    return pa.string() if is_text or pa.types.is_time(kind) else None


# --- tables with audio ------------------------------------------------------------------------------------------------


def _read_rows(shard: str, here: pa.Table, config: CorpusConfig) -> MetadataTable:
    """What stands beside the audio. Such tables are taken as they come: what cannot be stored is left out.

    Args:
        here: ``uri`` and ``offset`` of the rows that are files of the corpus.
    """

    def is_kept(column: pa.Field) -> bool:
        name = clean_name(column.name)
        is_storable = _stored_type(column.type) is not None and not _refuse_name(name, ())
        return is_storable and name not in COLUMNS and _is_wanted(name, config)

    try:
        table = audio_tables.read_columns(shard, is_kept).take(here["offset"])
    except Exception as error:  # each store has errors of its own; the audio may be whole
        return MetadataTable(shard, here.select(["uri"]), (f"{shard}: its metadata cannot be read: {one_line(error)}",))
    kept: dict[str, pa.ChunkedArray] = {}
    notes = []
    for name, column in zip(map(clean_name, table.column_names), table.columns, strict=True):
        if not _refuse_name(name, kept):
            try:
                kept[name] = _normal(shard, name, column)
            except CorpusError as error:
                notes.append(f"{error}: left out")
    return MetadataTable(shard, pa.table({"uri": here["uri"], **kept}), tuple(notes))


# --- several tables ---------------------------------------------------------------------------------------------------


def _agree(sheets: list[MetadataTable], stored: pa.Schema) -> list[MetadataTable]:
    """All sheets with one type for each column: that of the index, or a wider one.

    A column without any value has no type, and is left out where no other says one. What looks like numbers in one CSV
    file, and like text in another, is text.

    Raises:
        CorpusError: types do not go together.
    """
    types: dict[str, tuple[pa.DataType, str]] = {column.name: (column.type, _INDEX) for column in stored}
    text = {name for name, (kind, _) in types.items() if kind == pa.string()}
    text |= {name for sheet in sheets for name in sheet.names if sheet.table[name].type == pa.string()}
    sheets = [_as_text(sheet, text) for sheet in sheets]
    for sheet in sheets:
        for name in sheet.names:
            kind, origin = types.get(name, (pa.null(), sheet.path))
            common = common_type(kind, sheet.table[name].type)
            if why := _refuse_beside(name, types) if common is not None else f"in {origin} it is {kind}":
                rebuild = "; or make the index anew with --rebuild" if origin == _INDEX else ""
                column = sheet.table[name]
                raise CorpusError(
                    f"{sheet.path}: column `{name}` is {column.type}{_example(column)}, and {why}: call it otherwise,"
                    f" {_LEAVE_OUT}{rebuild}"
                )
            types[name] = (common, origin if common == kind else sheet.path)
    known = {name: kind for name, (kind, _) in types.items() if not pa.types.is_null(kind)}
    return [_cast(sheet, known) for sheet in sheets]


def _refuse_beside(name: str, types: dict[str, tuple[pa.DataType, str]]) -> str | None:
    """Why a column cannot be beside those that are there."""
    same = [(other, origin) for other, (_, origin) in types.items() if other.casefold() == name.casefold()]
    return f"{same[0][1]} has `{same[0][0]}`, in SQL the same" if same and same[0][0] != name else None


def _as_text(sheet: MetadataTable, text: set[str]) -> MetadataTable:
    guessed = [name for name in sheet.names if name in text and sheet.table[name].type != pa.string()]
    if not is_csv(sheet.path) or not guessed:
        return sheet
    again = read_table_file(sheet.path, as_text=guessed)
    table = sheet.table
    for name in guessed:
        table = table.set_column(table.column_names.index(name), name, again[name])
    return replace(sheet, table=table)


def common_type(one: pa.DataType, other: pa.DataType) -> pa.DataType | None:
    """The type that holds the values of both; None where there is none."""
    if one == other or pa.types.is_null(other):
        return one
    if pa.types.is_null(one):
        return other
    for both in ({pa.int64(), pa.float64()}, {pa.date32(), _INSTANT}):
        if {one, other} == both:
            return pa.float64() if pa.float64() in both else _INSTANT
    return None


def _cast(sheet: MetadataTable, types: dict[str, pa.DataType]) -> MetadataTable:
    """The columns whose types are known."""
    columns = {
        name: _store_as(types[name], sheet.path, name, sheet.table[name]) for name in sheet.names if name in types
    }
    return replace(sheet, table=pa.table({"uri": sheet.table["uri"].cast(pa.string()), **columns}))


def _first_values(table: pa.Table) -> tuple[pa.Table, list[str]]:
    """One row for each uri, of each column the first value that is there; and a line on values that differ."""
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
            # Those of one piece can be too long for the type.
            [column.take(taken[at : at + ROWS_AT_ONCE]).chunk(0) for at in range(0, len(uris), ROWS_AT_ONCE)]
        ).cast(table.schema.field(name).type)
        later = rows[first[files[rows]] != rows]
        differs = later[_are_different(column, later, first[files[later]])]
        if len(differs):
            least, n_files = files[differs].min(), len(np.unique(files[differs]))
            said = "1 file has" if n_files == 1 else f"{n_files} files have"
            notes.append(
                f"column `{name}`: {said} several values, the first one counts:"
                f" {_show(found[name][least].as_py())} for {uris[least]}"
            )
    return pa.table(found), notes


def _are_different(column: pa.ChunkedArray, some: Rows, others: Rows) -> npt.NDArray[np.bool_]:
    """Whether the values in these rows are others than those in other rows."""
    return np.asarray(pc.not_equal(column.take(pa.array(some)), column.take(pa.array(others))), bool)


def in_one_piece(table: pa.Table) -> pa.Table:
    """The same rows, to be looked up many times: of a column of many pieces, each look-up copies all. Texts have long
    offsets: of two gigabytes there are two pieces otherwise, which cannot be looked up at all."""
    wide = {column.name: pa.large_string() if column.type == pa.string() else column.type for column in table.schema}
    return table.cast(pa.schema(list(wide.items()))).combine_chunks()
