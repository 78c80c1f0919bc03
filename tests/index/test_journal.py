"""The commit point, where the answer to it gets lost on its way."""

from pathlib import Path
from typing import Any

import lance
import pytest

from pipeline.errors import CommitConflict
from pipeline.index import journal
from pipeline.index.writer import Writer
from tests.helpers.batches import BEFORE, RACE_A, check_state, create, prepare, run

LOST = [OSError("connection reset"), OSError("Too many concurrent writers")]
"""What a writer gets whose insert was carried out: the error of the connection, or the store's word to a second try."""


class Deaf:
    """A journal that does not hear the answer to its first insert."""

    def __init__(self, real: Any, error: Exception, *, is_done: bool = True) -> None:
        self._real, self._error, self._is_done, self.n_inserts = real, error, is_done, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def merge_insert(self, column: str) -> Any:
        self.n_inserts += 1
        # An answer that does not arrive leaves the dataset at its version.
        real = self._real if self.n_inserts > 1 else lance.dataset(self._real.uri, version=self._real.version)
        self._insert = real.merge_insert(column)
        return self

    def when_not_matched_insert_all(self) -> Any:
        self._insert = self._insert.when_not_matched_insert_all()
        return self

    def conflict_retries(self, number: int) -> Any:
        self._insert = self._insert.conflict_retries(number)
        return self

    def execute(self, rows: Any) -> Any:
        if self.n_inserts > 1:
            return self._insert.execute(rows)
        if self._is_done:
            self._insert.execute(rows)
        raise self._error


@pytest.mark.parametrize("error", LOST)
def test_writer_continues_after_a_publication_whose_answer_was_lost(tmp_path: Path, error: Exception) -> None:
    create(tmp_path)
    writer = Writer(tmp_path, "a")
    writer.journal = Deaf(writer.journal, error)
    first = writer.commit(prepare(tmp_path, writer, BEFORE))
    assert journal.read_published(tmp_path) == first
    check_state(tmp_path, BEFORE)
    writer.commit(prepare(tmp_path, writer, RACE_A))
    check_state(tmp_path, RACE_A)
    assert journal.read_journal(tmp_path)["seq"].to_pylist() == list(range(writer.published.seq + 1))


@pytest.mark.parametrize("error", LOST)
def test_publication_that_failed_is_not_taken_for_done(tmp_path: Path, error: Exception) -> None:
    create(tmp_path)
    writer = Writer(tmp_path, "a")
    writer.journal = Deaf(writer.journal, error, is_done=False)
    with pytest.raises((OSError, CommitConflict)):
        writer.commit(prepare(tmp_path, writer, BEFORE))
    check_state(tmp_path, {})
    run(tmp_path, BEFORE, "after")
    check_state(tmp_path, BEFORE)


@pytest.mark.parametrize("error", LOST)
def test_row_of_another_run_with_the_same_seq_is_a_conflict(tmp_path: Path, error: Exception) -> None:
    """Nor is one with the same ids: two that create an index at the same time have those."""
    create(tmp_path)
    opened = journal.open_journal(tmp_path)
    before = journal.newest(opened)
    rows = [journal.make_row(before.seq + 1, "x", "x", "configure", before.versions) for _ in range(2)]
    journal.publish(journal.open_journal(tmp_path), rows[:1])
    with pytest.raises(CommitConflict, match="another run published batch 1 first"):
        journal.publish(Deaf(opened, error, is_done=False), rows[1:])


def test_publication_that_another_one_followed_stops_the_writer(tmp_path: Path) -> None:
    create(tmp_path)
    slow = journal.open_journal(tmp_path)
    before = journal.newest(slow)
    [mine, other] = [journal.make_row(before.seq + k, "x", "x", "configure", before.versions) for k in (1, 2)]
    journal.publish(journal.open_journal(tmp_path), [mine])
    journal.publish(journal.open_journal(tmp_path), [other])
    with pytest.raises(CommitConflict):
        journal.publish(Deaf(slow, OSError("connection reset"), is_done=False), [mine])


@pytest.mark.parametrize(
    ("error", "is_conflict"),
    [
        (OSError("LanceError(IO): Too many concurrent writers, /x.rs:1"), True),
        (OSError("Retryable commit conflict for version 3"), True),
        (OSError("Commit conflict for version 3: /x"), True),
        (OSError("Not found: /data/commit conflict for version 3/too many concurrent writers/ix"), False),
        (OSError("LanceError(IO): Generic memory error: /Too many concurrent writers: /x"), False),
        (OSError("/data/conflict-zone/concurrent/ix: No space left on device"), False),
    ],
)
def test_conflict_is_recognised_whatever_the_path(error: OSError, is_conflict: bool) -> None:
    assert journal.is_conflict(error) is is_conflict
