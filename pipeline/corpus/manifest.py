"""Reads manifests: tables whose column ``uri`` names files, and ``start_s`` and ``end_s`` time ranges of them.

``table_files`` reads the formats of tables, ``metadata`` the other columns.
"""

import math
import os
import re
from collections.abc import Iterable, Iterator

import pyarrow as pa

from pipeline import storage
from pipeline.corpus.shards import is_member, is_shard, shard_of
from pipeline.corpus.table_files import check_once, is_table_file, read_table_file
from pipeline.corpus.time_ranges import TimeRange
from pipeline.credentials import without_credentials
from pipeline.errors import CorpusError, UsageError

COLUMNS = ("uri", "start_s", "end_s")
"""The columns that name a file. In CSV they are read as text: every digit of a number counts."""

_LIKE_START = re.compile(r"(start|begin|onset|offset)(time|at)?(s|ms|secs?|seconds?)?")
_LIKE_END = re.compile(r"(end|stop)(time|at)?(s|ms|secs?|seconds?)?")

ROWS_AT_ONCE = 10_000
"""Rows that are Python objects at the same time."""

_WHOLE = TimeRange()


def is_manifest(path: str) -> bool:
    """Whether a file can be a manifest, by its name."""
    return is_table_file(path)


def read_ranges(path: str) -> dict[str, list[TimeRange]]:
    """The absolute uris of the files that a manifest names, each with its time ranges; ``TimeRange()`` is the whole.

    Relative names start from the folder of the manifest.

    Raises:
        CorpusError: it cannot be read, or has no column ``uri`` of text; a row has no uri, a wrong range, or
            credentials in its URL.
    """
    found: dict[str, list[TimeRange]] = {}
    for uri, time_range in name_files(path, read_table_file(path, as_text=COLUMNS)):
        found.setdefault(uri, []).append(time_range)
    for time_ranges in found.values():
        if len(time_ranges) > 1:
            time_ranges[:] = dict.fromkeys(time_ranges)
    return found


def find_near_misses(names: Iterable[str]) -> dict[str, str]:
    """Columns that are perhaps meant as ``start_s`` or ``end_s``, if there is no column of that name.

    >>> find_near_misses(["uri", "Start-s", "end"])
    {'Start-s': 'start_s', 'end': 'end_s'}
    """
    names, found = list(names), dict[str, str]()
    for meant, pattern in (("start_s", _LIKE_START), ("end_s", _LIKE_END)):
        if meant not in names:
            like = (name for name in names if pattern.fullmatch(re.sub(r"[\s_.-]+", "", name.casefold())))
            found |= dict.fromkeys(like, meant)
    return found


def name_files(path: str, table: pa.Table) -> Iterator[tuple[str, TimeRange]]:
    """The file that each row of a manifest names, and its time range.

    Raises:
        CorpusError: as ``read_ranges``.
    """
    check_once(path, table, COLUMNS)
    if "uri" not in table.column_names:
        raise CorpusError(f"{path}: a manifest needs a column `uri`, and this has only {', '.join(table.column_names)}")
    uris = table["uri"]
    if not pa.types.is_string(uris.type) and not pa.types.is_large_string(uris.type):
        raise CorpusError(f"{path}: column `uri` is {uris.type}, and should be text")
    if uris.null_count:
        row = next(number for number, uri in enumerate(uris.to_pylist(), start=1) if uri is None)
        raise CorpusError(f"{path}: row {row} has no uri")
    folder = path.rsplit("/", 1)[0] if storage.is_url(path) else os.path.dirname(path)
    number, before, absolute = 0, None, ""
    for first in range(0, len(table), ROWS_AT_ONCE):
        some = table.slice(first, ROWS_AT_ONCE)
        for uri, time_range in zip(some["uri"].to_pylist(), _read_ranges(path, some, first), strict=True):
            number += 1
            if time_range and is_shard(uri):
                raise CorpusError(f"{path}: row {number}: {uri} is a shard: give ranges of the files in it")
            try:
                if uri != before:  # many rows may name ranges of one recording
                    absolute = _absolute(folder, uri)
            except UsageError as error:
                raise CorpusError(f"{path}: row {number}: {error}") from None
            before = uri
            yield absolute, time_range


def _read_ranges(path: str, table: pa.Table, n_before: int) -> Iterator[TimeRange]:
    """The time range in each row; ``n_before`` rows come before these."""
    columns = (_read_seconds(path, table, name, n_before) for name in ("start_s", "end_s"))
    for number, (start_s, end_s) in enumerate(zip(*columns, strict=True), start=n_before + 1):
        time_range = TimeRange(start_s or None, end_s)
        if end_s is not None and end_s <= (start_s or 0.0):
            raise CorpusError(f"{path}: row {number}: end_s ({end_s}) is not after start_s ({start_s or 0.0})")
        yield time_range if time_range else _WHOLE


def _read_seconds(path: str, table: pa.Table, name: str, n_before: int) -> list[float | None]:
    """A column of times; all None if there is no such column."""
    if name not in table.column_names:
        return [None] * table.num_rows
    try:
        texts = table[name].cast(pa.string()).to_pylist()  # 0.1 stays 0.1, even if it was stored as float32
    except pa.ArrowNotImplementedError:
        raise CorpusError(f"{path}: column {name} is {table[name].type}, and should be seconds") from None
    seconds: list[float | None] = []
    for number, text in enumerate(texts, start=n_before + 1):
        try:
            at_s = float(text) if text and text.strip() else None
        except ValueError:
            at_s = math.nan
        if at_s is not None and not 0 <= at_s < math.inf:
            raise CorpusError(f"{path}: row {number}: {name} is {text}, and should be seconds from 0 on, or empty")
        seconds.append(at_s)
    return seconds


def _absolute(folder: str, uri: str) -> str:
    if is_member(uri):  # the own name of a member is no path: `..` in it means nothing
        shard = shard_of(uri)
        return _absolute(folder, shard) + uri[len(shard) :]
    if storage.is_url(uri):
        if any(mark in uri for mark in "@=") and without_credentials(uri) != uri:  # every table would show them
            raise UsageError(f"{uri}: credentials belong in the environment, not in a URL")
        return storage.absolute(uri)
    if storage.is_url(folder) and not uri.startswith(("/", "~")):
        return storage.join(folder, uri)
    return os.path.normpath(os.path.join(folder, os.path.expanduser(uri)))
