"""Every listed file ends up in one place of the plan, and each content is decoded once."""

import re
import tracemalloc
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import schema
from pipeline.corpus.corpus_file import CorpusFile, estimate_seconds
from pipeline.errors import REASONS, FileFailure
from pipeline.planning.batches import MAX_FILES_PER_BATCH, pack
from pipeline.planning.decide import PlanSetup, make_plan
from pipeline.planning.hashing import NEW_PER_DELETED, READ_FIRST
from pipeline.planning.ledger import Ledger
from pipeline.planning.outcomes import empty_row
from pipeline.planning.plan import ACTIONS, Plan
from pipeline.planning.request import RunRequest
from pipeline.schema import Row
from tests.helpers.ledgers import content_hash, make_ledger


class Disk:
    """Made-up files: uri -> (content, modified_ns); counts what is hashed. A content's size is its length."""

    def __init__(self, files: dict[str, tuple[str, int]], broken: frozenset[str] = frozenset()) -> None:
        self.files, self.broken = files, broken
        self.hashed: Counter[str] = Counter()
        self.probed: Counter[str] = Counter()

    def listed(self, reasons: dict[str, str] | None = None) -> pa.Table:
        rows = [_listed(uri, len(content), modified_ns) for uri, (content, modified_ns) in self.files.items()]
        rows += [_listed(uri, 0, 0, reason) for uri, reason in (reasons or {}).items()]
        return pa.Table.from_pylist(sorted(rows, key=lambda row: str(row["uri"])), schema=schema.LISTED)

    def hash_file(self, uri: str) -> str:
        self.hashed[uri] += 1
        if uri in self.broken:
            raise FileFailure("read", "unreadable", "input/output error")
        return content_hash(self.files[uri][0])

    def probe_file(self, uri: str) -> str:
        """The first letter of a content stands for the bytes that are probed."""
        self.probed[uri] += 1
        if uri in self.broken:
            raise FileFailure("read", "unreadable", "input/output error")
        return self.files[uri][0][:1]


def _listed(uri: str, size_bytes: int, modified_ns: int, reason: str | None = None) -> Row:
    message = None if reason is None else "why"
    return dict(uri=uri, size_bytes=size_bytes, modified_ns=modified_ns, reason=reason, message=message)


def known_row(uri: str, content: str, modified_ns: int, status: str = "indexed", stage: str | None = None) -> Row:
    """The ledger row that a run leaves."""
    row = empty_row(uri, schema.make_audio_id(content_hash(content)))
    row.update(status=status, stage=stage, reason=stage and "reason", message=stage and "why", duration_s=1.0)
    row.update(size_bytes=len(content), modified_ns=modified_ns, content_hash=content_hash(content), batch_id="0" * 32)
    return row | {"n_clips": 1, "n_frames": 25, "sample_rate_hz": 48_000, "channels": 1, "codec": "flac"}


def drops(file_ids: list[str], audio_ids: list[str]) -> tuple[frozenset[str], frozenset[str]]:
    """What ``Ledger.apply`` returns: rows of these files, and frames of these audios, must go."""
    return frozenset(file_ids), frozenset(audio_ids)


def plan_of(
    listed: pa.Table, ledger: Ledger, disk: Disk, batch_s: float = 1.0, request: RunRequest = RunRequest()
) -> Plan:
    plan = make_plan(
        listed,
        ledger,
        PlanSetup(batch_s=batch_s, run_id="run", hash_file=disk.hash_file, probe_file=disk.probe_file, request=request),
    )
    assert plan.batches.schema == schema.PLANNED
    return plan


def contents(plan: Plan) -> list[list[str]]:
    return [audio["uris"] for audios in plan.batches["audios"].to_pylist() for audio in audios]


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
    }
    assert audios["c.wav"]["uris"] == ["c.wav"]
    assert (audios["c.wav"]["content_hash"], audios["c.wav"]["size_bytes"]) == (None, 5)
    assert (plan.n_to_decode, plan.bytes_to_decode, plan.n_unchanged) == (4, 11, 0)
    assert plan.seconds_to_decode == sum(estimate_seconds("x.wav", size) for size in (3, 3, 5))
    assert (plan.failed, plan.copies) == ([], [])


