"""A manifest in, the files that it names out: a table with a column ``uri`` (``sheet`` says of which kinds).

With ``start_s`` or ``end_s``, a row names a range of a recording (``ranges``). ``metadata`` reads its other columns.
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
"""What says which file a row names; in CSV all are text: of numbers, every digit counts."""

_LIKE_START = re.compile(r"(start|begin|onset|offset)(time|at)?(s|ms|secs?|seconds?)?")
_LIKE_END = re.compile(r"(end|stop)(time|at)?(s|ms|secs?|seconds?)?")

ROWS_AT_ONCE = 10_000
"""Rows that are taken out of Arrow at a time."""

_WHOLE = TimeRange()


def is_manifest(path: str) -> bool:
    """Whether a file is taken for a manifest, by its name."""
    return is_table_file(path)


def read_ranges(path: str) -> dict[str, list[TimeRange]]:
    """The files that a manifest names, absolute, relative ones from the folder of the manifest; of each, the ranges
    that it names, once each, ``TimeRange()`` for the whole.

    Raises:
        CorpusError: it cannot be read, has no column ``uri`` of text, a row without one, or one with a wrong range or
            with credentials in its URL.
    """
    found: dict[str, list[TimeRange]] = {}
    for uri, part in name_files(path, read_table_file(path, as_text=COLUMNS)):
        found.setdefault(uri, []).append(part)
    for parts in found.values():
        if len(parts) > 1:
            parts[:] = dict.fromkeys(parts)
    return found


def find_near_misses(names: Iterable[str]) -> dict[str, str]:
    """Columns that may be meant as ``start_s`` or ``end_s`` and are not called so, where there is no such column.

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
    """The file that each row of a manifest names, and the range of it.

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
        for uri, part in zip(some["uri"].to_pylist(), _read_ranges(path, some, first), strict=True):
            number += 1
            if part and is_shard(uri):
                raise CorpusError(f"{path}: row {number}: {uri} is a shard: give ranges of the files in it")
            try:
                absolute = absolute if uri == before else _absolute(folder, uri)  # of a recording there are many ranges
            except UsageError as error:
                raise CorpusError(f"{path}: row {number}: {error}") from None
            before = uri
            yield absolute, part


def _read_ranges(path: str, table: pa.Table, n_before: int) -> Iterator[TimeRange]:
    """The range in each row; ``n_before`` others come before these."""
    columns = (_read_seconds(path, table, name, n_before) for name in ("start_s", "end_s"))
    for number, (start_s, end_s) in enumerate(zip(*columns, strict=True), start=n_before + 1):
        part = TimeRange(start_s or None, end_s)
        if end_s is not None and end_s <= (start_s or 0.0):
            raise CorpusError(f"{path}: row {number}: end_s ({end_s}) is not after start_s ({start_s or 0.0})")
        yield part if part else _WHOLE


def _read_seconds(path: str, table: pa.Table, name: str, n_before: int) -> list[float | None]:
    """A column of times, null where there is none."""
    if name not in table.column_names:
        return [None] * table.num_rows
    try:
        texts = table[name].cast(pa.string()).to_pylist()  # of float32 too, 0.1 is 0.1
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
    if is_member(uri):  # a member's own name is no path, and is left as it is: `..` in it leads nowhere
        shard = shard_of(uri)
        return _absolute(folder, shard) + uri[len(shard) :]
    if storage.is_url(uri):
        if any(mark in uri for mark in "@=") and without_credentials(uri) != uri:  # it would be in every table
            raise UsageError(f"{uri}: credentials belong in the environment, not in a URL")
        return storage.absolute(uri)
    if storage.is_url(folder) and not uri.startswith(("/", "~")):
        return storage.join(folder, uri)
    return os.path.normpath(os.path.join(folder, os.path.expanduser(uri)))
