"""Commits are whole, crashes at any step leave no trace in the published rows, and of two writers one wins."""

import datetime as dt
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import lance
import pytest

from pipeline import schema
from pipeline.errors import CommitConflict
from pipeline.index import journal
from pipeline.index.maintenance import refresh_indexes
from pipeline.index.tables import open_published
from pipeline.index.writer import Batch, Writer
from pipeline.planning.file_rows import empty_row, files_table
from tests.helpers.batches import (
    BEFORE,
    RACE_A,
    Corpus,
    Killed,
    Killer,
    check_state,
    create,
    make_batch,
    prepare,
    read_state,
    run,
)

# 1 changes, 3 and 4 change, 5 is deleted, 6 is mended, 7 and 8 are new, one of them bad.
AFTER: Corpus = {
    "1": ("dd", 30),
    "2": ("aa", 8),
    "3": ("ee", 9),
    "4": ("ff", 10),
    "6": ("gg", 11),
    "7": ("bad y", 14),
    "8": ("hh", 31),
}


def test_commits_publish_rows_and_replace_them(tmp_path: Path) -> None:
    create(tmp_path)
    run(tmp_path, BEFORE)
    check_state(tmp_path, BEFORE)
    run(tmp_path, AFTER, "again")
    check_state(tmp_path, AFTER, deleted=("5",))
    run(tmp_path, {}, "empty")  # nothing new: nothing to commit
    check_state(tmp_path, AFTER, deleted=("5",))


def test_frames_of_one_audio_lie_together_and_in_order(tmp_path: Path) -> None:
    create(tmp_path)
    run(tmp_path, BEFORE)
    run(tmp_path, AFTER, "again")
    table = open_published(tmp_path, "frames").to_table(columns=["audio_id", "frame"])
    order: dict[str, list[int]] = {}
    for row in table.to_pylist():
        order.setdefault(row["audio_id"], []).append(row["frame"])
    assert table["audio_id"].to_pylist() == [audio_id for audio_id, frames in order.items() for _ in frames]
    assert all(frames == list(range(len(frames))) for frames in order.values())


def test_journal_counts_what_was_written_and_names_its_batches(tmp_path: Path) -> None:
    create(tmp_path)
    began = dt.datetime.now(dt.UTC)
    run(tmp_path, BEFORE)
    rows = journal.read_journal(tmp_path).to_pylist()
    assert [row["seq"] for row in rows] == list(range(len(rows)))
    assert [row["kind"] for row in rows] == ["create", "index", "index", "index", "maintain"]
    assert {row["run_id"] for row in rows[1:]} == {"run"}
    assert all(began <= row["committed_at"] <= dt.datetime.now(dt.UTC) for row in rows[1:])
    counts = ("n_files", "n_failed", "n_clips", "n_frames", "audio_s")
    assert [tuple(row[name] for name in counts) for row in rows[1:4]] == [
        (2, 0, 2, 8, pytest.approx(0.64)),  # two files that share their frames
        (2, 0, 6, 25, pytest.approx(2.0)),
        (2, 1, 1, 12, pytest.approx(0.48)),
    ]
    for name in ("files", "clips", "frames"):
        table = open_published(tmp_path, name).to_table(columns=["batch_id"])
        written = {value["values"]: value["counts"] for value in table["batch_id"].value_counts().to_pylist()}
        assert written == {row["batch_id"]: row[f"n_{name}"] for row in rows[1:4]}


def test_copies_write_no_frames_and_are_not_counted(tmp_path: Path) -> None:
    batch = make_batch(tmp_path / "scratch", "b" * 32, {"1": ("aa", 8)})
    assert (batch.describe()["n_frames"], batch.n_rows) == (8, 9)
    copied = Batch(batch.batch_id, batch.files, batch.clips)
    assert (copied.describe()["n_frames"], copied.n_rows) == (0, 1)
    failed = make_batch(tmp_path / "scratch", "b" * 32, {"1": ("bad", 8)})
    assert (failed.describe()["n_frames"], failed.describe()["audio_s"], failed.n_rows) == (0, 0.0, 0)


