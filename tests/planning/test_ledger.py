"""What the ledger has of each file, and what it drops as batches are committed."""

import pyarrow as pa
import pytest

from pipeline import schema
from pipeline.planning.file_rows import empty_row
from pipeline.planning.ledger import MOST_LENGTHS, Ledger
from tests.helpers.plans import Disk, contents, known_row, make_ledger, plan_of


def drops(file_ids: list[str], audio_ids: list[str]) -> tuple[frozenset[str], frozenset[str]]:
    """What ``Ledger.apply`` returns: rows of these files, and frames of these audios, must go."""
    return frozenset(file_ids), frozenset(audio_ids)


def test_changed_content_drops_its_clips_and_frames() -> None:
    old, new = known_row("a.wav", "one", 1), known_row("a.wav", "two", 2)
    ledger = make_ledger(old)
    assert ledger.apply([new]) == drops([old["file_id"]], [old["audio_id"]])
    assert ledger.rows == {"a.wav": new}
    assert ledger.holder(old["audio_id"]) is None
    assert ledger.holder(new["audio_id"]) == new


def test_frames_stay_as_long_as_a_file_holds_their_audio() -> None:
    a, b = known_row("a.wav", "one", 1), known_row("b.wav", "one", 1)
    ledger = make_ledger(a, b)
    assert ledger.apply([known_row("a.wav", "two", 2)]) == drops([a["file_id"]], [])
    assert ledger.holder(b["audio_id"]) == b
    assert ledger.apply([known_row("b.wav", "one", 1, "deleted")]) == drops([b["file_id"]], [b["audio_id"]])


def test_an_indexed_file_that_fails_drops_its_frames() -> None:
    old = known_row("a.wav", "one", 1)
    failed = empty_row("a.wav", None) | {"status": "failed", "stage": "read"}
    ledger = make_ledger(old)
    assert ledger.apply([failed]) == drops([old["file_id"]], [old["audio_id"]])
    assert ledger.apply([old]) == drops([failed["file_id"]], [])


def test_moved_new_and_mtime_changed_files_keep_the_frames() -> None:
    a = known_row("a.wav", "one", 1)
    ledger = make_ledger(a)
    assert ledger.apply([known_row("a.wav", "one", 2)]) == drops([a["file_id"]], [])
    assert ledger.apply([known_row("n.wav", "new", 1)]) == drops([], [])
    moved = known_row("b.wav", "one", 2)
    for order in ([moved, known_row("a.wav", "one", 2, "deleted")], [known_row("a.wav", "one", 2, "deleted"), moved]):
        assert make_ledger(a).apply(order) == drops([a["file_id"]], [])


def test_a_copy_keeps_the_frames_of_a_holder_that_changes_later_in_the_run() -> None:
    holder = known_row("a.wav", "one", 1)
    disk = Disk({"a.wav": ("else", 2), "b.wav": ("one", 1)})
    ledger = make_ledger(holder)
    plan = plan_of(disk.listed(), ledger, disk)
    assert contents(plan) == [["a.wav"]]
    assert ledger.apply(row for row, _ in plan.copies) == drops([], [])
    assert ledger.apply([known_row("a.wav", "else", 2)]) == drops([holder["file_id"]], [])
    assert ledger.apply([known_row("b.wav", "else", 2)])[1] == {holder["audio_id"]}


@pytest.mark.parametrize("n_beside", [0, 3])
def test_a_ledger_answers_the_same_before_and_after_new_rows_are_merged(n_beside: int) -> None:
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


def test_lengths_are_those_of_whole_indexed_files_from_everywhere() -> None:
    rows = [known_row(f"{number:05d}.wav", "x" * (number % 100), 1) for number in range(MOST_LENGTHS + 10)]
    rows[0] |= {"status": "failed"}
    rows[1] |= {"status": "deleted"}
    rows[2] |= {"reason": "truncated"}
    rows[3] |= {"size_bytes": None}
    some = make_ledger(*rows[:8]).lengths().to_pylist()
    assert [row["uri"] for row in some] == [f"{number:05d}.wav" for number in range(4, 8)]
    assert some[0] == {"uri": "00004.wav", "size_bytes": 4, "duration_s": 1.0}
    many = make_ledger(*rows).lengths()
    assert MOST_LENGTHS / 2 <= many.num_rows <= MOST_LENGTHS
    assert many["uri"][-1].as_py() > rows[-3]["uri"]
