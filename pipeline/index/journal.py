"""The journal: which versions of the tables are published, and with which settings. It is the truth about an index.

``batches`` has one row for each committed batch or step of maintenance. The row names the version of each table that it
publishes. Inserting it is the commit point: ``seq`` counts on by one, and of two writers that insert the same number
only the first succeeds.

An index that is rebuilt with other settings gets a new *generation*: five tables with a journal of their own, in a
folder beside the old ones. A row of the kind ``switch`` in the first journal puts them in the place of the old ones.
"""

import datetime as dt
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lance
import pyarrow as pa
import pyarrow.compute as pc
from lance.commit import CommitConflictError

import pipeline
from pipeline import schema, storage
from pipeline.config import DecodeConfig, WindowConfig
from pipeline.errors import CommitConflict, IndexMismatch
from pipeline.index import engine_errors

FORMAT, OLDEST_FORMAT = 4, 2
"""The format number of an index: the one that this code writes, and the oldest one that it reads. The next run brings
older indexes up to ``FORMAT``."""

DATA_TABLES = ("files", "clips", "frames", "pools")
"""The tables whose versions the journal publishes. An index without frames has no ``pools``, nor has an older one until
they are made (``index.backfill``)."""

_MAYBE_MAPPING = (dict, type(None))
_SETTINGS = {"clip_model": _MAYBE_MAPPING, "frame_model": _MAYBE_MAPPING, "window": dict, "decode": dict, "frames": str}
_NUMBER = (int, float)
_MODEL = {"name": str, "checksum": str, "dimension": int, "logit_scale": _NUMBER, "logit_bias": _NUMBER}

Failpoint = Callable[[str], None]
"""Called with the name of each step of the commit protocol, just before that step: tests crash a run there."""


@dataclass(frozen=True)
class Published:
    """The newest journal row: the state that readers see. ``versions`` has the tables that there are in this state."""

    seq: int
    batch_id: str
    versions: dict[str, int]


def table_uri(path: str | Path, name: str) -> str:
    """The URI of the table ``name`` of the index at ``path``."""
    return storage.join(storage.database(str(path)), f"{name}.lance")


def open_journal(path: str | Path) -> Any:
    """The newest version of ``batches``, a ``lance.LanceDataset``."""
    return lance.dataset(table_uri(path, "batches"))


def exists(path: str | Path) -> bool:
    """Whether a complete index lies at ``path``: its creation ends with the first journal row."""
    return find(path) is not None


def find(path: str | Path) -> Any | None:
    """The newest version of the journal of a complete index; None where there is no such index."""
    journal = open_if_there(table_uri(path, "batches"))
    return journal if journal is not None and journal.count_rows() else None


def open_if_there(uri: str) -> Any | None:
    """The newest version of a table, a ``lance.LanceDataset``; None where there is none, or its creation was
    interrupted."""
    if not storage.is_url(uri) and not Path(uri).is_dir():
        return None
    try:
        return lance.dataset(uri)
    except ValueError:
        if _has_version(uri):
            raise
        return None  # a folder without a table


def _has_version(uri: str) -> bool:
    """Whether a version of a table has ever been written, readable or not."""
    fs, versions = storage.find_store(storage.join(uri, "_versions"))
    try:
        return any(str(name).endswith(".manifest") for name in storage.retried(fs.ls, versions, detail=False))
    except FileNotFoundError:
        return False


def check_whole(path: str | Path) -> None:
    """Refuse an index whose journal was lost: creating it again would wipe its tables.

    Raises:
        IndexMismatch: there are tables with rows, but no journal.
    """
    for name in DATA_TABLES:
        uri = table_uri(path, name)
        if storage.exists(storage.join(uri, "_versions")) and lance.dataset(uri).count_rows():
            raise IndexMismatch(
                f"{path}: `{name}` has rows, but the journal is missing: copy batches.lance too, or delete the folder"
            )


# --- reading ----------------------------------------------------------------------------------------------------------


def read_published(path: str | Path) -> Published:
    """The newest published state."""
    return newest(open_journal(path))


