"""Looks up in the ledger which content a file has, and which files hold a content."""

import difflib
from collections import defaultdict
from collections.abc import Iterable
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from pipeline import storage
from pipeline.errors import UsageError
from pipeline.index.handle import Generation
from pipeline.index.tables import among, indexed_files
from pipeline.schema import Row

FEW = 1_000
"""Up to this many files or contents are looked up by name; for more, the ledger is read as a whole."""

NAMES_TO_COMPARE = 10_000
"""In an index of more files, a name that is not there is not compared with all that are."""

_COLUMNS = ["uri", "audio_id", "status", "reason", "duration_s"]


class Holders(NamedTuple):
    """The indexed files that hold a content, by name, and its duration."""

    uris: tuple[str, ...]
    duration_s: float


def find_files(live: Generation, given: Iterable[str]) -> dict[str, Row]:
    """The row in the ledger of each name that there is. A path may be relative to the current folder."""
    names = {name: (_make_absolute(name), name) for name in set(given)}
    rows = {row["uri"]: row for row in _read(live, "uri", {uri for pair in names.values() for uri in pair})}
    return {name: rows[uri] for name, pair in names.items() for uri in pair if uri in rows}


def _make_absolute(name: str) -> str:
    try:
        return storage.absolute(name)
    except UsageError:  # no store has this protocol
        return name


def find_holders(live: Generation, audio_ids: set[str]) -> dict[str, Holders]:
    """The indexed files that hold each content; contents that none holds are left out."""
    rows: dict[str, list[Row]] = defaultdict(list)
    for row in _read(live, "audio_id", audio_ids):
        if row["status"] == "indexed":
            rows[row["audio_id"]].append(row)
    return {
        audio_id: Holders(tuple(sorted(row["uri"] for row in found)), found[0]["duration_s"])
        for audio_id, found in rows.items()
    }


def explain_missing(live: Generation, uri: str, *, with_likeness: bool = True) -> str:
    """Why a file cannot be marked: the index has none of this name.

    Args:
        with_likeness: name a file of a similar name, which takes a look at all names.
    """
    if not with_likeness:
        return f"{uri}: is no file of {live.index}"
    known = live.open("files").to_table(columns=["uri"], filter=indexed_files())["uri"]
    like = known.filter(pc.ends_with(known, f"/{_last_part(uri)}")).slice(0, 1).to_pylist()
    if not like and len(known) <= NAMES_TO_COMPARE:
        by_stem = {_stem(name): name for name in known.to_pylist()}  # names with one extension are all alike
        like = [by_stem[stem] for stem in difflib.get_close_matches(_stem(uri), by_stem, n=1)]
    return f"{uri}: is no file of {live.index}" + (f", did you mean {like[0]}?" if like else "")


def explain_status(row: Row) -> str | None:
    """Why a file of the ledger cannot be marked; None if it can."""
    if row["status"] == "indexed":
        return None
    if row["status"] == "deleted":
        return f"{row['uri']}: is no longer in the index, since it has left the sources"
    return f"{row['uri']}: is not indexed, since it failed ({row['reason']})"


def _last_part(uri: str) -> str:
    return uri.rsplit("/", 1)[-1]


def _stem(uri: str) -> str:
    name = _last_part(uri).lower()
    return name.rpartition(".")[0] or name


def _read(live: Generation, column: str, values: set[str]) -> list[Row]:
    """The rows of the ledger whose ``column`` has one of ``values``."""
    if not values:
        return []
    where = among(column, values) if len(values) <= FEW else None
    found = live.open("files").to_table(columns=_COLUMNS, filter=where)
    rows: list[Row] = found.filter(pc.is_in(found[column], pa.array(values))).to_pylist()
    return rows
