"""Each listed file has one place in the plan, and each content is decoded once."""

import pytest

from pipeline import schema
from pipeline.corpus.corpus_file import estimate_seconds
from pipeline.planning.decide import lies_within
from pipeline.planning.request import RunRequest
from tests.helpers.plans import Disk, content_hash, contents, known_row, make_ledger, plan_of

# --- what happens to a file -------------------------------------------------------------------------------------------


def test_new_files_are_decoded_and_only_equal_sizes_hashed() -> None:
    disk = Disk({"a.wav": ("one", 1), "b.wav": ("two", 2), "c.wav": ("three", 3), "d.wav": ("one", 4)})
    plan = plan_of(disk.listed(), make_ledger(), disk)
    assert sorted(contents(plan)) == [["a.wav", "d.wav"], ["b.wav"], ["c.wav"]]
    assert disk.probed == {"a.wav": 1, "b.wav": 1, "d.wav": 1}
    assert disk.hashed == {"a.wav": 1, "d.wav": 1}
    audios = {audio["uris"][0]: audio for audio in plan.batches["audios"].to_pylist()[0]}
    assert audios["a.wav"] == {
        "content_hash": content_hash("one"),
        "start_s": None,
        "end_s": None,
        "size_bytes": 3,
        "estimated_s": 3 / 150_000,
        "uris": ["a.wav", "d.wav"],
        "modified_ns": [1, 4],
        "offsets": [None, None],
        "look": None,
        "stored_s": None,
        "stored_note": None,
    }
    assert audios["c.wav"]["uris"] == ["c.wav"]
    assert (audios["c.wav"]["content_hash"], audios["c.wav"]["size_bytes"]) == (None, 5)
    assert (plan.n_to_decode, plan.bytes_to_decode, plan.n_unchanged) == (4, 11, 0)
    assert plan.seconds_to_decode == sum(estimate_seconds("x.wav", size) for size in (3, 3, 5))
    assert (plan.failed, plan.copies) == ([], [])


def test_empty_files_are_not_taken_for_copies_of_each_other() -> None:
    disk = Disk({"a.wav": ("", 1), "b.wav": ("", 1)})
    assert sorted(contents(plan_of(disk.listed(), make_ledger(), disk))) == [["a.wav"], ["b.wav"]]


@pytest.mark.parametrize(("status", "stage"), [("indexed", None), ("failed", "decode"), ("failed", "encode")])
def test_same_size_and_time_is_unchanged(status: str, stage: str | None) -> None:
    disk = Disk({"a.wav": ("one", 1)})
    plan = plan_of(disk.listed(), make_ledger(known_row("a.wav", "one", 1, status, stage)), disk)
    assert (plan.n_unchanged, contents(plan), plan.failed, plan.copies) == (1, [], [], [])
    assert not disk.hashed


@pytest.mark.parametrize(("status", "stage"), [("failed", "read"), ("failed", "list"), ("deleted", None)])
@pytest.mark.parametrize("modified_ns", [1, 2])
def test_a_file_that_could_not_be_read_is_tried_again(status: str, stage: str | None, modified_ns: int) -> None:
    # Whether or not its time is another: somebody may have restored permissions or a disk.
    disk = Disk({"a.wav": ("one", modified_ns)})
    plan = plan_of(disk.listed(), make_ledger(known_row("a.wav", "one", 1, status, stage)), disk)
    assert (plan.n_unchanged, contents(plan), plan.failed, plan.copies) == (0, [["a.wav"]], [], [])


@pytest.mark.parametrize(("status", "stage"), [("indexed", None), ("failed", "decode"), ("failed", "encode")])
def test_an_mtime_changed_file_keeps_its_row_with_the_new_time(status: str, stage: str | None) -> None:
    old = known_row("a.wav", "one", 1, status, stage)
    disk = Disk({"a.wav": ("one", 2)})
    plan = plan_of(disk.listed(), make_ledger(old), disk)
    assert plan.mtime_changed == [{**old, "modified_ns": 2}]
    assert (plan.n_unchanged, contents(plan), plan.copies, plan.failed) == (1, [], [], [])