def newest(journal: Any) -> Published:
    """The state that a version of the journal publishes."""
    wanted = ["seq", "batch_id", *(f"{name}_version" for name in DATA_TABLES)]
    table = journal.to_table(columns=[name for name in wanted if name in journal.schema.names])
    row = table.slice(_argmax(table["seq"]), 1).to_pylist()[0]
    return Published(row["seq"], row["batch_id"], versions_of(row))


def versions_of(row: dict[str, Any]) -> dict[str, int]:
    """The version of each table that a journal row publishes."""
    versions = {name: row.get(f"{name}_version") for name in DATA_TABLES}
    return {name: version for name, version in versions.items() if version is not None}


def versions_since(journal: Any, name: str, since: dt.datetime) -> set[int]:
    """The versions of the table ``name`` that readers have seen since then, the newest one among them."""
    columns = ["seq", "committed_at", f"{name}_version"]
    rows = journal.to_table(columns=columns).sort_by("seq").select(columns[1:]).to_pylist()
    replaced_at = [row["committed_at"] for row in rows[1:]]
    old = {n for n, at in enumerate(replaced_at) if at < since}
    return {row[f"{name}_version"] for n, row in enumerate(rows) if n not in old} - {None}


def count_commits(journal: Any) -> int:
    """How often batches of files were committed since the tables were last optimised."""
    rows = journal.to_table(columns=["seq", "kind", "files_version"]).sort_by("seq").to_pylist()
    versions: set[int] = set()
    for row in rows:
        if row["kind"] == "optimize":
            versions.clear()
        elif row["kind"] in ("index", "metadata"):
            versions.add(row["files_version"])
    return len(versions)


def read_journal(path: str | Path) -> pa.Table:
    """All rows of the journal, oldest first."""
    return open_journal(path).to_table().sort_by("seq")


def encoded_s(row: dict[str, Any]) -> float:
    """Seconds of audio that a run encoded for a journal row: each content once, however many files hold it."""
    where = f"the journal's row {row['seq']}"
    found = parse(row["detail"], where).get("encoded_s", row["audio_s"])
    return float(get_value({"encoded_s": found}, "encoded_s", (int, float), where))


def writer_version(row: dict[str, Any]) -> str | None:
    """The version of Earshot that wrote a journal row; None for one that did not note it yet."""
    where = f"the journal's row {row['seq']}"
    detail = parse(row["detail"], where)
    return str(get_value(detail, "earshot", str, where)) if "earshot" in detail else None


def check_format(path: str, number: int) -> None:
    """Check the format number of the index at ``path``.

    Raises:
        IndexMismatch: this code cannot read it.
    """
    if number > FORMAT:
        raise IndexMismatch(f"{path}: index format {number}, this version reads up to {FORMAT}; upgrade earshot")
    if number < OLDEST_FORMAT:
        raise IndexMismatch(
            f"{path}: index format {number} was never released and is not read any more; index its sources into another"
            " folder"
        )


def _argmax(column: pa.ChunkedArray) -> int:
    return int(pc.index(column, pc.max(column)).as_py())


# --- the JSON ``detail`` of rows, checked before use ------------------------------------------------------------------


def refuse(what: str) -> IndexMismatch:
    """The error for a value that no run can have written."""
    return IndexMismatch(f"{what}, so something else wrote here: restore the index from a copy")


def parse(detail: str | None, where: str) -> dict[str, Any]:
    """The mapping in a row's ``detail``; errors name the journal, ``where``.

    Raises:
        IndexMismatch: it is no JSON mapping.
    """
    try:
        values = json.loads(detail or "")
    except (ValueError, RecursionError):
        values = None
    if not isinstance(values, dict):
        raise refuse(f"{where}: `detail` is no JSON mapping")
    return values


def get_value(detail: dict[str, Any], key: str, kind: Any, where: str) -> Any:
    """The value of ``key`` in a row's ``detail``, which must be of the type ``kind``, or one of several.

    Raises:
        IndexMismatch: there is none, or it has another type.
    """
    value = detail.get(key)
    if key not in detail or not isinstance(value, kind) or isinstance(value, bool):
        raise refuse(f"{where}: `{key}` is {str(value)[:80]!r}")
    return value