def test_orphaned_frames_are_deleted_and_those_of_an_earlier_batch_stay(tmp_path: Path) -> None:
    create(tmp_path)
    writer = Writer(tmp_path, "run")
    writer.commit([make_batch(tmp_path, "a" * 32, {"1": ("aa", 8)})])
    # A later file begins with windows under the same id, and fails.
    late = make_batch(tmp_path, "b" * 32, {"2": ("aa", 8)})
    failed = empty_row("2", None) | {"status": "failed"}
    orphaned = frozenset({schema.make_audio_id("aa")})
    writer.commit([replace(late, files=files_table([failed]), clips=late.clips.slice(0, 0), orphaned=orphaned)])
    frames = open_published(tmp_path, "frames").to_table().to_pylist()
    assert [(row["frame"], row["batch_id"]) for row in frames] == [(frame, "a" * 32) for frame in range(8)]
    [pool] = open_published(tmp_path, "pools").to_table().to_pylist()
    assert (pool["first_frame"], pool["n_frames"], pool["batch_id"]) == (0, 8, "a" * 32)


def test_readers_see_whole_commits_only(tmp_path: Path) -> None:
    create(tmp_path)
    run(tmp_path, BEFORE)
    seen = []

    def look(step: str) -> None:
        statuses = {row["uri"]: row["status"] for row in read_state(tmp_path)["files"]}
        seen.append((step, statuses.get("5"), statuses.get("8"), len(journal.read_journal(tmp_path))))

    n_before = len(journal.read_journal(tmp_path))
    run(tmp_path, AFTER, "again", look)
    publications = [k for k, (step, *_) in enumerate(seen) if step == "publish"]
    for step, five, _, n_rows in seen[: publications[0] + 1]:
        assert (five, n_rows) == ("indexed", n_before), step
    for step, five, eight, n_rows in seen[publications[0] + 1 : publications[1] + 1]:
        assert (five, eight) == ("deleted", "indexed" if n_rows > n_before + 2 else None), step
    # The journal row comes last, after all tables.
    steps = [step for step, *_ in seen[: publications[0]]]
    assert steps == [
        f"{verb} {name}" for name in ("frames", "pools", "clips", "files") for verb in ("delete", "append")
    ]


def test_version_that_a_dead_writer_left_untagged_is_tagged_by_the_next(tmp_path: Path) -> None:
    """So no clean-up deletes it."""

    def die(step: str) -> None:
        if step == "tag":
            raise Killed

    create(tmp_path)
    with pytest.raises(Killed):
        run(tmp_path, BEFORE, "first", die)
    Writer(tmp_path, "second")
    for name, version in journal.read_published(tmp_path).versions.items():
        tags = lance.dataset(journal.table_uri(tmp_path, name)).tags.list()
        assert version in [tag["version"] for tag in tags.values()]


def test_nothing_is_recovered_twice(tmp_path: Path) -> None:
    create(tmp_path)
    run(tmp_path, BEFORE)
    with pytest.raises(Killed):
        run(tmp_path, AFTER, "first", Killer(8))
    recovering = Killer()
    run(tmp_path, BEFORE, "second", recovering)
    assert recovering.steps[:4] == [f"recover {name}" for name in ("files", "clips", "frames", "pools")]
    quiet = Killer()
    run(tmp_path, BEFORE, "third", quiet)
    assert not [step for step in quiet.steps if not step.startswith("index")]
    check_state(tmp_path, BEFORE)


RACE_B: Corpus = BEFORE | {"2": ("ee", 9), "7": ("gg", 11)}


