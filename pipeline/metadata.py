"""What the user's own tables say of files: typed columns in, one Arrow table by uri out.

The columns of a manifest, of the sidecar ``corpus.metadata`` and of tables with audio, but for ``uri``, ``start_s`` and
``end_s``. Where several have a value for a column of a file, the first one counts: the sidecar, then the manifests in
the order of the sources, then the table that holds the file; within one, the first row. Values stay in Arrow all the
way: a million files with a few columns take as much memory as their bytes.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

import pyarrow as pa
import pyarrow.compute as pc

from pipeline import rows, schema
from pipeline.config import CorpusConfig
from pipeline.errors import CorpusError
from pipeline.manifest import COLUMNS, name_files
from pipeline.members import is_table, shards_of
from pipeline.ranges import split_uri
from pipeline.read import one_line
from pipeline.sheet import read_sheet

KINDS = "text, whole numbers, numbers, true or false, dates or times"
_INDEX = "the index"
_LEAVE_OUT = "or name the columns to keep in corpus.columns"
_ENGINE = ("_rowid", "_rowaddr", "_rowoffset", "_distance", "_score", "_relevance_score")
_INSTANT, _INSTANT_UTC = pa.timestamp("us"), pa.timestamp("us", tz="UTC")


@dataclass(frozen=True)
class Sheet:
    """One table: ``uri`` and its metadata columns."""

    path: str
    table: pa.Table
    is_csv: bool = False
    trouble: str | None = None
    """Why there are no columns, where there may be some."""

    @property
    def names(self) -> list[str]:
        return [name for name in self.table.column_names if name != "uri"]


@dataclass(frozen=True)
class Given:
    """What the sources say: a row for each file of which they say something, ``uri`` and the columns."""

    table: pa.Table = field(default_factory=lambda: pa.table({"uri": pa.array([], pa.string())}))
    notes: tuple[str, ...] = ()
    """What a person should know of it, a line each."""


def read_given(listed: pa.Table, manifests: Sequence[str], config: CorpusConfig, stored: pa.Schema) -> Given:
    """The metadata of the files of a corpus.

    Args:
        listed: a LISTED table. manifests: those that its sources name.
        stored: the metadata columns that the index has; their types count.

    Raises:
        CorpusError: naming the file, the column and a value.
    """
    sheets = [_read(path, config) for path in dict.fromkeys([*filter(None, [config.metadata]), *manifests])]
    sheets += [_read_rows(shard, listed, config) for shard in _tables_of_audio(listed)]
    notes = [sheet.trouble for sheet in sheets if sheet.trouble is not None]
    sheets = [sheet for sheet in _agree(sheets, stored) if sheet.names]
    if not sheets:
        return Given(notes=tuple(notes))
    known = []
    for sheet in [_with_ranges(sheet, listed) for sheet in sheets]:
        is_listed = pc.is_in(sheet.table["uri"], value_set=listed["uri"])
        known.append(sheet.table.filter(is_listed))
        n_strange = len(sheet.table) - len(known[-1])
        if sheet.path == config.metadata and n_strange:
            strange = sheet.table["uri"].filter(pc.invert(is_listed))[0]
            if n_strange == len(sheet.table):
                raise CorpusError(
                    f"{sheet.path}: of its {n_strange} rows none is of a file of the corpus; the first one is {strange}"
                )
            notes.append(f"{sheet.path}: {n_strange} rows are of no file of the corpus; the first one is {strange}")
    table, doubled = _first_values(pa.concat_tables(known, promote_options="default"))
    return Given(table, (*notes, *doubled))


def _with_ranges(sheet: Sheet, listed: pa.Table) -> Sheet:
    """Uris that are written as those of ranges, as the corpus has them."""
    uris = sheet.table["uri"]
    is_other = pc.and_(pc.invert(pc.is_in(uris, value_set=listed["uri"])), pc.match_substring(uris, "#t="))
    if not pc.any(is_other).as_py():
        return sheet
    normal = ["".join(map(str, split_uri(uri))) for uri in uris.filter(is_other).to_pylist()]
    uris = pc.replace_with_mask(uris.combine_chunks(), is_other.combine_chunks(), pa.array(normal))
    return replace(sheet, table=sheet.table.set_column(0, "uri", uris))


def _tables_of_audio(listed: pa.Table) -> list[str]:
    members = listed["uri"].filter(pc.is_valid(listed["offset"]))
    return [shard for shard in pc.unique(shards_of(members)).drop_null().to_pylist() if is_table(shard)]


def _read(path: str, config: CorpusConfig) -> Sheet:
    table = read_sheet(path, as_text=COLUMNS)
    is_csv = path.lower().endswith(".csv")
    if is_csv and (times := [column.name for column in table.schema if pa.types.is_time(column.type)]):
        table = read_sheet(path, as_text=[*COLUMNS, *times])
    uris = pa.array((f"{uri}{part}" for uri, part in name_files(path, table)), pa.string())
    return Sheet(path, pa.table({"uri": uris, **_choose(path, table, config)}), is_csv)


def _choose(path: str, table: pa.Table, config: CorpusConfig) -> dict[str, pa.ChunkedArray]:
    """The columns of a manifest or sidecar that are kept, each in its type.

    Raises:
        CorpusError: one cannot be stored, or not be asked for.
    """
    kept: dict[str, pa.ChunkedArray] = {}
    for name, column in zip(table.column_names, table.columns, strict=True):
        if name in COLUMNS or not _is_wanted(name, config):
            continue
        if why := _refuse_name(name, kept):
            if pa.types.is_null(column.type):
                continue
            raise CorpusError(f"{path}: column `{name}`{_example(column)}: {why}: call it otherwise, {_LEAVE_OUT}")
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
    try:
        column = column.cast(kind, safe=not pa.types.is_timestamp(kind))
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise CorpusError(f"{path}: column `{name}` ({column.type}) cannot be stored as {kind}: {error}") from None
    return pc.if_else(pc.is_nan(column), None, column) if kind == pa.float64() else column


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


def _read_rows(shard: str, listed: pa.Table, config: CorpusConfig) -> Sheet:
    """What stands beside the audio. Such tables are taken as they come: what cannot be stored is left out."""
    is_here = pc.and_(pc.is_valid(listed["offset"]), pc.starts_with(listed["uri"], f"{shard}#"))
    here = listed.filter(is_here)

    def is_kept(column: pa.Field) -> bool:
        is_storable = _stored_type(column.type) is not None and not _refuse_name(column.name, ())
        return is_storable and column.name not in COLUMNS and _is_wanted(column.name, config)

    try:
        table = rows.read_columns(shard, is_kept).take(here["offset"])
    except Exception as error:  # each store has errors of its own; the audio may be whole
        trouble = f"{shard}: its metadata cannot be read: {one_line(error)}"
        return Sheet(shard, here.select(["uri"]), trouble=trouble)
    kept: dict[str, pa.ChunkedArray] = {}
    for name in table.column_names:
        if not _refuse_name(name, kept):
            kept[name] = _normal(shard, name, table[name])
    return Sheet(shard, pa.table({"uri": here["uri"], **kept}))


# --- several tables ---------------------------------------------------------------------------------------------------


def _agree(sheets: list[Sheet], stored: pa.Schema) -> list[Sheet]:
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


def _as_text(sheet: Sheet, text: set[str]) -> Sheet:
    guessed = [name for name in sheet.names if name in text and sheet.table[name].type != pa.string()]
    if not sheet.is_csv or not guessed:
        return sheet
    again = read_sheet(sheet.path, as_text=guessed)
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


def _cast(sheet: Sheet, types: dict[str, pa.DataType]) -> Sheet:
    """The columns whose types are known."""
    target = pa.schema([("uri", pa.string()), *((name, types[name]) for name in sheet.names if name in types)])
    return replace(sheet, table=sheet.table.select(target.names).cast(target))


def _first_values(table: pa.Table) -> tuple[pa.Table, list[str]]:
    """One row for each uri, of each column the first value that is there; and a line on values that differ."""
    names = [name for name in table.column_names if name != "uri"]
    if pc.count_distinct(table["uri"]).as_py() == len(table):
        return table, []
    asked = [(name, what) for name in names for what in ("first", "count_distinct")]
    found = table.group_by("uri", use_threads=False).aggregate(asked)
    notes = []
    for name in names:
        differs = found.filter(pc.greater(found[f"{name}_count_distinct"], 1))
        if len(differs):
            uri, taken = differs["uri"][0], differs[f"{name}_first"][0].as_py()
            notes.append(
                f"column `{name}`: {len(differs)} files have several values, the first one counts: {_show(taken)} for"
                f" {uri}"
            )
    return pa.table({"uri": found["uri"], **{name: found[f"{name}_first"] for name in names}}), notes
