"""The corpus and the ledger in, what to do with each file out. No file is decoded here.

Size and time of modification decide first: a file that has both as the ledger knows them is
unchanged, unless it could not be read then. Bytes are hashed only where two contents may be the
same: files of the size of a known one, and new files of equal size that agree where they are probed.
So each content is encoded once, however many files hold it. Only the size of a row of a Parquet file is not known
before it is read: it is hashed where it was known before, or where so much is gone that it may have moved.
"""

import itertools
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Set
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline import schema
from pipeline.errors import FileFailure
from pipeline.members import is_member, is_sized, is_table, shard_of
from pipeline.ranges import Range, range_of, recording_of
from pipeline.read import locate

Row = dict[str, Any]
Read = Callable[[Any], str]

_BYTES_PER_S = {"wav": 150_000, "aif": 150_000, "aiff": 150_000, "flac": 70_000, "opus": 12_000, "webm": 12_000}
_OTHER_BYTES_PER_S = 18_000  # lossy codecs at usual rates
MAX_FILES_PER_BATCH = 512
READERS = 16
"""Files read at once: reading waits for disks and servers, not for cores."""

TABLES_AT_ONCE = 4
"""Tables of audio read at once, each from its first row to its last: that takes memory."""

NEW_PER_GONE = 20
"""Files whose size does not tell whether they were known are read twice, if no more than so many come for each that is
gone: one that has moved need not be encoded."""


def estimate_seconds(uri: str, size_bytes: int, part: Range = Range()) -> float:
    """A rough duration of a recording, or of a range of it, from size and extension: it balances work and is never
    stored."""
    whole_s = size_bytes / _BYTES_PER_S.get(Path(uri).suffix.lower().removeprefix("."), _OTHER_BYTES_PER_S)
    return part.within(whole_s) or 0.0


class Ledger:
    """What the index knows of each uri, kept up to date as batches are committed.

    Args:
        files: the published ``files`` table.
    """

    def __init__(self, files: pa.Table) -> None:
        self.rows: dict[str, Row] = {row["uri"]: row for row in files.to_pylist()}
        self._holders: dict[str, set[str]] = defaultdict(set)
        for row in self.rows.values():
            self._hold(row)

    def _hold(self, row: Row) -> None:
        if row["status"] == "indexed":
            self._holders[row["audio_id"]].add(row["uri"])

    def live(self, uri: str) -> Row | None:
        """The row of a file that was there when a run last looked."""
        row = self.rows.get(uri)
        return None if row is None or row["status"] == "deleted" else row

    def holder(self, audio_id: str, prefer: Set[str] = frozenset()) -> Row | None:
        """An indexed file with this content, if there is one; one of those to ``prefer``, if there is one."""
        uris = self._holders.get(audio_id)
        return self.rows[min(uris & prefer or uris)] if uris else None

    def holds(self, audio_id: str) -> bool:
        """Whether the index has frames of this content."""
        return bool(self._holders.get(audio_id))

    def apply(self, files: Iterable[Row]) -> tuple[frozenset[str], frozenset[str]]:
        """Replace the rows of these uris; returns the file ids and the audio ids whose rows must go.

        An audio's frames go with the last file that holds it.
        """
        drop_files: set[str] = set()
        left: set[str] = set()
        for row in files:
            old = self.rows.get(row["uri"])
            if old is not None:
                drop_files.add(old["file_id"])
                if old["status"] == "indexed":
                    self._holders[old["audio_id"]].discard(old["uri"])
                    left.add(old["audio_id"])
            self.rows[row["uri"]] = row
            self._hold(row)
        return frozenset(drop_files), frozenset(audio_id for audio_id in left if not self._holders[audio_id])


@dataclass(frozen=True)
class Choice:
    """What is asked of a plan beyond the usual."""

    check_content: bool = False
    """Hash every file, where usually size and time say that it is unchanged."""
    retry_failed: bool = False
    """Try files again that failed before and have not changed."""
    reason: str | None = None
    """Of these, only those that failed for this reason."""
    full: bool = False
    """Decode and encode every file anew."""

    def retries(self, old: Row) -> bool:
        """Whether a file that is as the ledger knows it is tried again."""
        if not self.retry_failed or self.reason not in (None, old["reason"]):
            return self.full
        # What was truncated is indexed as far as it goes: it is tried again where that is named.
        return self.full or old["status"] == "failed" or self.reason is not None


