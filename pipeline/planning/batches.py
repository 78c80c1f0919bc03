"""A plan in portions: batches of contents to decode, and groups of rows that need no decoding."""

import itertools
import math
from collections import defaultdict
from collections.abc import Iterator, Set

import pyarrow as pa
import pyarrow.compute as pc

from pipeline import schema
from pipeline.corpus.corpus_file import CorpusFile, Stored, estimated_s_of, size_of
from pipeline.planning.plan import Plan
from pipeline.schema import Row

MAX_FILES_PER_BATCH = 512
LEAST_BATCHES, LEAST_BATCH_S = 16, 30.0
"""A small corpus is cut into about 16 batches, or into fewer of 30 s."""

PACKS_AT_ONCE = 50
"""Batches that are converted to Arrow at a time."""


def _position(file: CorpusFile) -> tuple[str, int]:
    """Sorts files by name, and rows of a table by row number, in which order they are read."""
    table = file.row_of
    return (file.recording, 0) if table is None else (table, file.offset or 0)


def pack_alone(batches: pa.Table, batch_ids: Set[str], run_id: str, n_before: int) -> pa.Table:
    """The contents of some PLANNED batches, each in a batch of its own; the first one has the number ``n_before`` +
    1."""
    chosen = pc.is_in(batches["batch_id"], value_set=pa.array(batch_ids, pa.string()))  # few of many
    audios = [audio for row in batches.filter(chosen).to_pylist() for audio in row["audios"]]
    rows = [
        {"batch_id": schema.make_batch_id(run_id, number), "audios": [audio], "part": {"first": 0, "stop": None}}
        for number, audio in enumerate(audios, start=n_before + 1)
    ]
    return pa.Table.from_pylist(rows, schema=schema.PLANNED)


def pack(contents: list[list[CorpusFile]], batch_s: float, run_id: str) -> pa.Table:
    """PLANNED rows of about ``batch_s`` seconds each, the longest contents first.

    A small corpus gets smaller batches, so that every encoder has work; the ranges of a recording stay together anyway.

    Args:
        contents: for each content, the files that hold it.
    """
    little_s = min(batch_s, max(LEAST_BATCH_S, sum(map(_work_s, contents)) / LEAST_BATCHES))
    packs: list[list[list[CorpusFile]]] = []
    held, n_files = 0.0, 0
    for group in _group_ranges(contents, batch_s):
        if len(group) > 1 and held + sum(map(_work_s, group)) > little_s:  # in as few batches as possible
            held = math.inf
        for number, files in enumerate(group):
            seconds, most_s = _work_s(files), batch_s if number else little_s
            if not packs or held + seconds > most_s or n_files + len(files) > MAX_FILES_PER_BATCH:
                packs.append([])
                held, n_files = 0.0, 0
            packs[-1].append(files)
            held, n_files = held + seconds, n_files + len(files)
    numbered = enumerate(packs, start=1)
    tables = [schema.PLANNED.empty_table()]
    while some := list(itertools.islice(numbered, PACKS_AT_ONCE)):
        rows = [
            {"batch_id": schema.make_batch_id(run_id, number), "audios": list(map(_audio, pack))}
            for number, pack in some
        ]
        tables.append(pa.Table.from_pylist(rows, schema=schema.PLANNED))
    return pa.concat_tables(tables)


_EXAMINED = 0.1
"""What counts, in packing, of audio that is only examined: it may have to be encoded after all."""


def _work_s(files: list[CorpusFile]) -> float:
    return estimated_s_of(files) * (1.0 if look_at(files) is None else _EXAMINED)


def _audio(files: list[CorpusFile]) -> Row:
    """The AUDIO of a content, from the files that hold it."""
    look, stored_s, stored_note = look_at(files) or (None, None, None)
    return {
        "content_hash": files[0].content_hash,
        "start_s": files[0].start_s,
        "end_s": files[0].end_s,
        "size_bytes": size_of(files),
        "estimated_s": estimated_s_of(files),
        "uris": [file.uri for file in files],
        "modified_ns": [file.modified_ns for file in files],
        "offsets": [file.offset for file in files],
        "look": look,
        "stored_s": stored_s,
        "stored_note": stored_note,
    }


def look_at(files: list[CorpusFile]) -> Stored | None:
    """What to look at before a content is encoded again; None if a file that holds it is not in the index as it
    was."""
    stored = [file.stored for file in files if file.stored is not None]
    same = len(stored) == len(files) and len({(each.duration_s, each.note) for each in stored}) == 1
    return max(stored, key=lambda each: each.look) if same else None


def cut_recordings(contents: list[list[CorpusFile]]) -> set[str]:
    """Recordings of which there are ranges. Some may be files of the corpus themselves, too."""
    return {files[0].recording for files in contents if files[0].time_range}


def _group_ranges(contents: list[list[CorpusFile]], batch_s: float) -> list[list[list[CorpusFile]]]:
    """Contents, longest first. Those of one recording are together, in their order there, unless one fills a batch."""
    cut = cut_recordings(contents)
    groups = [[files] for files in contents if files[0].recording not in cut]
    ranges: dict[tuple[str, str], list[list[CorpusFile]]] = defaultdict(list)
    for files in contents:
        if files[0].recording in cut:
            alone = files[0].uri if estimated_s_of(files) >= batch_s else ""
            ranges[files[0].recording, alone].append(files)
    for group in ranges.values():
        group.sort(key=lambda files: (files[0].time_range.samples[0], files[0].uri))
    groups += ranges.values()
    groups.sort(key=lambda group: _position(group[0][0]))  # sorted twice: keys of both would take more memory
    groups.sort(key=lambda group: -max(map(estimated_s_of, group)))
    return groups


# --- what needs no decoding, in groups that one commit publishes ------------------------------------------------------


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
