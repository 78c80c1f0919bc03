"""The commit point, where the answer to it gets lost on its way."""

import copy
import datetime as dt
import itertools
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lance
import pyarrow as pa
import pytest

import pipeline
from pipeline import schema
from pipeline.errors import CommitConflict, IndexMismatch, IndexMissing
from pipeline.grid import Grid
from pipeline.index import journal
from pipeline.index.handle import find_index, open_index
from pipeline.index.tables import create_tables
from pipeline.index.writer import Writer
from pipeline.run.prepare import read_config
from tests.helpers.batches import BEFORE, RACE_A, check_state, create, prepare, run
from tests.helpers.tables import MODEL, SILENT, write_index

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


SETTINGS: dict[str, Any] = {
    "clip_model": MODEL,
    "frame_model": MODEL,
    "window": {"length_s": 10.0, "overlap_s": 0.4},
    "decode": {"resampler": "HQ"},
    "frames": "all",
}


@pytest.fixture
def index(tmp_path: Path) -> Path:
    write_index(tmp_path / "index", {"/a.wav": SILENT}, Grid())
    return tmp_path / "index"


def insert(path: Path, kind: str, detail: str) -> None:
    """Add a row to the journal, as nobody should."""
    newest = journal.read_published(path)
    row = journal.make_row(newest.seq + 1, "x", "x", kind, newest.versions) | {"detail": detail}
    journal.publish(journal.open_journal(path), [row])


def rewrite_first(path: Path, detail: str) -> None:
    """The row that an index begins with, with another ``detail``."""
    rows = journal.open_journal(path).to_table().to_pylist()
    table = pa.Table.from_pylist([{**row, "detail": detail if row["seq"] == 0 else row["detail"]} for row in rows])
    lance.write_dataset(table.cast(schema.BATCHES), journal.table_uri(path, "batches"), mode="overwrite")


def assert_refused(action: Any) -> None:
    with pytest.raises(IndexMismatch) as caught:
        action()
    assert "\n" not in str(caught.value)
    assert "restore the index from a copy" in str(caught.value)


WRONG = ["../../../etc", "2", "x", "", 0, -1, 1, 1.5, 2.0, True, None, [2], {"2": 2}, 99, 10**30, 10**4000]


@pytest.mark.parametrize("generation", WRONG, ids=lambda value: str(value)[:20])
def test_generation_that_no_run_can_have_made_is_refused(index: Path, generation: object) -> None:
    insert(index, "switch", json.dumps({"generation": generation}))
    for action in (pipeline.open, find_index):
        assert_refused(lambda action=action: action(str(index)))


@pytest.mark.parametrize("detail", ["", "nonsense", "[]", "2", "null", "{}", "[" * 100_000, '{"generation": 2'])
def test_detail_that_is_no_mapping_is_refused(index: Path, detail: str) -> None:
    insert(index, "switch", detail)
    assert_refused(lambda: pipeline.open(str(index)))


@pytest.mark.parametrize("kind", ["migrate", "create"])
@pytest.mark.parametrize("detail", ["x", "{}", '{"format": "9"}', '{"format": null}', '{"format": true}'])
def test_format_that_is_no_number_is_refused(index: Path, kind: str, detail: str) -> None:
    insert(index, kind, detail)
    assert_refused(lambda: pipeline.open(str(index)))


@pytest.mark.parametrize("detail", ["x", "{}", '{"config": 7}', '{"config": null}'])
def test_configuration_that_is_no_mapping_is_refused(index: Path, detail: str) -> None:
    insert(index, "configure", detail)
    assert_refused(lambda: read_config(open_index(str(index))))


@pytest.mark.parametrize("detail", ["x", "[]", '{"encoded_s": "x"}', '{"encoded_s": null}'])
def test_history_row_with_invalid_detail_is_refused(index: Path, detail: str) -> None:
    newest = journal.read_published(index)
    row = journal.make_row(newest.seq + 1, "x", "x", "index", newest.versions, seconds=1.0, audio_s=1.0)
    journal.publish(journal.open_journal(index), [row | {"detail": detail}])
    assert_refused(pipeline.open(str(index)).history)


def test_version_of_the_writer_is_noted_with_each_row(index: Path) -> None:
    newest = journal.read_published(index)
    row = journal.make_row(newest.seq + 1, "x", "x", "optimize", newest.versions, detail={"of": 1})
    assert json.loads(row["detail"]) == {"earshot": pipeline.__version__, "of": 1}
    assert journal.writer_version(row) == pipeline.__version__
    assert journal.writer_version(row | {"detail": "{}"}) is None
    assert_refused(lambda: journal.writer_version(row | {"detail": '{"earshot": 7}'}))


def change(key: str, value: object) -> dict[str, Any]:
    """The settings with another value, or without it; ``key`` may lead into a mapping."""
    settings = copy.deepcopy(SETTINGS)
    *outer, last = key.split(".")
    place = settings[outer[0]] if outer else settings
    if value is ...:
        del place[last]
    else:
        place[last] = value
    return settings


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *itertools.product(("clip_model", "frame_model", "window", "decode"), (..., "x", 7, [1])),
        *((key, None) for key in ("window", "decode", "frames")),
        *((f"clip_model.{key}", ...) for key in ("name", "checksum", "dimension", "logit_scale", "logit_bias")),
        ("clip_model.name", 7),
        ("frame_model.dimension", "8"),
        ("frame_model.logit_scale", None),
        ("window.length_s", "x"),
        ("window.length_s", -1),
        ("window.nonsense", 1),
        ("decode.resampler", "../x"),
    ],
)
def test_settings_that_no_run_can_have_written_are_refused(index: Path, key: str, value: object) -> None:
    detail = {"format": journal.FORMAT, "settings": change(key, value)}
    rewrite_first(index, json.dumps(detail))
    assert_refused(lambda: pipeline.open(str(index)))


def test_index_whose_creation_was_interrupted_does_not_exist(tmp_path: Path) -> None:
    path = tmp_path / "was not found"
    (path / "batches.lance" / "_versions").mkdir(parents=True)
    with pytest.raises(IndexMissing):
        pipeline.open(str(path))
    (path / "batches.lance" / "_versions" / "1.manifest").write_bytes(b"")
    with pytest.raises(ValueError, match="Invalid range"):
        pipeline.open(str(path))
    create_tables(tmp_path / "other", SETTINGS, clip_dimension=8, frame_dimension=8)
    assert journal.exists(tmp_path / "other")


def test_readers_may_hold_what_was_published_since_a_time() -> None:
    at = [dt.datetime(2026, 1, 1, hour, tzinfo=dt.UTC) for hour in range(4)]
    rows = [
        journal.make_row(seq, "b", "r", "index", dict.fromkeys(journal.DATA_TABLES, version)) | {"committed_at": when}
        for seq, (version, when) in enumerate(zip([1, 4, 4, 6], at, strict=True))
    ]
    told = []
    for since in (at[0], at[1], at[2], at[3] + dt.timedelta(days=1)):
        table = pa.Table.from_pylist(rows[::-1], schema=schema.BATCHES)
        told.append(journal.versions_since(SimpleNamespace(to_table=table.select), "files", since))
    assert told == [{1, 4, 6}, {1, 4, 6}, {4, 6}, {6}]