@dataclass
class Plan:
    """What a run will do. The seconds are estimates from file sizes."""

    batches: pa.Table = field(default_factory=schema.PLANNED.empty_table)
    """PLANNED rows, longest first."""
    known: list[Row] = field(default_factory=list)
    """Ledger rows of files that cannot be read."""
    touched: list[Row] = field(default_factory=list)
    """Ledger rows, under their new time, of files whose bytes are the same; they count as unchanged."""
    outdated: Set[str] = frozenset()
    """Files of the ledger whose metadata is not what the sources say."""
    metadata: list[Row] = field(default_factory=list)
    """Ledger rows of such files that are unchanged otherwise, under their new time: they count as unchanged."""
    notes: tuple[str, ...] = ()
    """What a person should know of the metadata, a line each."""
    copies: list[tuple[Row, str]] = field(default_factory=list)
    """Ledger rows of files whose content is indexed already, with the id of a file that holds it."""
    holders: dict[str, str] = field(default_factory=dict)
    """Of these, where each lies, and its id."""
    gone: list[Row] = field(default_factory=list)
    """Ledger rows of files that are no longer there."""
    actions: list[tuple[str, str, str]] = field(default_factory=list)
    """(uri, action, reason) of every file: what happens to it, a word of ``ACTIONS``, and why."""
    n_unchanged: int = 0
    n_failed_before: int = 0
    """Of the unchanged files, those that failed in an earlier run."""
    n_to_decode: int = 0
    seconds_to_decode: float = 0.0
    bytes_to_decode: int = 0

    def note(self, row: Row, action: str, reason: str) -> None:
        self.actions.append((row["uri"], action, reason))


ACTIONS = ("new", "changed", "moved", "duplicate", "retried", "metadata", "failed", "deleted", "unchanged")
"""new, changed, retried: decoded and encoded; moved, duplicate: rows are copied; metadata: rows are written anew with
other values in the user's columns; failed: cannot be read, or failed before and is not tried again."""


def make_plan(
    listed: pa.Table,
    ledger: Ledger,
    *,
    batch_s: float,
    run_id: str,
    hash_file: Read,
    probe_file: Read,
    choice: Choice = Choice(),
    report: Callable[[int, int], None] = lambda n_read, n_files: None,
    outdated: Set[str] = frozenset(),
) -> Plan:
    """Compare the files of a corpus with the ledger.

    Args:
        listed: a LISTED table: the whole corpus, what is in the ledger and not here is gone.
        batch_s: audio in one batch, in seconds.
        hash_file: path, URL or place -> SHA-256 of the bytes, hexadecimal; may raise FileFailure.
        probe_file: likewise, of a few of the bytes: equal for equal files.
        report: called with how many files have been read so far, of how many.
        outdated: files of the ledger whose metadata is not what the sources say.
    """
    plan = Plan(outdated=outdated)
    candidates: list[Row] = []
    to_check: list[Row] = []
    there: set[str] = set()
    closed: set[str] = set()
    for row in listed.to_pylist():
        there.add(row["uri"])
        old = ledger.live(row["uri"])
        if row["closed"]:
            closed.add(row["uri"])
        if old is not None and _looks_unchanged(row, old) and not choice.retries(old):
            if choice.check_content and old["content_hash"] is not None:
                to_check.append(row)
            else:
                _leave(plan, old)
        elif row["reason"] is not None:
            failure = FileFailure("list", row["reason"], row["message"])
            plan.known.append(_unreadable_row(row, failure))
            plan.note(row, "failed", failure.message)
        else:
            candidates.append(row)
    # What lies below a folder, or in a shard, that cannot be listed may well be there.
    plan.gone = [
        gone_row(old)
        for uri, old in ledger.rows.items()
        if uri not in there and old["status"] != "deleted" and not lies_within(uri, closed)
    ]
    reader = _Reader(plan, report)
    for row, content_hash in reader.read(to_check, hash_file):
        old = ledger.rows[row["uri"]]
        if old["content_hash"] == content_hash:
            _leave(plan, old)
        else:
            candidates.append({**row, "content_hash": content_hash})
    if not choice.full:
        candidates = _hash_unsized(candidates, ledger, len(plan.gone), hash_file, reader)
    readable = _hash_where_needed(candidates, ledger, hash_file, probe_file, reader)
    contents = _settle_known_content(readable, ledger, plan, choice)
    plan.batches = _pack(contents, batch_s, run_id)
    for old in plan.gone:
        plan.note(old, "deleted", "no longer there")
    plan.actions.sort()
    return plan