def test_files_of_equal_size_are_hashed_only_where_their_probes_agree_too() -> None:
    disk = Disk({f"{n}.wav": (content, 1) for n, content in enumerate(["aaa", "abc", "bcd", "cde", "defg", "aaa"])})
    plan = plan_of(disk.listed(), make_ledger(), disk)
    assert sorted(contents(plan)) == [["0.wav", "5.wav"], ["1.wav"], ["2.wav"], ["3.wav"], ["4.wav"]]
    assert sorted(disk.probed) == ["0.wav", "1.wav", "2.wav", "3.wav", "5.wav"]
    assert sorted(disk.hashed) == ["0.wav", "1.wav", "5.wav"]
    # A file as large as one in the ledger is hashed at once: the ledger keeps no probes.
    disk = Disk({"x.wav": ("xyz", 1), "y.wav": ("yz", 1)})
    plan_of(disk.listed(), make_ledger(known_row("old.wav", "abc", 1)), disk)
    assert (sorted(disk.probed), sorted(disk.hashed)) == ([], ["x.wav"])


def test_reading_many_files_is_reported() -> None:
    disk = Disk({f"{n}.wav": ("same", 1) for n in range(5)})
    said: list[tuple[int, int]] = []
    make_plan(
        disk.listed(),
        make_ledger(),
        PlanSetup(
            batch_s=1.0,
            run_id="run",
            hash_file=disk.hash_file,
            probe_file=disk.probe_file,
            report=lambda n_read, n_files: said.append((n_read, n_files)),
        ),
    )
    assert said == 2 * [(n, 5) for n in range(1, 6)]


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
def test_what_could_not_be_read_is_tried_again(status: str, stage: str | None, modified_ns: int) -> None:
    # Whether or not it was touched since: rights and disks are mended without that.
    disk = Disk({"a.wav": ("one", modified_ns)})
    plan = plan_of(disk.listed(), make_ledger(known_row("a.wav", "one", 1, status, stage)), disk)
    assert (plan.n_unchanged, contents(plan), plan.failed, plan.copies) == (0, [["a.wav"]], [], [])


@pytest.mark.parametrize(("status", "stage"), [("indexed", None), ("failed", "decode"), ("failed", "encode")])
def test_touched_file_keeps_its_row_under_its_new_time(status: str, stage: str | None) -> None:
    old = known_row("a.wav", "one", 1, status, stage)
    disk = Disk({"a.wav": ("one", 2)})
    plan = plan_of(disk.listed(), make_ledger(old), disk)
    assert plan.mtime_changed == [{**old, "modified_ns": 2}]
    assert (plan.n_unchanged, contents(plan), plan.copies, plan.failed) == (1, [], [], [])


@pytest.mark.parametrize("content", ["two", "longer"])
def test_changed_file_is_decoded(content: str) -> None:
    disk = Disk({"a.wav": (content, 2)})
    plan = plan_of(disk.listed(), make_ledger(known_row("a.wav", "one", 1)), disk)
    assert (contents(plan), plan.failed, plan.copies) == ([["a.wav"]], [], [])


def test_new_file_of_indexed_content_is_a_copy() -> None:
    holder = known_row("a.wav", "one", 1) | {"stage": "decode", "reason": "truncated", "message": "why"}
    disk = Disk({"a.wav": ("one", 1), "b.wav": ("one", 7)})
    plan = plan_of(disk.listed(), make_ledger(holder), disk)
    file_id = schema.make_file_id("b.wav", holder["audio_id"])
    expected = {**holder, "uri": "b.wav", "file_id": file_id, "modified_ns": 7}
    assert plan.copies == [(expected, holder["file_id"])]
    assert (plan.n_unchanged, contents(plan), plan.failed) == (1, [], [])