@pytest.mark.parametrize("content", ["two", "longer"])
def test_a_changed_file_is_decoded(content: str) -> None:
    disk = Disk({"a.wav": (content, 2)})
    plan = plan_of(disk.listed(), make_ledger(known_row("a.wav", "one", 1)), disk)
    assert (contents(plan), plan.failed, plan.copies) == ([["a.wav"]], [], [])


def test_a_new_file_of_indexed_content_is_a_copy() -> None:
    holder = known_row("a.wav", "one", 1) | {"stage": "decode", "reason": "truncated", "message": "why"}
    disk = Disk({"a.wav": ("one", 1), "b.wav": ("one", 7)})
    plan = plan_of(disk.listed(), make_ledger(holder), disk)
    file_id = schema.make_file_id("b.wav", holder["audio_id"])
    expected = {**holder, "uri": "b.wav", "file_id": file_id, "modified_ns": 7}
    assert plan.copies == [(expected, holder["file_id"])]
    assert (plan.n_unchanged, contents(plan), plan.failed) == (1, [], [])


def test_failed_and_deleted_files_are_not_copied() -> None:
    rows = [known_row("a.wav", "one", 1, "failed", "decode"), known_row("b.wav", "two", 1, "deleted")]
    disk = Disk({"c.wav": ("one", 1), "d.wav": ("two", 1)})
    plan = plan_of(disk.listed(), make_ledger(*rows), disk)
    assert sorted(contents(plan)) == [["c.wav"], ["d.wav"]]


def test_files_that_swap_their_contents_are_copies_of_each_other() -> None:
    a, b = known_row("a.wav", "one", 1), known_row("b.wav", "two", 1)
    disk = Disk({"a.wav": ("two", 2), "b.wav": ("one", 2)})
    ledger = make_ledger(a, b)
    plan = plan_of(disk.listed(), ledger, disk)
    assert {row["uri"]: (row["audio_id"], holder) for row, holder in plan.copies} == {
        "a.wav": (b["audio_id"], b["file_id"]),
        "b.wav": (a["audio_id"], a["file_id"]),
    }
    dropped = ledger.apply(row for row, _ in plan.copies)
    assert dropped == (frozenset([a["file_id"], b["file_id"]]), frozenset())


def test_a_file_that_cannot_be_listed_fails_once_and_is_unchanged_then() -> None:
    disk = Disk({})
    listed = disk.listed({"gone.wav": "vanished"})
    plan = plan_of(listed, make_ledger(known_row("gone.wav", "one", 1)), disk)
    (row,) = plan.failed
    expected = {"status": "failed", "stage": "list", "reason": "vanished", "message": "why", "n_clips": 0}
    assert {name: row[name] for name in expected} == expected
    assert (row["audio_id"], row["content_hash"]) == (None, None)
    assert row["file_id"] == schema.make_file_id("gone.wav", None)
    again = plan_of(listed, make_ledger(row | {"batch_id": "0" * 32}), disk)
    assert (again.n_unchanged, again.failed) == (1, [])
    other = plan_of(disk.listed({"gone.wav": "unreadable"}), make_ledger(row | {"batch_id": "0" * 32}), disk)
    assert [row["reason"] for row in other.failed] == ["unreadable"]


def test_an_indexed_file_that_cannot_be_read_now_keeps_its_rows() -> None:
    """Whether listing or reading fails. A file that has changed, or has vanished, does not keep them."""
    old = [known_row(f"{name}.wav", "one", 1) for name in "abcd"]
    disk = Disk({"b.wav": ("one", 1), "c.wav": ("one", 2)}, broken=frozenset({"b.wav", "c.wav"}))
    listed = disk.listed({"a.wav": "unreadable", "d.wav": "vanished"})
    plan = plan_of(listed, make_ledger(*old), disk, request=RunRequest(check_content=True))
    assert sorted(plan.unreadable) == [("a.wav", "why"), ("b.wav", "input/output error")]
    assert plan.n_unchanged == 2
    assert {row["uri"]: row["reason"] for row in plan.failed} == {"c.wav": "unreadable", "d.wav": "vanished"}
    assert sorted(plan.removed.values()) == ["c.wav", "d.wav"]
    told = {uri: (action, why) for uri, action, why in plan.actions}
    assert told["a.wav"] == ("unchanged", "cannot be read now, its rows stay: why")
    assert told["b.wav"] == ("unchanged", "cannot be read now, its rows stay: input/output error")
    assert not plan.deleted