def lies_within(uri: str, places: Set[str]) -> bool:
    """Whether a file lies in one of these folders, at whatever depth, or is a member of one of these shards."""
    if not places:
        return False
    if is_member(uri) and shard_of(uri) in places:
        return True
    while "/" in uri:
        uri = uri.rsplit("/", 1)[0]
        if uri in places:
            return True
    return False


def _leave(plan: Plan, old: Row, modified_ns: int | None = None) -> None:
    """A file that is as the ledger knows it, maybe but for its time, stays; with other metadata its rows are new."""
    plan.n_unchanged += 1
    why = "same size and time" if modified_ns is None else "another time, the same bytes"
    is_outdated = old["uri"] in plan.outdated
    row = old if modified_ns is None else {**old, "modified_ns": modified_ns}
    if is_outdated:
        plan.metadata.append(row)
    elif modified_ns is not None:
        plan.touched.append(row)
    if old["status"] == "failed":
        plan.n_failed_before += 1
        also = "; other metadata" if is_outdated else ""
        plan.note(old, "failed", f"failed before: {old['reason']}; not tried again{also}")
    elif is_outdated:
        plan.note(old, "metadata", f"other metadata; {why}")
    else:
        plan.note(old, "unchanged", why)


def _looks_unchanged(row: Row, old: Row) -> bool:
    if row["reason"] is not None:
        return bool(old["status"] == "failed" and old["reason"] == row["reason"])
    same_size = not _has_size(row) or old["size_bytes"] == row["size_bytes"]
    return bool(same_size and old["modified_ns"] == row["modified_ns"] and _says_what_the_bytes_are(old))


def _says_what_the_bytes_are(old: Row) -> bool:
    """Whether a ledger row holds for as long as the bytes do. A file that could not be read may be readable now."""
    return bool(old["status"] == "indexed" or (old["status"] == "failed" and old["stage"] in ("decode", "encode")))


class _Reader:
    """Reads many files at once, a recording once for all of its ranges, and sets those aside that cannot be read.

    They are not handed on unread: two files of one content would be encoded twice.
    """

    def __init__(self, plan: Plan, report: Callable[[int, int], None]) -> None:
        self._plan, self._report = plan, report

    def read(self, rows: list[Row], read: Read) -> list[tuple[Row, str]]:
        """What ``read`` says of each file that can be read; the rows of a table in their order."""

        def attempt(files: list[Row]) -> list[tuple[Row, str | FileFailure]]:
            said: list[tuple[Row, str | FileFailure]] = []
            for row in files:
                try:
                    said.append((row, read(locate(recording_of(row), row["offset"], row["size_bytes"]))))
                except FileFailure as failure:
                    said.append((row, failure))
            return said

        results, n_read = list[tuple[Row, str]](), 0
        ranges: dict[str, list[Row]] = defaultdict(list)
        for row in rows:
            ranges[recording_of(row)].append(row)
        alone, tables = _split_tables([same[0] for same in ranges.values()])
        for n_at_once, files in ((READERS, alone), (TABLES_AT_ONCE, tables)):
            with ThreadPoolExecutor(n_at_once) as pool:
                for row, said in itertools.chain.from_iterable(pool.map(attempt, files)):
                    self._report(n_read := n_read + 1, len(ranges))
                    for each in ranges[recording_of(row)]:
                        if isinstance(said, FileFailure):
                            self._plan.known.append(_unreadable_row(each, said))
                            self._plan.note(each, "failed", said.message)
                        else:
                            results.append((each, said))
        return results


def _split_tables(rows: list[Row]) -> tuple[list[list[Row]], list[list[Row]]]:
    """Files one by one, and those that are rows of a table together, in their order there."""
    alone: list[list[Row]] = []
    tables: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        if row["offset"] is not None and is_table(shard := shard_of(row["uri"])):
            tables[shard].append(row)
        else:
            alone.append([row])
    return alone, [sorted(table, key=lambda row: int(row["offset"])) for table in tables.values()]


