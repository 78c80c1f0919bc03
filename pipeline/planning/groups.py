"""A plan in, bounded groups of ledger rows out: what one commit publishes of the files that need no decoding."""

from collections import defaultdict
from collections.abc import Iterator

from pipeline.planning.plan import Plan
from pipeline.schema import Row

Copies = list[tuple[Row, str]]
"""As in ``Plan.copies``."""


def group_copies(plan: Plan, max_rows: int, max_files: int) -> Iterator[tuple[Copies, list[Row]]]:
    """The copies of a plan in groups, each with the ledger rows of deleted files whose clips it copies.

    A copy needs the clips of its holder. Where the same run deletes the holder, or copies something else to it, one
    group holds both: files that swapped places, and chains of moves. Only such groups may exceed the bounds.

    Args:
        max_rows: clips in one group. max_files: files in one group.
    """
    deleted = {row["file_id"]: row for row in plan.deleted}
    copies: Copies = []
    for linked in _link_copies(plan, deleted):
        copies += linked
        if len(copies) >= max_files or sum(row["n_clips"] for row, _ in copies) >= max_rows:
            yield copies, _take_deleted(copies, deleted)
            copies = []
    if copies:
        yield copies, _take_deleted(copies, deleted)


def _link_copies(plan: Plan, deleted: dict[str, Row]) -> list[Copies]:
    """The copies that must be published together: union-find over their numbers."""
    copy_of_uri = {row["uri"]: number for number, (row, _) in enumerate(plan.copies)}
    holder_uris = {holder_id: uri for uri, holder_id in plan.holders.items()}
    leader = list(range(len(plan.copies)))

    def lead(number: int) -> int:
        while leader[number] != number:
            leader[number] = leader[leader[number]]
            number = leader[number]
        return number

    first_of: dict[str, int] = {}
    for number, (_, holder_id) in enumerate(plan.copies):
        others = [copy_of_uri[uri]] if (uri := holder_uris.get(holder_id)) in copy_of_uri else []
        if holder_id in deleted:
            others.append(first_of.setdefault(holder_id, number))
        for other in others:
            leader[lead(number)] = lead(other)
    linked: dict[int, Copies] = defaultdict(list)
    for number, copy in enumerate(plan.copies):
        linked[lead(number)].append(copy)
    return list(linked.values())


def _take_deleted(copies: Copies, deleted: dict[str, Row]) -> list[Row]:
    return [deleted.pop(holder_id) for _, holder_id in copies if holder_id in deleted]


def group_rows(rows: list[Row], max_clips: int, max_files: int) -> Iterator[list[Row]]:
    """Ledger rows in groups with limits of clips and files; a group has one file at least."""
    group, n_clips = list[Row](), 0
    for row in rows:
        if group and (len(group) >= max_files or n_clips + row["n_clips"] > max_clips):
            yield group
            group, n_clips = [], 0
        group.append(row)
        n_clips += row["n_clips"]
    if group:
        yield group