def test_content_that_failed_or_went_is_no_holder() -> None:
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
    assert dropped == drops([a["file_id"], b["file_id"]], [])


def test_what_cannot_be_listed_is_known_and_then_unchanged() -> None:
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


def test_file_that_cannot_be_hashed_is_a_failure_and_not_decoded() -> None:
    # Decoded after all, two of them might be the same content, and its frames would be stored twice.
    disk = Disk({"a.wav": ("one", 1), "b.wav": ("one", 1), "c.wav": ("one", 1)}, broken=frozenset({"a.wav", "c.wav"}))
    plan = plan_of(disk.listed(), make_ledger(), disk)
    assert contents(plan) == [["b.wav"]]
    assert [(row["uri"], row["stage"], row["reason"], row["message"]) for row in plan.failed] == [
        (uri, "read", "unreadable", "input/output error") for uri in ("a.wav", "c.wav")
    ]
    assert (plan.n_to_decode, plan.bytes_to_decode) == (1, 3)
    again = Disk(disk.files)
    ledger = make_ledger(known_row("b.wav", "one", 1), *({**row, "batch_id": "0" * 32} for row in plan.failed))
    assert [row["uri"] for row, _ in plan_of(again.listed(), ledger, again).copies] == ["a.wav", "c.wav"]


def test_an_indexed_file_that_cannot_be_read_now_keeps_its_rows() -> None:
    """Whether it cannot be listed or not be read; one that changed meanwhile, or is gone, does not."""
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


def test_a_file_without_a_time_is_known_by_its_bytes() -> None:
    old = [known_row("a.wav", "one", 0), known_row("b.wav", "one", 0)]
    disk = Disk({"a.wav": ("one", 0), "b.wav": ("two", 0)})
    plan = plan_of(disk.listed(), make_ledger(*old), disk)
    assert disk.hashed == {"a.wav": 1, "b.wav": 1}
    assert (plan.n_unchanged, plan.mtime_changed, contents(plan)) == (1, [], [["b.wav"]])
    assert ("a.wav", "unchanged", "the same bytes") in plan.actions
    shut = Disk(disk.files, broken=frozenset({"a.wav", "b.wav"}))
    plan = plan_of(shut.listed(), make_ledger(*old), shut)
    assert (plan.n_unchanged, plan.failed, len(plan.unreadable)) == (2, [], 2)