def _has_size(row: Row) -> bool:
    """Whether the size of a LISTED row is that of the file, and not a guess."""
    return row["offset"] is None or is_sized(row["uri"])


def _hash_unsized(candidates: list[Row], ledger: Ledger, n_gone: int, hash_file: Read, reader: _Reader) -> list[Row]:
    """Set ``content_hash`` of files whose size says nothing, where they were known before or may have moved.

    Of the others, the workers find out what is indexed already.

    Returns:
        The readable files.
    """
    unsized = [row for row in candidates if not _has_size(row) and row.get("content_hash") is None]
    may_move = len(unsized) <= n_gone * NEW_PER_GONE
    to_hash = [row for row in unsized if may_move or ledger.live(row["uri"]) is not None]
    wanted = {row["uri"] for row in to_hash}
    others = [row for row in candidates if row["uri"] not in wanted]
    hashed = [row | {"content_hash": content_hash} for row, content_hash in reader.read(to_hash, hash_file)]
    return [*others, *hashed]


def _hash_where_needed(
    candidates: list[Row],
    ledger: Ledger,
    hash_file: Read,
    probe_file: Read,
    reader: _Reader,
) -> list[Row]:
    """Set ``content_hash``, unless it is: None where no other file can have the content of this one.

    Returns:
        The readable files.
    """
    settled = [row for row in candidates if row.get("content_hash") is not None]
    candidates = [row | {"content_hash": None} for row in candidates if row.get("content_hash") is None]
    live = [old for old in ledger.rows.values() if old["status"] != "deleted" and old["content_hash"] is not None]
    known_sizes = {row["size_bytes"] for row in (*live, *settled) if row["size_bytes"] is not None}
    settled += [row for row in candidates if not _has_size(row)]
    candidates = [row for row in candidates if _has_size(row)]
    n_of_size = Counter(size for _, size in {(recording_of(row), row["size_bytes"]) for row in candidates})
    to_probe, to_hash = [], []
    for row in candidates:
        if row["size_bytes"] > 0 and row["size_bytes"] in known_sizes:
            to_hash.append(row)
        elif row["size_bytes"] > 0 and n_of_size[row["size_bytes"]] > 1:
            to_probe.append(row)
        else:
            settled.append(row)
    probes = [(row, (row["size_bytes"], probe)) for row, probe in reader.read(to_probe, probe_file)]
    n_of_probe = Counter(probe for _, probe in {(recording_of(row), probe) for row, probe in probes})
    for row, probe in probes:
        (to_hash if n_of_probe[probe] > 1 else settled).append(row)
    for row, content_hash in reader.read(to_hash, hash_file):
        row["content_hash"] = content_hash
        settled.append(row)
    return sorted(settled, key=lambda row: str(row["uri"]))


def _settle_known_content(candidates: list[Row], ledger: Ledger, plan: Plan, choice: Choice) -> list[list[Row]]:
    """Sort out what needs no decoding; returns the other files, those of one content together."""
    contents: dict[str, list[Row]] = {}
    left = {row["uri"] for row in plan.gone}
    for row in candidates:
        content_hash = row["content_hash"]
        audio_id = None if content_hash is None else schema.make_audio_id(content_hash, str(range_of(row)))
        old = ledger.live(row["uri"])
        is_again = choice.full or (old is not None and old["status"] == "indexed" and choice.retries(old))
        if audio_id is not None and not is_again:
            if old is not None and _is_of(old, audio_id) and not choice.retries(old):
                _leave(plan, old, row["modified_ns"])
                continue
            holder = ledger.holder(audio_id, prefer=left)
            if holder is not None:
                plan.copies.append((_copied_row(row, holder), holder["file_id"]))
                plan.holders[holder["uri"]] = holder["file_id"]
                action = "moved" if holder["uri"] in left else "duplicate"
                plan.note(row, action, f"has the bytes of {holder['uri']}")
                left.discard(holder["uri"])
                continue
        group = contents.setdefault(audio_id or f"uri {row['uri']}", [])
        plan.note(row, *_why(row, old, group))
        group.append(row)
        plan.n_to_decode += 1
    recordings: set[str] = set()
    for files in contents.values():
        if (recording := recording_of(files[0])) not in recordings:
            recordings.add(recording)
            plan.bytes_to_decode += _size(files)
        plan.seconds_to_decode += _seconds(files)
    return list(contents.values())