def get_settings(detail: dict[str, Any], where: str) -> dict[str, Any]:
    """The settings that an index was created with.

    Raises:
        IndexMismatch: one is missing or impossible.
    """
    settings: dict[str, Any] = get_value(detail, "settings", dict, where)
    for key, kind in _SETTINGS.items():
        get_value(settings, key, kind, where)
    for model in filter(None, (settings["clip_model"], settings["frame_model"])):
        for key, kind in _MODEL.items():
            get_value(model, key, kind, where)
    try:
        WindowConfig(**settings["window"])
        DecodeConfig(**settings["decode"])
    except (TypeError, ValueError) as error:
        raise refuse(f"{where}: {' '.join(str(error).split())[:300]}") from None
    # Indexes from before there was a choice have no `tail`: their windows follow the rule `back`.
    return {**settings, "window": {"tail": "back", **settings["window"]}}


# --- writing ----------------------------------------------------------------------------------------------------------


def complete(journal: Any) -> None:
    """Give the journal of an older format the columns that it lacks; they hold null."""
    if missing := [column for column in schema.BATCHES if column.name not in journal.schema.names]:
        journal.add_columns(pa.schema(missing))


def make_row(seq: int, batch_id: str, run_id: str, kind: str, versions: dict[str, int], **counts: Any) -> Any:
    """A journal row. ``counts`` are further columns; ``detail`` is a mapping, which gets the version of Earshot."""
    detail = json.dumps({**counts.pop("detail", {}), "earshot": pipeline.__version__}, sort_keys=True)
    now = dt.datetime.now(dt.UTC)
    row = dict(seq=seq, batch_id=batch_id, run_id=run_id, kind=kind, committed_at=now, detail=detail)
    zeros = dict(n_files=0, n_failed=0, n_clips=0, n_frames=0, audio_s=0.0, seconds=None, precision=None)
    return row | {f"{name}_version": version for name, version in versions.items()} | zeros | counts


def publish(journal: Any, rows: list[dict[str, Any]]) -> None:
    """Insert the journal rows, unless somebody has inserted a row with one of their ``seq`` before.

    The unenforced primary key makes two inserts of one ``seq`` conflict, and without retries the second one fails. An
    object store may insert the rows and lose its answer: so after a refusal or an error, look whether they are there.

    Raises:
        CommitConflict: somebody has; nothing is inserted.
    """
    # One of an older format may lack columns: it gets a row of the kind `switch` when the index is rebuilt.
    known = [column for column in schema.BATCHES if column.name in journal.schema.names]
    table = pa.Table.from_pylist(rows, schema=pa.schema(known))
    try:
        insert = journal.merge_insert("seq").when_not_matched_insert_all().conflict_retries(0)
        inserted = insert.execute(table)["num_inserted_rows"]
    except (OSError, CommitConflictError) as error:
        latest = lance.dataset(journal.uri)
        # Where another run's clean-up has deleted the version read here, Lance reports a missing file and no conflict.
        if not is_conflict(error) and newest(latest).seq < rows[0]["seq"]:
            raise
        inserted = 0
        if _ends_with(latest, table):
            journal.checkout_latest()
            inserted = len(rows) if _ends_with(journal, table) else 0
    if inserted != len(rows):
        raise CommitConflict(f"{journal.uri}: another run published batch {rows[0]['seq']} first; this one stops")


def _ends_with(journal: Any, rows: pa.Table) -> bool:
    """Whether exactly these rows, with their times, are the newest ones of a version of the journal."""
    found = journal.to_table(columns=rows.column_names, filter=f"seq >= {rows['seq'][0].as_py()}").sort_by("seq")
    return bool(found.to_pylist() == rows.to_pylist())


def is_conflict(error: Exception) -> bool:
    """Whether Lance refused a commit because of another one: it has no one type for that."""
    return isinstance(error, CommitConflictError) or engine_errors.is_conflict(str(error))
