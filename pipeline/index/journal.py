"""The journal: what has been published, and with which settings. Its rows are the truth about an index.

``batches`` has one row per committed batch or step of maintenance, which names the version of each table that it
publishes. Inserting the row is the commit point: ``seq`` counts on by one, and of two writers that insert the same
number only the first one gets it in.

An index made anew with other settings is a *generation*: four tables of its own, with a journal of their own, in a
folder beside the old ones. One row in the first journal, of the kind ``switch``, puts it in their place.
"""

import datetime as dt
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lance
import pyarrow as pa
import pyarrow.compute as pc
from lance.commit import CommitConflictError

from pipeline import schema, storage
from pipeline.errors import CommitConflict, IndexMismatch, IndexMissing
from pipeline.index.details import get_settings, get_value, parse, refuse

FORMAT, OLDEST_FORMAT = 3, 2
"""The format number of an index: what this code writes, and the oldest one that it reads. Older ones are brought up to
``FORMAT`` by the next run."""

DATA_TABLES = ("files", "clips", "frames")

Failpoint = Callable[[str], None]
"""Called with the name of each step of the protocol just before it is done: tests crash a run there."""


@dataclass(frozen=True)
class Published:
    """What the newest journal row says: the state that readers see."""

    seq: int
    batch_id: str
    versions: dict[str, int]


@dataclass(frozen=True)
class State:
    """An index at a moment: where the tables that readers see lie, what they were made with, what is published."""

    tables: str
    settings: dict[str, Any]
    published: Published


def table_uri(path: str | Path, name: str) -> str:
    """Where the table ``name`` of the index at ``path`` lies."""
    return storage.join(storage.database(str(path)), f"{name}.lance")


def open_journal(path: str | Path) -> Any:
    """The newest version of ``batches``, a ``lance.LanceDataset``."""
    return lance.dataset(table_uri(path, "batches"))


def exists(path: str | Path) -> bool:
    """Whether a complete index lies at ``path``: creating one ends with the first journal row."""
    return _find(path) is not None


def _find(path: str | Path) -> Any | None:
    """The newest version of the journal of a complete index; None where there is no such index."""
    if not storage.is_url(str(path)) and not Path(table_uri(path, "batches")).is_dir():
        return None
    try:
        journal = open_journal(path)
    except ValueError:
        if _has_version(table_uri(path, "batches")):
            raise
        return None  # a folder without a table: creating it was interrupted
    return journal if journal.count_rows() else None


def _has_version(uri: str) -> bool:
    """Whether a version of a table has ever been written, readable or not."""
    fs, versions = storage.find_store(storage.join(uri, "_versions"))
    try:
        return any(str(name).endswith(".manifest") for name in storage.retried(fs.ls, versions, detail=False))
    except FileNotFoundError:
        return False


def check_whole(path: str | Path) -> None:
    """Refuse an index whose journal was lost: to make it anew would wipe its tables.

    Raises:
        IndexMismatch: there are tables with rows, and no journal.
    """
    for name in DATA_TABLES:
        uri = table_uri(path, name)
        if storage.exists(storage.join(uri, "_versions")) and lance.dataset(uri).count_rows():
            raise IndexMismatch(
                f"{path}: `{name}` has rows, but the journal is missing: copy batches.lance too, or delete the folder"
            )


# --- reading ----------------------------------------------------------------------------------------------------------


def read_settings(path: str | Path) -> dict[str, Any]:
    """What the index at ``path`` was created with.

    Raises:
        IndexMissing: there is no index. IndexMismatch: this code cannot read its format.
    """
    return _settings(path, _get(path))


def read_state(path: str | Path) -> State:
    """What readers see of the index at ``path``, by one look at its journal.

    Raises:
        IndexMissing: there is no index. IndexMismatch: this code cannot read its format; a generation is missing.
    """
    journal = _get(path)
    tables = _live(path, journal)
    if tables != str(path):
        journal = _get(tables)
    return State(tables, _settings(path, journal), newest(journal))


def _get(path: str | Path) -> Any:
    journal = _find(path)
    if journal is None:
        check_whole(path)
        raise IndexMissing(f"{path}: no index here; make one with `earshot index FOLDER --into {path}`")
    return journal


def _settings(path: str | Path, journal: Any) -> dict[str, Any]:
    check_format(path, journal)
    return get_settings(_newest_detail(journal, "seq = 0") or {}, journal.uri)


def read_config(path: str | Path) -> dict[str, Any] | None:
    """The configuration of the newest run, as it was given to ``Writer.configure``; None before the first."""
    journal = open_journal(path)
    found = _newest_detail(journal, "kind = 'configure'")
    return None if found is None else get_value(found, "config", dict, journal.uri)


def read_mounts(path: str | Path) -> list[str]:
    """The mount points that the files of an index lie on: as the newest run gave them to ``Writer.configure``, or as
    they were known when what was restored last was published."""
    return next(_read_all_mounts(open_journal(path), "true"), [])