def _is_of(old: Row, audio_id: str) -> bool:
    return bool(old["audio_id"] == audio_id and _says_what_the_bytes_are(old))


def _why(row: Row, old: Row | None, group: list[Row]) -> tuple[str, str]:
    """The action and reason for a file that is decoded, or whose content another one of ``group`` is decoded for."""
    if group:
        return "duplicate", f"has the bytes of {group[0]['uri']}"
    if old is None:
        return "new", "not in the index"
    if row["content_hash"] is not None and old["content_hash"] not in (None, row["content_hash"]):
        return "changed", "other bytes"
    if _looks_unchanged(row, old):
        return "retried", "asked for" if old["status"] == "indexed" else f"failed before: {old['reason']}"
    if old["status"] == "failed" and not _says_what_the_bytes_are(old):
        return "retried", f"could not be read before: {old['reason']}"
    if not _has_size(row):
        return "changed", "another time"
    return "changed", "other bytes" if old["size_bytes"] == row["size_bytes"] else "another size"


def _seconds(files: list[Row]) -> float:
    return estimate_seconds(recording_of(files[0]), _size(files), range_of(files[0]))


def _size(files: list[Row]) -> int:
    """Bytes of a content, or about that, where none of the files that hold it has a size."""
    return next((int(row["size_bytes"]) for row in files if _has_size(row)), int(files[0]["size_bytes"]))


def _position(row: Row) -> tuple[str, int]:
    """Where a file lies among others: the rows of a table, which are read one after the other, in their order there."""
    if row["offset"] is not None and is_table(shard := shard_of(row["uri"])):
        return shard, row["offset"]
    return recording_of(row), 0


def pack_alone(batches: pa.Table, batch_ids: Set[str], run_id: str, n_before: int) -> pa.Table:
    """The contents of some of the PLANNED batches, each whole in a batch of its own, numbered from ``n_before``."""
    chosen = [row for row in batches.to_pylist() if row["batch_id"] in batch_ids]
    audios = [audio for row in chosen for audio in row["audios"]]
    rows = [
        {"batch_id": schema.make_batch_id(run_id, number), "audios": [audio], "part": {"first": 0, "stop": None}}
        for number, audio in enumerate(audios, start=n_before + 1)
    ]
    return pa.Table.from_pylist(rows, schema=schema.PLANNED)


def group_copies(plan: Plan, max_rows: int, max_files: int) -> Iterator[tuple[list[tuple[Row, str]], list[Row]]]:
    """The copies of a plan in bounded groups, with the ledger rows of files that went as they were moved.

    A copy needs the rows of its holder. Where the holder itself is a copy of something else now, or is gone, both are
    in one group: files that swapped places, and chains of such. Only these may exceed the bounds.

    Args:
        max_rows: clips in one group. max_files: files in one group.
    """
    gone = {row["file_id"]: row for row in plan.gone}
    moving = {row["uri"]: number for number, (row, _) in enumerate(plan.copies)}
    holder_uris = {holder_id: uri for uri, holder_id in plan.holders.items()}
    leader = list(range(len(plan.copies)))

    def lead(number: int) -> int:
        while leader[number] != number:
            leader[number] = leader[leader[number]]
            number = leader[number]
        return number

    first_of: dict[str, int] = {}
    for number, (_, holder_id) in enumerate(plan.copies):
        others = [moving[uri]] if (uri := holder_uris.get(holder_id)) in moving else []
        if holder_id in gone:
            others.append(first_of.setdefault(holder_id, number))
        for other in others:
            leader[lead(number)] = lead(other)
    groups: dict[int, list[int]] = defaultdict(list)
    for number in range(len(plan.copies)):
        groups[lead(number)].append(number)
    copies: list[tuple[Row, str]] = []
    for members in groups.values():
        copies += [plan.copies[number] for number in members]
        if len(copies) >= max_files or sum(row["n_clips"] for row, _ in copies) >= max_rows:
            yield copies, _take_gone(copies, gone)
            copies = []
    if copies:
        yield copies, _take_gone(copies, gone)


def group_rows(rows: list[Row], max_clips: int, max_files: int) -> Iterator[list[Row]]:
    """Ledger rows in bounded groups."""
    group, n_clips = list[Row](), 0
    for row in rows:
        if group and (len(group) >= max_files or n_clips + row["n_clips"] > max_clips):
            yield group
            group, n_clips = [], 0
        group.append(row)
        n_clips += row["n_clips"]
    if group:
        yield group