def race(path: Path, step: int) -> list[str]:
    """Two writers open one index, and the first commits while the second is at ``step``; returns who published."""
    first = Writer(path, "first")
    batches = prepare(path, first, RACE_A)
    seen, winners = list[str](), list[str]()

    def interrupt(name: str) -> None:
        seen.append(name)
        if len(seen) == step + 1 and succeeds(lambda: first.commit(batches)):
            winners.append("first")

    second = Writer(path, "second", failpoint=interrupt)
    prepared = prepare(path, second, RACE_B)
    if succeeds(lambda: second.commit(prepared)):
        winners.append("second")
    return winners


def test_of_two_writers_at_most_one_publishes_and_nothing_is_doubled(tmp_path: Path) -> None:
    base = tmp_path / "base"
    create(base)
    run(base, BEFORE)
    won = []
    for step in range(6):  # appends to three tables, deletions from two, and the publication
        path = tmp_path / f"race{step}"
        shutil.copytree(base, path)
        winners = race(path, step)
        won.append(winners)
        check_state(path, {(): BEFORE, ("first",): RACE_A, ("second",): RACE_B}[tuple(winners)])
        run(path, RACE_A, "after")
        check_state(path, RACE_A)
    # Whoever is first at the first table that both change goes on, and the other stops there.
    assert won == [["first"], *[["second"]] * 5]


def succeeds(commit: Callable[[], object]) -> bool:
    try:
        commit()
    except CommitConflict:
        return False
    return True


def test_writer_that_was_overtaken_never_publishes_again(tmp_path: Path) -> None:
    create(tmp_path)
    slow = Writer(tmp_path, "slow")
    batches = prepare(tmp_path, slow, BEFORE)
    run(tmp_path, RACE_A, "fast")
    for _ in range(2):
        assert not succeeds(lambda: slow.commit(batches))
    assert not succeeds(lambda: refresh_indexes(slow))
    check_state(tmp_path, RACE_A)


def test_another_writers_recovery_stops_the_first(tmp_path: Path) -> None:
    create(tmp_path)
    run(tmp_path, BEFORE)

    def recover(step: str) -> None:
        if step == "append clips":
            Writer(tmp_path, "second")

    writer = Writer(tmp_path, "first", failpoint=recover)
    batches = prepare(tmp_path, writer, AFTER)
    assert not succeeds(lambda: writer.commit(batches))
    check_state(tmp_path, BEFORE)


def test_journal_row_of_the_same_number_is_refused_whole(tmp_path: Path) -> None:
    create(tmp_path)
    first, second = Writer(tmp_path, "first"), Writer(tmp_path, "second")
    empty = make_batch(tmp_path, "a" * 32, {})
    first.commit([empty])
    # The second would write two rows, of which only one is taken.
    assert not succeeds(lambda: second.commit([empty, empty]))
    assert [row["run_id"] for row in journal.read_journal(tmp_path).to_pylist()][1:] == ["first"]
    first.commit([empty, empty])
    assert journal.read_published(tmp_path).seq == 3


def test_tags_keep_the_newest_versions_through_a_clean_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.index.writer.KEEP_VERSIONS", 3)
    create(tmp_path)
    writer = Writer(tmp_path, "run")
    history = [writer.commit([make_batch(tmp_path, f"{k:032x}", {f"{k}": (f"c{k}", 9)})]) for k in range(5)]
    states = [open_published(tmp_path, "files", published).count_rows() for published in history]
    assert states == [1, 2, 3, 4, 5]
    for name in journal.DATA_TABLES:
        dataset = lance.dataset(journal.table_uri(tmp_path, name))
        found = {tag: value["version"] for tag, value in dataset.tags.list().items()}
        assert found == {f"published-{p.seq:012d}": p.versions[name] for p in history[-3:]}
        dataset.cleanup_old_versions(older_than=dt.timedelta(0), error_if_tagged_old_versions=False)
    for published, count in list(zip(history, states, strict=True))[-3:]:
        assert open_published(tmp_path, "files", published).count_rows() == count
        assert open_published(tmp_path, "frames", published).count_rows() == 9 * count
    with pytest.raises(ValueError, match="not found"):
        open_published(tmp_path, "files", history[0]).count_rows()