def read_mounts_until(path: str | Path, seq: int) -> list[str]:
    """The mount points that were known at some time until the journal row ``seq``.

    The newest are not enough: a run that lets go of a disk notes its mount points before it takes the files out.
    """
    return sorted(set().union(*_read_all_mounts(open_journal(path), f"seq <= {seq}")))


def _read_all_mounts(journal: Any, where: str) -> Iterator[list[str]]:
    """The mount points of each row that has some or says that there are none, the newest first."""
    rows = journal.to_table(columns=["seq", "detail"], filter=f"kind IN ('configure', 'restore') AND {where}")
    for detail in rows.sort_by([("seq", "descending")])["detail"].to_pylist():
        found = parse(detail, journal.uri)
        if "mounts" in found:
            yield [str(mount) for mount in get_value(found, "mounts", list, journal.uri)]


def read_published(path: str | Path) -> Published:
    """The newest published state."""
    return newest(open_journal(path))


def newest(journal: Any) -> Published:
    """The state that a version of the journal publishes."""
    columns = ["seq", "batch_id", *(f"{name}_version" for name in DATA_TABLES)]
    table = journal.to_table(columns=columns)
    row = table.slice(_argmax(table["seq"]), 1).to_pylist()[0]
    return Published(row["seq"], row["batch_id"], {name: row[f"{name}_version"] for name in DATA_TABLES})


def versions_since(journal: Any, name: str, since: dt.datetime) -> set[int]:
    """The versions of the table ``name`` that readers saw at that time or later, the newest one among them."""
    columns = ["seq", "committed_at", f"{name}_version"]
    rows = journal.to_table(columns=columns).sort_by("seq").select(columns[1:]).to_pylist()
    replaced_at = [row["committed_at"] for row in rows[1:]]
    old = {n for n, at in enumerate(replaced_at) if at < since}
    return {row[f"{name}_version"] for n, row in enumerate(rows) if n not in old}


def read_journal(path: str | Path) -> pa.Table:
    """All batches, oldest first."""
    return open_journal(path).to_table().sort_by("seq")


def encoded_s(row: dict[str, Any]) -> float:
    """Seconds of audio that were encoded for a journal row: each content once, however many files hold it."""
    where = f"the journal's row {row['seq']}"
    found = parse(row["detail"], where).get("encoded_s", row["audio_s"])
    return float(get_value({"encoded_s": found}, "encoded_s", (int, float), where))


def _newest_detail(journal: Any, where: str) -> dict[str, Any] | None:
    rows = journal.to_table(columns=["seq", "detail"], filter=where)
    if rows.num_rows == 0:
        return None
    return parse(rows["detail"][_argmax(rows["seq"])].as_py(), journal.uri)


def check_format(path: str | Path, journal: Any) -> int:
    """The format number of the index that a journal belongs to.

    Raises:
        IndexMismatch: this code cannot read it.
    """
    detail = _newest_detail(journal, "kind IN ('create', 'migrate')")
    found = int(get_value(detail, "format", int, journal.uri)) if detail is not None else 0
    if found > FORMAT:
        raise IndexMismatch(f"{path}: index format {found}, this version reads up to {FORMAT}; upgrade earshot")
    if found < OLDEST_FORMAT:
        raise IndexMismatch(
            f"{path}: index format {found} was never released and is not read any more; index its sources into another"
            " folder"
        )
    return found


def _argmax(column: pa.ChunkedArray) -> int:
    return int(pc.index(column, pc.max(column)).as_py())


# --- writing ----------------------------------------------------------------------------------------------------------


def make_row(seq: int, batch_id: str, run_id: str, kind: str, versions: dict[str, int], **counts: Any) -> Any:
    """A journal row. ``counts`` are further columns; ``detail`` is a mapping."""
    zeros = dict(n_files=0, n_failed=0, n_clips=0, n_frames=0, audio_s=0.0, seconds=None, precision=None)
    detail = json.dumps(counts.pop("detail", {}), sort_keys=True)
    return {
        "seq": seq,
        "batch_id": batch_id,
        "run_id": run_id,
        "kind": kind,
        "committed_at": dt.datetime.now(dt.UTC),
        "detail": detail,
        **{f"{name}_version": version for name, version in versions.items()},
        **zeros,
        **counts,
    }