def test_no_more_bytes_are_read_first_than_in_a_minute_or_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of new files of a known size, or of equal sizes that begin alike; unless they may be those that are gone."""
    monkeypatch.setattr("pipeline.planning.hashing.READ_FIRST_BYTES", 10)
    ledger = [known_row("old.wav", "xyz", 1)]
    for n_files, n_hashed in ((3, 3), (4, 0)):
        disk = Disk({f"{k}.wav": (f"x{k}z", 1) for k in range(n_files)} | {"old.wav": ("xyz", 1)})
        plan = plan_of(disk.listed(), make_ledger(*ledger), disk)
        assert (sum(disk.hashed.values()), plan.n_to_decode) == (n_hashed, n_files)
        alike = Disk({f"{k}.wav": (f"x{k}z", 1) for k in range(n_files)})
        assert plan_of(alike.listed(), make_ledger(), alike).n_to_decode == n_files
        assert sum(alike.hashed.values()) == n_hashed
    moved = Disk({f"{k}.wav": (f"x{k}z", 1) for k in range(4)} | {"new.wav": ("xyz", 1)})
    plan = plan_of(moved.listed(), make_ledger(*ledger), moved)
    assert [row["uri"] for row, _ in plan.copies] == ["new.wav"]


# --- all of them ------------------------------------------------------------------------------------------------------

_uris = st.sampled_from([f"{name}.{suffix}" for name in "abcdefgh" for suffix in ("wav", "opus")])
_contents = st.sampled_from(["", "x", "y", "xx", "yy", "z" * 200_000, "w" * 200_000, "v" * 1_000_000])
_times = st.integers(1, 2)
_states = st.sampled_from([("indexed", None), ("failed", "decode"), ("failed", "read"), ("deleted", None)])


@settings(deadline=None, max_examples=200)
@given(
    files=st.dictionaries(_uris, st.tuples(_contents, _times)),
    past=st.dictionaries(_uris, st.tuples(_contents, _times, _states)),
    unlisted=st.dictionaries(st.sampled_from(["p.wav", "q.wav", "a.wav"]), st.just("vanished")),
    broken=st.frozensets(_uris, max_size=3),
    batch_s=st.sampled_from([0.5, 2.0, 20.0]),
)
def test_every_file_has_one_place_and_each_content_is_decoded_once(
    files: dict[str, tuple[str, int]],
    past: dict[str, tuple[str, int, tuple[str, str | None]]],
    unlisted: dict[str, str],
    broken: frozenset[str],
    batch_s: float,
) -> None:
    files = {uri: value for uri, value in files.items() if uri not in unlisted}
    disk = Disk(files, broken)
    # As on a real disk: what has the size and time that the ledger knows, is what the ledger knows.
    rows = {
        uri: known_row(uri, content, modified_ns, *state)
        for uri, (content, modified_ns, state) in past.items()
        if uri not in files or (len(content), modified_ns) != (len(files[uri][0]), files[uri][1])
    }
    for uri, (content, modified_ns) in files.items():
        if uri in past and uri not in rows:
            rows[uri] = known_row(uri, content, modified_ns, *past[uri][2])
    ledger = make_ledger(*rows.values())
    plan = plan_of(disk.listed(unlisted), ledger, disk, batch_s)

    to_decode = [uri for group in contents(plan) for uri in group]
    placed = (
        to_decode + [row["uri"] for row in plan.failed + plan.mtime_changed] + [row["uri"] for row, _ in plan.copies]
    )
    assert len(placed) == len(set(placed))
    assert len(placed) + plan.n_unchanged - len(plan.mtime_changed) == len(files) + len(unlisted)
    there = files.keys() | unlisted.keys()
    gone = {uri for uri, row in rows.items() if uri not in there and row["status"] != "deleted"}
    assert {row["uri"] for row in plan.deleted} == gone
    assert [uri for uri, _, _ in plan.actions] == sorted(there | gone)
    assert {action for _, action, _ in plan.actions} <= set(ACTIONS)
    for uri in (files.keys() | unlisted.keys()) - set(placed):
        old = rows[uri]
        assert old["status"] == "indexed" or old["stage"] == "decode"
        assert (len(files[uri][0]), files[uri][1]) == (old["size_bytes"], old["modified_ns"])

    decoded = [[files[uri][0] for uri in group] for group in contents(plan)]
    assert all(len(set(group)) == 1 for group in decoded)
    firsts = [group[0] for group in decoded if group[0]]
    assert len(firsts) == len(set(firsts))
    held = {row["audio_id"] for row in rows.values() if row["status"] == "indexed"}
    assert not held & {schema.make_audio_id(content_hash(content)) for content in firsts}

    by_id = {row["file_id"]: row for row in rows.values()}
    for row, holder_id in plan.copies:
        assert by_id[holder_id]["status"] == "indexed"
        assert row["audio_id"] == by_id[holder_id]["audio_id"] == schema.make_audio_id(row["content_hash"])
        assert row["content_hash"] == content_hash(files[row["uri"]][0])
    assert plan.n_to_decode == len(to_decode)
    assert plan.bytes_to_decode == sum(len(group[0]) for group in decoded)

    batches = plan.batches.to_pylist()
    assert [batch["batch_id"] for batch in batches] == [
        schema.make_batch_id("run", number) for number in range(1, len(batches) + 1)
    ]
    seconds = [[estimate_seconds(a["uris"][0], a["size_bytes"]) for a in batch["audios"]] for batch in batches]
    assert all(len(each) == 1 or sum(each) <= batch_s for each in seconds)
    assert [s for each in seconds for s in each] == sorted((s for each in seconds for s in each), reverse=True)
    # Not needlessly many: none would have fitted into the one before it.
    assert all(sum(a) + b[0] > batch_s for a, b in pairwise(seconds))
    assert plan_of(disk.listed(unlisted), ledger, disk, batch_s) == plan


def test_batches_hold_a_limited_number_of_files() -> None:
    disk = Disk({f"{number:04d}.wav": (f"{number:04d}", 1) for number in range(MAX_FILES_PER_BATCH + 1)})
    plan = plan_of(disk.listed(), make_ledger(), disk, batch_s=1e9)
    assert [len(audios) for audios in plan.batches["audios"].to_pylist()] == [MAX_FILES_PER_BATCH, 1]
    same = Disk({f"{number:04d}.wav": ("same", 1) for number in range(MAX_FILES_PER_BATCH + 1)} | {"x.wav": ("x", 1)})
    plan = plan_of(same.listed(), make_ledger(), same, batch_s=1e9)
    assert [len(group) for group in contents(plan)] == [MAX_FILES_PER_BATCH + 1, 1]
    assert plan.batches.num_rows == 2


# --- the ledger -------------------------------------------------------------------------------------------------------


def test_changed_content_takes_its_clips_and_frames_with_it() -> None:
    old, new = known_row("a.wav", "one", 1), known_row("a.wav", "two", 2)
    ledger = make_ledger(old)
    assert ledger.apply([new]) == drops([old["file_id"]], [old["audio_id"]])
    assert ledger.rows == {"a.wav": new}
    assert ledger.holder(old["audio_id"]) is None
    assert ledger.holder(new["audio_id"]) == new


def test_frames_go_with_the_last_file_that_holds_them() -> None:
    a, b = known_row("a.wav", "one", 1), known_row("b.wav", "one", 1)
    ledger = make_ledger(a, b)
    assert ledger.apply([known_row("a.wav", "two", 2)]) == drops([a["file_id"]], [])
    assert ledger.holder(b["audio_id"]) == b
    assert ledger.apply([known_row("b.wav", "one", 1, "deleted")]) == drops([b["file_id"]], [b["audio_id"]])


def test_indexed_file_that_fails_takes_its_frames_with_it() -> None:
    old = known_row("a.wav", "one", 1)
    failed = empty_row("a.wav", None) | {"status": "failed", "stage": "read"}
    ledger = make_ledger(old)
    assert ledger.apply([failed]) == drops([old["file_id"]], [old["audio_id"]])
    assert ledger.apply([old]) == drops([failed["file_id"]], [])


def test_moved_touched_and_new_files_leave_the_frames_alone() -> None:
    a = known_row("a.wav", "one", 1)
    ledger = make_ledger(a)
    assert ledger.apply([known_row("a.wav", "one", 2)]) == drops([a["file_id"]], [])
    assert ledger.apply([known_row("n.wav", "new", 1)]) == drops([], [])
    moved = known_row("b.wav", "one", 2)
    for order in ([moved, known_row("a.wav", "one", 2, "deleted")], [known_row("a.wav", "one", 2, "deleted"), moved]):
        assert make_ledger(a).apply(order) == drops([a["file_id"]], [])


def test_copy_keeps_the_frames_of_a_holder_that_changes_later_in_the_run() -> None:
    holder = known_row("a.wav", "one", 1)
    disk = Disk({"a.wav": ("else", 2), "b.wav": ("one", 1)})
    ledger = make_ledger(holder)
    plan = plan_of(disk.listed(), ledger, disk)
    assert contents(plan) == [["a.wav"]]
    assert ledger.apply(row for row, _ in plan.copies) == drops([], [])
    assert ledger.apply([known_row("a.wav", "else", 2)]) == drops([holder["file_id"]], [])
    assert ledger.apply([known_row("b.wav", "else", 2)])[1] == {holder["audio_id"]}


# --- what is asked beyond the usual -----------------------------------------------------------------------------------


def test_a_changed_file_of_equal_size_and_time_is_found_when_all_contents_are_checked() -> None:
    disk = Disk({"a.wav": ("two", 1), "b.wav": ("same", 1)})
    ledger = make_ledger(known_row("a.wav", "one", 1), known_row("b.wav", "same", 1))
    assert plan_of(disk.listed(), ledger, disk).n_unchanged == 2
    plan = plan_of(disk.listed(), ledger, disk, request=RunRequest(check_content=True))
    assert contents(plan) == [["a.wav"]]
    assert plan.actions == [("a.wav", "changed", "other bytes"), ("b.wav", "unchanged", "same size and time")]


def test_what_was_truncated_is_tried_again_when_that_is_named() -> None:
    disk = Disk({"a.wav": ("one", 1), "b.wav": ("four", 1)})
    ledger = make_ledger(known_row("a.wav", "one", 1) | {"reason": "truncated"}, known_row("b.wav", "four", 1))
    assert contents(plan_of(disk.listed(), ledger, disk, request=RunRequest(retry_failed=True))) == []
    named = RunRequest(retry_failed=True, reason="truncated")
    assert contents(plan_of(disk.listed(), ledger, disk, request=named)) == [["a.wav"]]


def test_checking_all_contents_reads_each_file_once_and_finds_copies() -> None:
    disk = Disk({"a.wav": ("two", 1), "b.wav": ("two", 1), "c.wav": ("one", 1), "new.wav": ("two", 1)})
    ledger = make_ledger(*(known_row(f"{name}.wav", f"{name} was another", 1) | {"size_bytes": 3} for name in "abc"))
    plan = plan_of(disk.listed(), ledger, disk, request=RunRequest(check_content=True))
    assert sorted(contents(plan)) == [["a.wav", "b.wav", "new.wav"], ["c.wav"]]
    assert disk.hashed == {"a.wav": 1, "b.wav": 1, "c.wav": 1, "new.wav": 1}


def test_checking_all_contents_does_not_try_again_what_killed_its_worker() -> None:
    """Its hash was never told, so nothing can be compared."""
    disk = Disk({"a.wav": ("one", 1)})
    row = known_row("a.wav", "one", 1, "failed", "decode") | {"reason": "crashed", "content_hash": None}
    plan = plan_of(disk.listed(), make_ledger(row), disk, request=RunRequest(check_content=True))
    assert (plan.n_unchanged, contents(plan), disk.hashed) == (1, [], {})


def test_failures_are_tried_again_when_asked_for_all_or_for_one_reason() -> None:
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


def test_full_decodes_everything_and_each_content_once() -> None:
    disk = Disk({"a.wav": ("one", 1), "b.wav": ("one", 1), "c.wav": ("three", 1)})
    ledger = make_ledger(*(known_row(uri, content, 1) for uri, (content, _) in disk.files.items()))
    plan = plan_of(disk.listed(), ledger, disk, request=RunRequest(full=True))
    assert sorted(contents(plan)) == [["a.wav", "b.wav"], ["c.wav"]]
    assert (plan.n_unchanged, plan.copies, plan.mtime_changed) == (0, [], [])


def test_a_file_that_moved_is_told_from_a_second_copy() -> None:
    disk = Disk({"new.wav": ("one", 9), "copy.wav": ("four", 9), "four.wav": ("four", 1)})
    ledger = make_ledger(known_row("old.wav", "one", 1), known_row("four.wav", "four", 1))
    plan = plan_of(disk.listed(), ledger, disk)
    assert [(uri, action) for uri, action, _ in plan.actions] == [
        ("copy.wav", "duplicate"),
        ("four.wav", "unchanged"),
        ("new.wav", "moved"),
        ("old.wav", "deleted"),
    ]
    (row,) = plan.deleted
    assert (row["status"], row["n_clips"], row["n_frames"], row["content_hash"]) == (
        "deleted",
        0,
        0,
        content_hash("one"),
    )
    # Once gone, it is not gone again, and its content counts for nothing.
    again = plan_of(Disk({"x.wav": ("one", 1)}).listed(), make_ledger(row), Disk({"x.wav": ("one", 1)}))
    assert (again.deleted, again.copies, contents(again)) == ([], [], [["x.wav"]])


def test_every_reason_is_listed() -> None:
    """Every reason that the code gives is one of ``REASONS``, and the README of audio explains each."""
    root = Path(__file__).parents[2]
    code = "".join(path.read_text(encoding="utf-8") for path in (root / "pipeline").rglob("*.py"))
    written = set(re.findall(r'FileFailure\(\s*"[a-z]+", "([a-z_]+)"|reason="([a-z_]+)"|"reason": "([a-z_]+)"', code))
    assert {word for words in written for word in words if word} <= set(REASONS)
    readme = (root / "pipeline/audio/README.md").read_text(encoding="utf-8")
    assert [reason for reason in REASONS if f"| `{reason}` |" not in readme] == []


# --- very many files --------------------------------------------------------------------------------------------------

MANY = READ_FIRST + 1


def list_many(size_bytes: int | None = None, name: str = "new") -> pa.Table:
    """New files of about five of each size, or all of one size."""
    row = dict.fromkeys(schema.LISTED.names)
    sizes = (size_bytes or 1 + number % (MANY // 5) for number in range(MANY))
    rows = [
        row | {"uri": f"/a/folder/{name}/{number:08d}.wav", "size_bytes": size, "modified_ns": 1}
        for number, size in enumerate(sizes)
    ]
    return pa.Table.from_pylist(rows, schema=schema.LISTED)


def never(place: Any) -> str:
    raise AssertionError(f"{place} is read before the first file is decoded")


def plan_many(listed: pa.Table, ledger: Ledger, hash_file: Callable[[Any], str] = never) -> Plan:
    return make_plan(
        listed,
        ledger,
        PlanSetup(batch_s=300.0, run_id="run", hash_file=hash_file, probe_file=never, list_actions=False),
    )


def test_many_ranges_of_few_recordings_take_few_reads() -> None:
    row = dict.fromkeys(schema.LISTED.names) | {"size_bytes": 1_000_000_000, "modified_ns": 1}
    starts = [(f"/a/{k % 2}.wav", float(k // 2)) for k in range(MANY)]
    rows = [row | {"uri": f"{path}#t={s:g},{s + 1:g}", "start_s": s, "end_s": s + 1} for path, s in starts]
    table = pa.Table.from_pylist(sorted(rows, key=lambda row: str(row["uri"])), schema=schema.LISTED)
    ledger = Ledger(schema.FILES.empty_table())
    plan = make_plan(
        table,
        ledger,
        PlanSetup(batch_s=300.0, run_id="run", hash_file=lambda place: "same", probe_file=lambda place: "same"),
    )
    actions = Counter(action for _, action, _ in plan.actions)
    assert actions == {"new": MANY - MANY // 2, "duplicate": MANY // 2}


def know_many(listed: pa.Table) -> pa.Table:
    rows = [known_row(row["uri"], row["uri"], 1) | {"size_bytes": row["size_bytes"]} for row in listed.to_pylist()]
    return pa.Table.from_pylist(rows, schema=schema.FILES)


def test_of_very_many_files_none_is_read_before_the_first_is_decoded() -> None:
    assert plan_many(list_many(), make_ledger()).n_to_decode == MANY
    assert plan_many(list_many(7), make_ledger(known_row("/known.wav", "7 bytes", 1))).n_to_decode == MANY
    changed = list_many(7).set_column(schema.LISTED.get_field_index("modified_ns"), "modified_ns", pa.array([2] * MANY))
    reread: list[str] = []

    def hash_known(place: Any) -> str:
        reread.append(place)
        return content_hash(place)

    ledger = Ledger(know_many(list_many(7)))
    plan = plan_many(changed.cast(schema.LISTED), ledger, hash_known)
    assert (plan.n_unchanged, len(plan.mtime_changed), len(reread)) == (MANY, MANY, MANY)


def test_of_very_many_files_those_that_moved_are_found() -> None:
    ledger = Ledger(know_many(list_many()))
    moved = list_many(name="moved")

    def hash_file(place: Any) -> str:
        return content_hash(str(place).replace("/moved/", "/new/"))

    plan = plan_many(moved, ledger, hash_file)
    assert (len(plan.copies), len(plan.deleted), plan.n_to_decode) == (MANY, MANY, 0)


def test_a_source_that_was_renamed_is_found_among_many_more_new_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a known size and too many to be read first, for so few that are gone."""
    monkeypatch.setattr("pipeline.planning.hashing.READ_FIRST", 3)
    new = {f"/more/{k}.wav": (f"{k:03}", 1) for k in range(2 * NEW_PER_DELETED)}
    disk = Disk({**new, "/new/a.wav": ("one", 1), "/new/b.wav": ("two", 1)})
    ledger = make_ledger(known_row("/old/a.wav", "one", 1), known_row("/old/b.wav", "two", 1))
    plan = plan_of(disk.listed(), ledger, disk)
    assert (len(plan.copies), sorted(plan.removed.values())) == (0, ["/old/a.wav", "/old/b.wav"])
    disk.hashed.clear()
    plan = plan_of(disk.listed(), ledger, disk, request=RunRequest(moved=("/old", "/new")))
    assert [row["uri"] for row, _ in plan.copies] == ["/new/a.wav", "/new/b.wav"]
    assert plan.removed == {}
    assert sorted(disk.hashed) == ["/new/a.wav", "/new/b.wav"]