def _take_gone(copies: list[tuple[Row, str]], gone: dict[str, Row]) -> list[Row]:
    return [gone.pop(holder_id) for _, holder_id in copies if holder_id in gone]


def failed_rows(batches: pa.Table, batch_ids: Set[str], failure: FileFailure) -> list[Row]:
    """The ledger rows of the files of some of the PLANNED batches, of which nothing could be learnt."""
    return [
        _unreadable_row({"uri": uri, "size_bytes": audio["size_bytes"], "modified_ns": modified_ns}, failure)
        for row in batches.to_pylist()
        if row["batch_id"] in batch_ids
        for audio in row["audios"]
        for uri, modified_ns in zip(audio["uris"], audio["modified_ns"], strict=True)
    ]


def _pack(contents: list[list[Row]], batch_s: float, run_id: str) -> pa.Table:
    """Longest first, small ones together: PLANNED rows of about ``batch_s`` seconds each."""
    packs: list[list[Row]] = []
    held, n_files = 0.0, 0
    for group in _group_ranges(contents, batch_s):
        if held + sum(map(_seconds, group)) > batch_s:  # in as few batches as possible
            held = math.inf
        for files in group:
            seconds = _seconds(files)
            if not packs or held + seconds > batch_s or n_files + len(files) > MAX_FILES_PER_BATCH:
                packs.append([])
                held, n_files = 0.0, 0
            packs[-1].append(
                {
                    "content_hash": files[0]["content_hash"],
                    "start_s": files[0]["start_s"],
                    "end_s": files[0]["end_s"],
                    "size_bytes": _size(files),
                    "uris": [row["uri"] for row in files],
                    "modified_ns": [row["modified_ns"] for row in files],
                    "offsets": [row["offset"] for row in files],
                }
            )
            held, n_files = held + seconds, n_files + len(files)
    rows = [
        {"batch_id": schema.make_batch_id(run_id, number), "audios": audios}
        for number, audios in enumerate(packs, start=1)
    ]
    return pa.Table.from_pylist(rows, schema=schema.PLANNED)


def _group_ranges(contents: list[list[Row]], batch_s: float) -> list[list[list[Row]]]:
    """Contents, longest first; those from one recording together, in their order there, but for what fills a batch."""
    groups: dict[tuple[str, str], list[list[Row]]] = defaultdict(list)
    for files in contents:
        alone = files[0]["uri"] if _seconds(files) >= batch_s else ""
        groups[recording_of(files[0]), alone].append(files)
    for group in groups.values():
        group.sort(key=lambda files: (range_of(files[0]).samples[0], files[0]["uri"]))
    return sorted(groups.values(), key=lambda group: (-max(map(_seconds, group)), *_position(group[0][0])))


def _unreadable_row(listed: Row, failure: FileFailure) -> Row:
    """The ledger row of a file whose bytes could not be read."""
    return {
        **empty_row(listed["uri"], None),
        "status": "failed",
        "stage": failure.stage,
        "reason": failure.reason,
        "message": failure.message,
        "size_bytes": listed["size_bytes"] if is_sized(listed["uri"]) else None,
        "modified_ns": listed["modified_ns"],
    }


def damaged_row(old: Row, failure: FileFailure) -> Row:
    """The ledger row of a file whose rows in the index cannot be trusted."""
    return _unreadable_row(old, failure)


def gone_row(old: Row) -> Row:
    """The ledger row of a file that is no longer there: what it was stays known."""
    gone = {"status": "deleted", "stage": None, "reason": None, "message": None, "n_clips": 0, "n_frames": 0}
    return {**old, **gone}


def empty_row(uri: str, audio_id: str | None) -> Row:
    """A ledger row with its ids and nothing else known; it has every column but ``batch_id``."""
    row: Row = {column.name: None for column in schema.FILES if column.name != "batch_id"}
    row.update(uri=uri, audio_id=audio_id, file_id=schema.make_file_id(uri, audio_id), n_clips=0, n_frames=0)
    return row


def _copied_row(row: Row, holder: Row) -> Row:
    file_id = schema.make_file_id(row["uri"], holder["audio_id"])
    return {**holder, "uri": row["uri"], "file_id": file_id, "modified_ns": row["modified_ns"]}