def publish(journal: Any, rows: list[dict[str, Any]]) -> None:
    """Insert the journal rows if and only if nobody has inserted one of their ``seq`` before.

    The unenforced primary key makes two inserts of one ``seq`` conflict, and without retries the second one fails. An
    object store may insert the rows and its answer may get lost: so what is refused, or fails, is looked for.

    Raises:
        CommitConflict: somebody has; nothing is inserted.
    """
    table = pa.Table.from_pylist(rows, schema=schema.BATCHES)
    try:
        insert = journal.merge_insert("seq").when_not_matched_insert_all().conflict_retries(0)
        inserted = insert.execute(table)["num_inserted_rows"]
    except (OSError, CommitConflictError) as error:
        latest = lance.dataset(journal.uri)
        # Against a version that another run's clean-up has deleted, Lance finds no conflict, but nothing at all.
        if not is_conflict(error) and newest(latest).seq < rows[0]["seq"]:
            raise
        inserted = 0
        if _ends_with(latest, table):
            journal.checkout_latest()
            inserted = len(rows) if _ends_with(journal, table) else 0
    if inserted != len(rows):
        raise CommitConflict(f"{journal.uri}: another run published batch {rows[0]['seq']} first; this one stops")


def _ends_with(journal: Any, rows: pa.Table) -> bool:
    """Whether these rows, time and all, are the newest ones of a version of the journal."""
    found = journal.to_table(columns=rows.column_names, filter=f"seq >= {rows['seq'][0].as_py()}").sort_by("seq")
    return bool(found.to_pylist() == rows.to_pylist())


def is_conflict(error: Exception) -> bool:
    """Whether Lance refused a commit for another's sake: it has no one type for that.

    Its messages hold paths of any name, but not before they have said what happened.
    """
    return isinstance(error, CommitConflictError) or _CONFLICT.match(str(error)) is not None


_CONFLICT = re.compile(
    r"(?:[\w ()]+: )*(?:Too many concurrent writ(?:ers|es)|(?:Retryable )?commit conflict)", re.IGNORECASE
)


# --- generations ------------------------------------------------------------------------------------------------------


def live(path: str | Path) -> str:
    """Where the tables that readers see lie: ``path`` itself, or the generation that has been put in their place.

    Raises:
        IndexMismatch: that generation is missing.
    """
    journal = _find(path)
    return str(path) if journal is None else _live(path, journal)


def _live(path: str | Path, journal: Any) -> str:
    number = _live_number(journal)
    if number == 1:
        return str(path)
    if not exists(tables := _generation(path, number)):
        raise IndexMismatch(
            f"{tables}: is missing, and the index is there since it was rebuilt: restore it from a copy"
        )
    return tables


def next_generation(path: str | Path) -> str:
    """Where the generation that comes after the live one is, or was begun, or would be."""
    return _generation(path, _live_number(open_journal(path)) + 1)


def switch(path: str | Path, run_id: str, after: list[Published], failpoint: Failpoint = lambda step: None) -> None:
    """Put the next generation in the place of the live one, in one step.

    A live generation that is not the first gets a last row in its own journal before, so that a run that still writes
    there loses, or this one does.

    Args:
        after: what the first journal and that of the live generation published when the run began.

    Raises:
        CommitConflict: another run has written there since.
    """
    journal = open_journal(path)
    number = _live_number(journal) + 1
    first, last = after
    if number > 2:
        failpoint("retire")
        row = make_row(last.seq + 1, schema.digest("retire", run_id), run_id, "retire", last.versions)
        publish(open_journal(_generation(path, number - 1)), [row])
    failpoint("switch")
    detail = {"generation": number}
    row = make_row(first.seq + 1, schema.digest("switch", run_id), run_id, "switch", first.versions, detail=detail)
    publish(journal, [row])


def drop_former_generations(path: str | Path, older_than: dt.timedelta) -> list[str]:
    """Delete the tables that a generation has replaced, once readers have had time to leave them.

    Returns:
        What was deleted.
    """
    journal = open_journal(path)
    rows = journal.to_table(columns=["seq", "committed_at"], filter="kind = 'switch'")
    if rows.num_rows == 0:
        return []
    switched_at = rows["committed_at"][_argmax(rows["seq"])].as_py()
    if dt.datetime.now(dt.UTC) - switched_at < older_than:
        return []
    number = _live_number(journal)
    former = [table_uri(path, name) for name in DATA_TABLES]
    former += [_generation(path, earlier) for earlier in range(2, number)]
    return [place for place in former if delete_folder(place)]


def delete_folder(place: str) -> bool:
    """Delete a folder of tables and all that it holds; returns whether it was there.

    The journal goes first: what is left of a deletion that was interrupted is no index.
    """
    fs, root = storage.find_store(place)
    if not fs.exists(root):
        return False
    journal = f"{root}/batches.lance/_versions"
    if fs.exists(journal):
        fs.rm(journal, recursive=True)
    fs.rm(root, recursive=True)
    return True


def _live_number(journal: Any) -> int:
    detail = _newest_detail(journal, "kind = 'switch'")
    if detail is None:
        return 1
    number = int(get_value(detail, "generation", int, journal.uri))
    if not 2 <= number <= journal.count_rows() + 1:  # each row of this kind adds one
        raise refuse(f"{journal.uri}: `generation` is {number}")
    return number


def _generation(path: str | Path, number: int) -> str:
    return storage.join(str(path), f"generation-{number}")
