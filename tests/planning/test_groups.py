"""Rows of files that need no decoding are published in bounded groups, and no copy after its holder has changed."""

from hypothesis import given
from hypothesis import strategies as st

from pipeline.planning.file_rows import copied_row, deleted_row
from pipeline.planning.groups import group_copies, group_rows
from pipeline.planning.plan import Plan
from pipeline.schema import Row
from tests.helpers.ledgers import known_row

URIS = [f"{name}.wav" for name in "abcdef"]


@given(
    before=st.dictionaries(st.sampled_from(URIS), st.sampled_from(["one", "two", "three"])),
    moves=st.dictionaries(st.sampled_from(URIS), st.integers(0, 5)),
    max_files=st.integers(1, 4),
    max_rows=st.integers(1, 6),
)
def test_a_copy_shares_its_group_with_whatever_becomes_of_its_holder(
    before: dict[str, str], moves: dict[str, int], max_files: int, max_rows: int
) -> None:
    """Files swap places, move on in chains, and are copied several times."""
    rows = {uri: known_row(uri, content, 1) for uri, content in before.items()}
    plan = Plan(deleted=[deleted_row(row) for uri, row in rows.items() if uri not in moves])
    for uri, number in moves.items():
        holder = rows[sorted(rows)[number % len(rows)]] if rows else None
        if holder is not None and holder["uri"] != uri:
            plan.copies.append((copied_row(holder, uri, 2), holder["file_id"]))
            plan.holders[holder["uri"]] = holder["file_id"]
    groups = list(group_copies(plan, max_rows, max_files))
    copied = [row["uri"] for copies, _ in groups for row, _ in copies]
    assert sorted(copied) == sorted(row["uri"] for row, _ in plan.copies)
    taken = [row["uri"] for _, deleted in groups for row in deleted]
    assert sorted(taken) == sorted({row["uri"] for row in plan.deleted} & plan.holders.keys())

    place = {row["uri"]: number for number, (copies, _) in enumerate(groups) for row, _ in copies}
    place |= {row["uri"]: number for number, (_, deleted) in enumerate(groups) for row in deleted}
    uri_of = {row["file_id"]: uri for uri, row in rows.items()}
    for row, holder_id in plan.copies:
        assert place.get(uri_of[holder_id], place[row["uri"]]) == place[row["uri"]]


def test_unrelated_copies_are_grouped_within_bounds() -> None:
    holder = known_row("a.wav", "one", 1) | {"n_clips": 3}
    plan = Plan(copies=[(copied_row(holder, f"{k}.wav", 1), holder["file_id"]) for k in range(5)])
    plan.holders = {"a.wav": holder["file_id"]}
    assert [len(copies) for copies, _ in group_copies(plan, 1_000, 2)] == [2, 2, 1]
    assert [len(copies) for copies, _ in group_copies(plan, 6, 1_000)] == [2, 2, 1]


@given(n_clips=st.lists(st.integers(0, 9), max_size=9), max_clips=st.integers(1, 12), max_files=st.integers(1, 4))
def test_ledger_rows_are_grouped_in_order_within_bounds(n_clips: list[int], max_clips: int, max_files: int) -> None:
    rows: list[Row] = [{"n_clips": n} for n in n_clips]
    groups = list(group_rows(rows, max_clips, max_files))
    assert [row for group in groups for row in group] == rows
    for group in groups:
        assert len(group) <= max_files
        assert len(group) == 1 or sum(row["n_clips"] for row in group) <= max_clips