def test_a_file_without_a_time_is_compared_by_its_bytes() -> None:
    old = [known_row("a.wav", "one", 0), known_row("b.wav", "one", 0)]
    disk = Disk({"a.wav": ("one", 0), "b.wav": ("two", 0)})
    plan = plan_of(disk.listed(), make_ledger(*old), disk)
    assert disk.hashed == {"a.wav": 1, "b.wav": 1}
    assert (plan.n_unchanged, plan.mtime_changed, contents(plan)) == (1, [], [["b.wav"]])
    assert ("a.wav", "unchanged", "the same bytes") in plan.actions
    unreadable = Disk(disk.files, broken=frozenset({"a.wav", "b.wav"}))
    plan = plan_of(unreadable.listed(), make_ledger(*old), unreadable)
    assert (plan.n_unchanged, plan.failed, len(plan.unreadable)) == (2, [], 2)


def test_a_moved_file_is_told_from_a_second_copy() -> None:
    disk = Disk({"new.wav": ("one", 9), "copy.wav": ("four", 9), "four.wav": ("four", 1)})
    ledger = make_ledger(known_row("old.wav", "one", 1), known_row("four.wav", "four", 1))
    plan = plan_of(disk.listed(), ledger, disk)
    assert [(uri, action) for uri, action, _ in plan.actions] == [
        ("copy.wav", "duplicate"),
        ("four.wav", "unchanged"),
        ("new.wav", "moved"),
        ("old.wav", "deleted"),
    ]
    assert plan_of(disk.listed(), ledger, disk) == plan  # planning changes nothing
    (row,) = plan.deleted
    assert (row["status"], row["n_clips"], row["n_frames"], row["content_hash"]) == (
        "deleted",
        0,
        0,
        content_hash("one"),
    )
    # A deleted file is not deleted again, and nothing is copied from it.
    again = plan_of(Disk({"x.wav": ("one", 1)}).listed(), make_ledger(row), Disk({"x.wav": ("one", 1)}))
    assert (again.deleted, again.copies, contents(again)) == ([], [], [["x.wav"]])


def test_removed_files_are_those_that_were_indexed_and_have_not_moved() -> None:
    """Of two deleted files of one content, one has moved to the new file. A file that had failed is not removed."""
    rows = [known_row(f"{name}.wav", "one", 1) for name in "ab"]
    rows += [
        known_row("c.wav", "four", 1),
        known_row("d.wav", "seven", 1),
        known_row("e.wav", "x", 1, "failed", "decode"),
    ]
    disk = Disk({"new.wav": ("one", 1), "other.wav": ("seven", 1)})
    plan = plan_of(disk.listed({"c.wav": "vanished", "d.wav": "vanished"}), make_ledger(*rows), disk)
    assert sorted(plan.removed.values()) == ["b.wav", "c.wav"]
    assert len(plan.deleted) == 3


# --- what a person asks -----------------------------------------------------------------------------------------------


def test_checking_contents_finds_a_change_behind_equal_size_and_time() -> None:
    disk = Disk({"a.wav": ("two", 1), "b.wav": ("same", 1)})
    ledger = make_ledger(known_row("a.wav", "one", 1), known_row("b.wav", "same", 1))
    assert plan_of(disk.listed(), ledger, disk).n_unchanged == 2
    plan = plan_of(disk.listed(), ledger, disk, request=RunRequest(check_content=True))
    assert contents(plan) == [["a.wav"]]
    assert plan.actions == [("a.wav", "changed", "other bytes"), ("b.wav", "unchanged", "same size and time")]


def test_a_truncated_file_is_tried_again_when_its_reason_is_named() -> None:
    disk = Disk({"a.wav": ("one", 1), "b.wav": ("four", 1)})
    ledger = make_ledger(known_row("a.wav", "one", 1) | {"reason": "truncated"}, known_row("b.wav", "four", 1))
    assert contents(plan_of(disk.listed(), ledger, disk, request=RunRequest(retry_failed=True))) == []
    named = RunRequest(retry_failed=True, reason="truncated")
    assert contents(plan_of(disk.listed(), ledger, disk, request=named)) == [["a.wav"]]


