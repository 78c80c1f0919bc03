"""The table ``marks`` of an index: rows are appended and read, and only those of a correction that came too late are
taken out again. It lies beside the generations.

No lease is needed. Lance places an append behind those that were committed meanwhile, so writers at the same time lose
nothing. Versions are neither published nor tagged: readers open the newest one. Each append makes a version and a
fragment; once there are many, the append that notices it merges them and deletes old versions.
"""

import contextlib
import datetime as dt
import errno
import os
import random
import shutil
import tempfile
import time
import uuid
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import lance
import pyarrow as pa

from pipeline import storage
from pipeline.index import engine_errors, journal
from pipeline.index.journal import table_uri
from pipeline.index.tables import FILE_FORMAT, among
from pipeline.schema import MARKS

T = TypeVar("T")

NAME = "marks"

MOST_FRAGMENTS = 32
"""Small fragments are merged from this number on."""

ROWS_PER_FRAGMENT = 10_000
"""Larger fragments are left as they are, so that merging costs the same however many marks there are."""

_A_LOOK = dt.timedelta(minutes=10)
"""How long a reader or a writer may need an old version: both open the newest one and are done with it at once."""

_PAUSES_S = (0.1, 0.5, 2.0)
"""Pauses before an attempt is repeated. The engine has repeated the requests of a store by itself before."""


def read_rows(
    index: str, where: str | None = None, columns: Sequence[str] = MARKS.names, version: int | None = None
) -> pa.Table:
    """All rows of the table, or those where this SQL holds, in no order; none where nothing has been marked yet.

    Args:
        version: of the table, which ``append_rows`` gives; by default the newest.
    """

    def read() -> pa.Table:
        table = _open(index)
        if table is None:
            return MARKS.empty_table().select(columns)
        if version is not None:
            table = table.checkout_version(version)
        return table.to_table(columns=list(columns), filter=where)

    return _again(read)


def append_rows(index: str, rows: pa.Table) -> int:
    """Append rows of MARKS, all or none. The table is created if need be.

    Returns the version of the table that these rows made: what else it holds was stored before them. After a failure,
    it may be a later one.

    Merging by the key would keep a row from being written twice, too, but commits 67 kB where an append commits 1.5 kB.
    So a failure, which may be the loss of an answer, is followed by a look whether the rows are there.
    """
    is_tried = False

    def append() -> Any:
        nonlocal is_tried
        table = _open(index)
        if table is None:
            table = _create(index)
        if is_tried and table.count_rows(filter=among("mark_id", rows["mark_id"].to_pylist())) >= rows.num_rows:
            return table
        is_tried = True
        return lance.write_dataset(rows, table, mode="append", data_storage_version=FILE_FORMAT)

    table = _again(append)
    version = int(table.version)
    _tidy(table)
    return version


def take_out(index: str, mark_ids: Collection[str]) -> None:
    """Delete rows that were stored and may not stay: nobody has been told that they are."""

    def delete() -> None:
        table = _open(index)
        if table is not None:
            table.delete(among("mark_id", mark_ids))

    if mark_ids:
        _again(delete)


def _again(action: Callable[[], T]) -> T:
    """Repeat ``action``, which opens the table, where another writer may have been the reason of its failure."""
    for pause_s in _PAUSES_S:
        try:
            return action()
        except Exception as error:
            if not _may_pass(error):
                raise
            time.sleep(pause_s * random.uniform(0.5, 1.0))
    return action()


def _may_pass(error: Exception) -> bool:
    """Whether another attempt may succeed. A version that a clean-up has deleted meanwhile is reported like damage."""
    if journal.is_conflict(error):
        return True
    return engine_errors.is_failure(error) and engine_errors.diagnose(str(error)) in ("damage", "store")


def _open(index: str) -> Any | None:
    """The newest version, a ``lance.LanceDataset``; None where there is no table."""
    return journal.open_if_there(table_uri(index, NAME))


# --- creation ---------------------------------------------------------------------------------------------------------


def _create(index: str) -> Any:
    """Create the empty table, unless another writer has just done so, and open it.

    Lance's own creation would replace a table that appears after it has looked for one, with the marks in it. So the
    table is made elsewhere, and put into its place by a step that fails if there is one.
    """
    index = storage.absolute(index)
    uri = table_uri(index, NAME)
    with _scratch(index) as folder:
        made = Path(folder) / "made.lance"
        lance.write_dataset(MARKS.empty_table(), made, data_storage_version=FILE_FORMAT)
        if storage.is_url(uri):
            _put_first_version(made, uri)
        else:
            _rename(made, uri)
    return lance.dataset(uri)


@contextmanager
def _scratch(index: str) -> Iterator[str]:
    """A folder on the disk of the index, so that a folder in it can be renamed into the index."""
    if storage.is_url(index):
        with tempfile.TemporaryDirectory(prefix="earshot-") as folder:
            yield folder
        return
    folder = os.path.join(index, f"{NAME}-{uuid.uuid4().hex}")
    os.mkdir(folder)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _rename(made: Path, uri: str) -> None:
    """Give a folder its name, unless there is a folder of that name with something in it."""
    try:
        os.rename(made, uri)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise


def _put_first_version(made: Path, uri: str) -> None:
    """Copy an empty table to a store. Its first version is one object, and putting that is how Lance commits, too."""
    [version] = (made / "_versions").glob("*.manifest")
    store, folder = storage.find_store(storage.join(uri, "_versions"))
    with contextlib.suppress(FileExistsError):
        store.pipe_file(f"{folder}/{version.name}", version.read_bytes(), mode="create")


# --- maintenance ------------------------------------------------------------------------------------------------------


def _tidy(table: Any) -> None:
    """Merge small fragments, once there are many, and delete versions that nobody needs any more.

    The marks are stored by now, so a failure is none: the next append tries again. Of two that merge at the same time,
    one is refused; appends go on beside it. Files of appends that are not committed yet are younger than a week, which
    clean-up leaves alone.
    """
    small = [fragment for fragment in table.get_fragments() if fragment.count_rows() < ROWS_PER_FRAGMENT]
    if len(small) < MOST_FRAGMENTS:
        return
    try:
        table.optimize.compact_files(target_rows_per_fragment=ROWS_PER_FRAGMENT, data_storage_version=FILE_FORMAT)
        table.cleanup_old_versions(_A_LOOK)
    except Exception as error:
        if not (journal.is_conflict(error) or engine_errors.is_failure(error)):
            raise
