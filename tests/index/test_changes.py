"""Changes to tables: nobody sees them before they are published, and a change of another writer stops them."""

from pathlib import Path

import lance
import pytest

from pipeline.errors import CommitConflict
from pipeline.index import journal
from pipeline.index.changes import after
from pipeline.index.tables import open_published
from pipeline.index.writer import Writer
from tests.helpers.batches import BEFORE, create, run


@pytest.fixture
def writer(tmp_path: Path) -> Writer:
    create(tmp_path)
    run(tmp_path, BEFORE)
    return Writer(tmp_path, "writer")


def count_files(writer: Writer) -> int:
    return int(open_published(writer.path, "files").count_rows())


def test_changes_are_seen_once_they_are_published(writer: Writer) -> None:
    with writer.changes() as changes:
        assert not changes.any
        changes.delete("files", {"file_id": set()})
        assert not changes.any
        changes.make("delete", "files", lambda table: after(table, table.delete, "uri = '1'"))
        assert changes.any
        assert changes.open("files").count_rows() == len(BEFORE) - 1
        assert count_files(writer) == len(BEFORE)
        writer.publish("maintain", changes)
    assert count_files(writer) == len(BEFORE) - 1


def test_unpublished_changes_are_taken_back_by_the_next_writer(writer: Writer) -> None:
    with writer.changes() as changes:
        changes.make("delete", "files", lambda table: after(table, table.delete, "true"))
    with Writer(writer.path, "next").changes() as changes:
        assert changes.open("files").count_rows() == len(BEFORE)


def test_change_of_another_writer_stops_these(writer: Writer) -> None:
    lance.dataset(journal.table_uri(writer.path, "clips")).delete("true")
    with writer.changes() as changes:
        changes.open("files")
        with pytest.raises(CommitConflict, match="another run wrote to `clips`"):
            changes.open("clips")
        with pytest.raises(CommitConflict, match="another run wrote to `clips`"):
            changes.delete("clips", {"file_id": {"x"}})


def test_change_that_makes_more_versions_than_it_says_is_a_conflict(writer: Writer) -> None:
    with writer.changes() as changes, pytest.raises(CommitConflict):
        changes.make("widen", "files", lambda table: after(table, table.delete, "uri = '1'"), n_commits=3)