def test_checking_contents_reads_each_file_once_and_finds_copies() -> None:
    disk = Disk({"a.wav": ("two", 1), "b.wav": ("two", 1), "c.wav": ("one", 1), "new.wav": ("two", 1)})
    ledger = make_ledger(*(known_row(f"{name}.wav", f"{name} was another", 1) | {"size_bytes": 3} for name in "abc"))
    plan = plan_of(disk.listed(), ledger, disk, request=RunRequest(check_content=True))
    assert sorted(contents(plan)) == [["a.wav", "b.wav", "new.wav"], ["c.wav"]]
    assert disk.hashed == {"a.wav": 1, "b.wav": 1, "c.wav": 1, "new.wav": 1}


def test_checking_contents_does_not_retry_a_file_that_killed_its_worker() -> None:
    """Its hash is not known, so there is nothing to compare."""
    disk = Disk({"a.wav": ("one", 1)})
    row = known_row("a.wav", "one", 1, "failed", "decode") | {"reason": "crashed", "content_hash": None}
    plan = plan_of(disk.listed(), make_ledger(row), disk, request=RunRequest(check_content=True))
    assert (plan.n_unchanged, contents(plan), disk.hashed) == (1, [], {})


@pytest.mark.parametrize("content", ["one", "other"])
def test_a_touched_file_that_killed_its_worker_is_tried_again(content: str) -> None:
    """Its hash is not known, so it may have changed."""
    disk = Disk({"a.wav": (content, 2)})
    row = known_row("a.wav", "one", 1, "failed", "decode") | {"reason": "crashed", "content_hash": None}
    plan = plan_of(disk.listed(), make_ledger(row | {"audio_id": None}), disk)
    assert (plan.n_unchanged, contents(plan)) == (0, [["a.wav"]])


def test_failures_are_retried_all_or_by_reason() -> None:
    disk = Disk({"a.wav": ("one", 1), "b.wav": ("four", 1)})
    rows = [known_row(f"{name}.wav", text, 1, "failed", "decode") for name, text in (("a", "one"), ("b", "four"))]
    rows[1]["reason"] = "crashed"
    ledger = make_ledger(*rows)
    plan = plan_of(disk.listed(), ledger, disk)
    assert (plan.n_unchanged, plan.n_failed_before, contents(plan)) == (2, 2, [])
    assert {action for _, action, _ in plan.actions} == {"failed"}
    assert sorted(contents(plan_of(disk.listed(), ledger, disk, request=RunRequest(retry_failed=True)))) == [
        ["a.wav"],
        ["b.wav"],
    ]
    plan = plan_of(disk.listed(), ledger, disk, request=RunRequest(retry_failed=True, reason="crashed"))
    assert contents(plan) == [["b.wav"]]
    assert plan.actions[1] == ("b.wav", "retried", "failed before: crashed")


def test_a_full_run_decodes_each_content_once() -> None:
    disk = Disk({"a.wav": ("one", 1), "b.wav": ("one", 1), "c.wav": ("three", 1)})
    ledger = make_ledger(*(known_row(uri, content, 1) for uri, (content, _) in disk.files.items()))
    plan = plan_of(disk.listed(), ledger, disk, request=RunRequest(full=True))
    assert sorted(contents(plan)) == [["a.wav", "b.wav"], ["c.wav"]]
    assert (plan.n_unchanged, plan.copies, plan.mtime_changed) == (0, [], [])


# --- folders and shards -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("uri", "is_within"),
    [
        ("/a/in/b.wav", True),
        ("/a/in/deep/b.wav", True),
        ("/a/into/b.wav", False),
        ("/a/in", False),
        ("/t.tar#b.wav", True),
        ("/t.tar#in/b.wav", True),
        ("/s.tar#b.wav", False),
        ("/a/b.wav", False),
    ],
)
def test_a_file_lies_within_its_folders_and_its_shard(uri: str, is_within: bool) -> None:
    assert lies_within(uri, {"/a/in", "/t.tar"}) == is_within
    assert not lies_within(uri, set())