def test_lost_is_what_is_gone_or_vanished_and_has_not_moved() -> None:
    """Of two gone files of one content, one has moved to a new file. What had failed is not lost."""
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


def test_a_file_takes_little_memory_while_it_is_planned() -> None:
    listed = list_many()
    known = know_many(listed)
    for files, most_bytes in ((schema.FILES.empty_table(), 1_300), (known, 700)):
        tracemalloc.start()
        try:
            plan = plan_many(listed, Ledger(files))
            _, peak_bytes = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert plan.n_to_decode + plan.n_unchanged == MANY
        assert peak_bytes / MANY < most_bytes


@pytest.mark.parametrize("n_beside", [0, 3])
def test_a_ledger_says_the_same_once_what_is_new_is_part_of_its_table(n_beside: int) -> None:
    rows = [known_row(f"{number}.wav", f"content {number % 7}", 1) for number in range(40)]
    plain, merged = Ledger(pa.Table.from_pylist(rows, schema=schema.FILES)), Ledger(schema.FILES.empty_table())
    for row in rows:
        merged.apply([row])
    merged.look_up([])
    new = [known_row(f"{number}.wav", f"content {number % 5}", 2) for number in range(38, 38 + n_beside)]
    assert plain.apply(new) == merged.apply(new)
    assert plain.rows == merged.rows
    assert plain.sizes() == merged.sizes()
    uris = [f"{number}.wav" for number in range(50)]
    assert plain.look_up(uris) == merged.look_up(uris)
    for row in rows:
        assert plain.holder(row["audio_id"]) == merged.holder(row["audio_id"])
    there = pa.chunked_array([uris[:30]])
    assert plain.find_deleted(there) == merged.find_deleted(there)


def test_a_small_corpus_makes_work_for_several(tmp_path: Path) -> None:
    def count(n_files: int, seconds: float, batch_s: float = 300.0) -> list[float]:
        contents = [[CorpusFile(f"{k}.wav", None, None, 1, 0, None, estimated_s=seconds)] for k in range(n_files)]
        rows = pack(contents, batch_s, "0" * 32).to_pylist()
        return [len(row["audios"]) * seconds for row in rows]

    assert count(24, 10.0) == [30.0] * 8
    assert count(3, 5.0) == [15.0]
    assert count(100, 10.0) == [60.0] * 16 + [40.0]
    assert count(1000, 10.0) == [300.0] * 33 + [100.0]
    assert count(100, 10.0, batch_s=20.0) == [20.0] * 50
