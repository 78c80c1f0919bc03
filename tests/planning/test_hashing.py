"""Only files that may have the content of another one are read before decoding, and not too many of them."""

import tracemalloc
from collections import Counter
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pytest

from pipeline import schema
from pipeline.planning.hashing import NEW_PER_DELETED, READ_FIRST
from pipeline.planning.ledger import Ledger
from pipeline.planning.plan import Plan
from pipeline.planning.request import RunRequest
from tests.helpers.plans import Disk, content_hash, contents, known_row, make_ledger, plan_files, plan_of

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
    return plan_files(listed, ledger, hash_file=hash_file, probe_file=never, list_actions=False)


def know_many(listed: pa.Table) -> pa.Table:
    rows = [known_row(row["uri"], row["uri"], 1) | {"size_bytes": row["size_bytes"]} for row in listed.to_pylist()]
    return pa.Table.from_pylist(rows, schema=schema.FILES)


def test_files_of_equal_size_are_hashed_only_where_their_probes_agree() -> None:
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
    plan_of(disk.listed(), make_ledger(), disk, report=lambda n_read, n_files: said.append((n_read, n_files)))
    assert said == 2 * [(n, 5) for n in range(1, 6)]


def test_a_file_that_cannot_be_hashed_fails_and_is_not_decoded() -> None:
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


def test_hashing_stops_at_a_number_of_bytes_unless_files_may_have_moved(monkeypatch: pytest.MonkeyPatch) -> None:
    """For new files of a known size, and for files of equal size that begin alike."""
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


def test_a_recording_is_read_once_for_all_of_its_ranges() -> None:
    row = dict.fromkeys(schema.LISTED.names) | {"size_bytes": 1_000_000_000, "modified_ns": 1}
    starts = [(f"/a/{k % 2}.wav", float(k // 2)) for k in range(MANY)]
    rows = [row | {"uri": f"{path}#t={s:g},{s + 1:g}", "start_s": s, "end_s": s + 1} for path, s in starts]
    table = pa.Table.from_pylist(sorted(rows, key=lambda row: str(row["uri"])), schema=schema.LISTED)
    plan = plan_files(table, hash_file=lambda place: "same", probe_file=lambda place: "same")
    actions = Counter(action for _, action, _ in plan.actions)
    assert actions == {"new": MANY - MANY // 2, "duplicate": MANY // 2}


@pytest.mark.parametrize("known", ["a.wav", "a.wav#t=2,3"])
def test_a_new_range_takes_the_hash_of_a_recording_whose_content_is_checked(known: str) -> None:
    disk = Disk({"a.wav": ("abcdef", 1)})
    row = dict.fromkeys(schema.LISTED.names) | {"size_bytes": 6, "modified_ns": 1}
    times = {"a.wav": (None, None), "a.wav#t=2,3": (2.0, 3.0), "a.wav#t=4,5": (4.0, 5.0)}
    rows = [row | {"uri": uri, "start_s": times[uri][0], "end_s": times[uri][1]} for uri in (known, "a.wav#t=4,5")]
    listed = pa.Table.from_pylist(rows, schema=schema.LISTED)
    plan = plan_of(listed, make_ledger(known_row(known, "abcdef", 1)), disk, request=RunRequest(check_content=True))
    assert {uri: action for uri, action, _ in plan.actions} == {known: "unchanged", "a.wav#t=4,5": "new"}
    [audio] = [audio for audios in plan.batches["audios"].to_pylist() for audio in audios]
    assert audio["content_hash"] == content_hash("abcdef")
    assert disk.hashed == {"a.wav": 1}


def test_very_many_new_files_are_not_read_before_decoding() -> None:
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


def test_files_that_moved_are_found_among_very_many() -> None:
    ledger = Ledger(know_many(list_many()))
    moved = list_many(name="moved")

    def hash_file(place: Any) -> str:
        return content_hash(str(place).replace("/moved/", "/new/"))

    plan = plan_many(moved, ledger, hash_file)
    assert (len(plan.copies), len(plan.deleted), plan.n_to_decode) == (MANY, MANY, 0)


def test_files_of_a_renamed_source_are_found_among_too_many_new_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """Too many files of a known size to be hashed for so few deleted ones."""
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


def test_planning_takes_little_memory_for_each_file() -> None:
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
