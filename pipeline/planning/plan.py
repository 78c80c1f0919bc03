"""The corpus and the ledger in, what to do with each file out. No file is decoded here.

Size and time of modification decide first: a file that has both as the ledger knows them is
unchanged, unless it could not be read then; so is one that is indexed and cannot be read now. Bytes
are hashed only where two contents may be the same: files of the size of a known one, and new files of
equal size that agree where they are probed. So each content is encoded once, however many files hold
it. Only the size of a row of a Parquet file is not known before it is read: it is hashed where it was
known before, or where so much is gone that it may have moved.

A million files are planned before the first one is decoded, so what is held of each is small, and no
more than ``READ_FIRST`` new files, or ``READ_FIRST_BYTES``, are read. Beyond that, the workers and the
driver find out which of them are the same.
"""

import itertools
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from pipeline import schema
from pipeline.audio.decoder_versions import COLUMNS, MENDS, Mend, find_mend
from pipeline.audio.source import place_of
from pipeline.corpus.corpus_file import CorpusFile, estimated_s_of, has_size, identify_audio, size_of
from pipeline.corpus.listing import gc_paused
from pipeline.corpus.shards import is_member, shard_of
from pipeline.errors import FileFailure
from pipeline.planning.batches import cut_recordings, pack
from pipeline.planning.ledger import Ledger
from pipeline.planning.outcomes import copied_row, deleted_row, mtime_changed_row, unreadable_row
from pipeline.planning.request import RunRequest
from pipeline.schema import Row

Read = Callable[[Any], str]

READERS = 16
"""Files read at once: reading waits for disks and servers, not for cores."""

TABLES_AT_ONCE = 4
"""Tables of audio read at once, each from its first row to its last: that takes memory."""

NEW_PER_DELETED = 20
"""Files whose size does not tell whether they were known are read twice, if no more than so many come for each that is
gone: one that has moved need not be encoded."""

READ_FIRST = 20_000
"""At most so many new files are read before the first one is decoded, to find those with equal bytes, and so many to
find those that the index knows. With more new files, equal ones are all decoded, and their rows are stored once."""

READ_FIRST_BYTES = 16 * 2**30
"""Likewise, of what is hashed: a minute or so from a fast disk or store. Where files are gone, those of a known size
are read all the same, for each that has moved need not be encoded."""

ROWS_AT_ONCE = 10_000
"""Rows of tables that are taken out of Arrow at a time."""


@dataclass
class Plan:
    """What a run will do. The seconds are estimates from file sizes."""

    batches: pa.Table = field(default_factory=schema.PLANNED.empty_table)
    """PLANNED rows, longest first."""
    failed: list[Row] = field(default_factory=list)
    """Ledger rows of files that cannot be listed or read."""
    mtime_changed: list[Row] = field(default_factory=list)
    """Ledger rows, under their new time, of files whose bytes are the same; they count as unchanged."""
    outdated: Set[str] = frozenset()
    """Files of the ledger whose metadata is not what the sources say."""
    metadata_changed: list[Row] = field(default_factory=list)
    """Ledger rows of such files that are unchanged otherwise, under their new time: they count as unchanged."""
    notes: tuple[str, ...] = ()
    """What a person should know of the metadata, a line each."""
    not_looked_at: dict[str, int] = field(default_factory=dict)
    """What the sources have besides (``overlooked.Overlooked.count``)."""
    copies: list[tuple[Row, str]] = field(default_factory=list)
    """Ledger rows of files whose content is indexed already, with the id of a file that holds it."""
    holders: dict[str, str] = field(default_factory=dict)
    """Of these, where each lies, and its id."""
    mended: dict[str, Mend] = field(default_factory=dict)
    """By uri, files that decode differently now, should their bytes be the same."""
    deleted: list[Row] = field(default_factory=list)
    """Ledger rows of files that are no longer there."""
    removed: dict[str, str] = field(default_factory=dict)
    """By id, the uris of indexed files that are deleted or cannot be read, and have not moved: the run removes them
    from the index. Unreadable files that keep their rows are not among them."""
    refused: str | None = None
    """Why the run may not remove these files; None where it may."""
    mounts: list[str] = field(default_factory=list)
    """The mount points that files of the corpus lie on."""
    unreadable: list[tuple[str, str]] = field(default_factory=list)
    """(uri, message) of indexed files that cannot be read now: they keep their rows, and count as unchanged."""
    actions: list[tuple[str, str, str]] = field(default_factory=list)
    """(uri, action, reason) of every file, if ``list_actions``: what happens to it, a word of ``ACTIONS``, and why."""
    list_actions: bool = True
    n_unchanged: int = 0
    n_failed_before: int = 0
    """Of the unchanged files, those that failed in an earlier run."""
    n_to_decode: int = 0
    seconds_to_decode: float = 0.0
    bytes_to_decode: int = 0

    def note(self, uri: str, action: str, reason: str) -> None:
        if self.list_actions:
            self.actions.append((uri, action, reason))


ACTIONS = ("new", "changed", "mended", "moved", "duplicate", "retried", "metadata", "failed", "deleted", "unchanged")
"""new, changed, retried: decoded and encoded; mended: likewise, since the same bytes decode differently now; moved,
duplicate: rows are copied; metadata: rows are written anew with other values in the user's columns; failed: cannot be
read, or failed before and is not tried again."""


@gc_paused()
def make_plan(
    listed: pa.Table,
    ledger: Ledger,
    *,
    batch_s: float,
    run_id: str,
    hash_file: Read,
    probe_file: Read,
    request: RunRequest = RunRequest(),
    report: Callable[[int, int], None] = lambda n_read, n_files: None,
    outdated: Set[str] = frozenset(),
    mends: Sequence[Mend] = MENDS,
    list_actions: bool = True,
) -> Plan:
    """Compare the files of a corpus with the ledger.

    Args:
        listed: a LISTED table: the whole corpus, what is in the ledger and not here is gone.
        batch_s: audio in one batch, in seconds.
        hash_file: path, URL or place -> SHA-256 of the bytes, hexadecimal; may raise FileFailure.
        probe_file: likewise, of a few of the bytes: equal for equal files.
        report: called with how many files have been read so far, of how many.
        outdated: files of the ledger whose metadata is not what the sources say.
        mends: what makes files decode differently from when they were decoded.
        list_actions: whether it is noted of each file what happens to it.
    """
    plan = Plan(outdated=outdated, list_actions=list_actions)
    candidates: list[CorpusFile] = []
    to_check: list[CorpusFile] = []
    unreadable: set[str] = set()
    for listed_batch in listed.to_batches(max_chunksize=ROWS_AT_ONCE):
        rows = listed_batch.to_pylist()
        for row, old in zip(rows, ledger.look_up([row["uri"] for row in rows], _COMPARED), strict=True):
            if row["hides_files"]:
                unreadable.add(row["uri"])
            mend = find_mend(old, mends) if old is not None and row["reason"] is None else None
            if mend:
                plan.mended[row["uri"]] = mend
            if old is not None and row["reason"] == "unreadable" and old["status"] == "indexed":
                _keep_unreadable(plan, ledger, row["uri"], old, row["message"])
            elif old is not None and not mend and _looks_unchanged(row, old) and not request.retries(old):
                if request.check_content and old["content_hash"] is not None:
                    to_check.append(CorpusFile.of_listed(row))
                else:
                    _leave(plan, ledger, row["uri"], old)
            elif row["reason"] is not None:
                if old is not None and old["status"] == "indexed" and (known := ledger.live(row["uri"])) is not None:
                    plan.removed[known["file_id"]] = row["uri"]
                failure = FileFailure("list", row["reason"], row["message"])
                plan.failed.append(unreadable_row(row, failure))
                plan.note(row["uri"], "failed", failure.message)
            else:
                candidates.append(CorpusFile.of_listed(row))
                if old is not None and mend and _is_as_it_was(row, old) and not request.check_content:
                    candidates[-1].content_hash = old["content_hash"]
    # What lies below a folder, or in a shard, that cannot be listed may well be there.
    gone = [old for old in ledger.find_deleted(listed["uri"]) if not lies_within(old["uri"], unreadable)]
    plan.removed |= {old["file_id"]: old["uri"] for old in gone if old["status"] == "indexed"}
    plan.deleted = list(map(deleted_row, gone))
    reader = _Reader(plan, report, ledger)
    for file, content_hash in reader.read(to_check, hash_file):
        old = ledger.live(file.uri)
        if old is not None and old["content_hash"] == content_hash:
            _leave(plan, ledger, file.uri, old)
        else:
            file.content_hash = content_hash
            candidates.append(file)
    if not request.full:
        candidates = _hash_unsized(candidates, ledger, plan, request, hash_file, reader)
    readable = _hash_where_needed(candidates, ledger, plan, request, hash_file, probe_file, reader)
    contents = _settle_known_content(readable, ledger, plan, request)
    plan.batches = pack(contents, batch_s, run_id)
    for row in plan.deleted:
        plan.note(row["uri"], "deleted", "no longer there")
    plan.actions.sort()
    return plan


_COMPARED = ["size_bytes", "modified_ns", "content_hash", *(name for name in COLUMNS if name != "status")]


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


def _keep_unreadable(plan: Plan, ledger: Ledger, uri: str, old: Row, message: str) -> None:
    """An indexed file that cannot be read just now is not taken for changed: disks and rights are mended."""
    plan.unreadable.append((uri, message))
    _leave(plan, ledger, uri, old, why=f"cannot be read now, its rows stay: {message}")


def _leave(
    plan: Plan, ledger: Ledger, uri: str, old: Row, modified_ns: int | None = None, why: str = "same size and time"
) -> None:
    """A file that is as the ledger knows it, maybe but for its time, stays; with other metadata its rows are new."""
    plan.n_unchanged += 1
    why = why if modified_ns is None else "another time, the same bytes"
    is_outdated = uri in plan.outdated
    if is_outdated or modified_ns is not None:
        row: Row = ledger.live(uri) or {}
        (plan.metadata_changed if is_outdated else plan.mtime_changed).append(
            row if modified_ns is None else mtime_changed_row(row, modified_ns)
        )
    if old["status"] == "failed":
        plan.n_failed_before += 1
        also = "; other metadata" if is_outdated else ""
        plan.note(uri, "failed", f"failed before: {old['reason']}; not tried again{also}")
    elif is_outdated:
        plan.note(uri, "metadata", f"other metadata; {why}")
    else:
        plan.note(uri, "unchanged", why)


def _looks_unchanged(row: Row, old: Row) -> bool:
    if row["reason"] is not None:
        return bool(old["status"] == "failed" and old["reason"] == row["reason"])
    return _is_as_it_was(row, old)


def _is_as_it_was(file: CorpusFile | Row, old: Row) -> bool:
    # Where a store tells no time, only the bytes say whether it is the same file.
    same_time = file["modified_ns"] != 0 and old["modified_ns"] == file["modified_ns"]
    return bool(_is_as_large(file, old) and same_time and _says_what_the_bytes_are(old))


def _is_as_large(file: CorpusFile | Row, old: Row) -> bool:
    return bool(not has_size(file["uri"], file["offset"]) or old["size_bytes"] == file["size_bytes"])


def _says_what_the_bytes_are(old: Row) -> bool:
    """Whether a ledger row holds for as long as the bytes do. A file that could not be read may be readable now."""
    return bool(old["status"] == "indexed" or (old["status"] == "failed" and old["stage"] in ("decode", "encode")))


class _Reader:
    """Reads many files at once, a recording once for all of its ranges, and sets those aside that cannot be read.

    They are not handed on unread: two files of one content would be encoded twice.
    """

    def __init__(self, plan: Plan, report: Callable[[int, int], None], ledger: Ledger) -> None:
        self._plan, self._report, self._ledger = plan, report, ledger

    def read(self, files: list[CorpusFile], read: Read) -> list[tuple[CorpusFile, str]]:
        """What ``read`` says of each file that can be read; the rows of a table in their order."""

        def attempt(files: list[CorpusFile]) -> list[tuple[CorpusFile, str | FileFailure]]:
            said: list[tuple[CorpusFile, str | FileFailure]] = []
            for file in files:
                try:
                    said.append((file, read(place_of(file.recording, file.offset, file.size_bytes))))
                except FileFailure as failure:
                    said.append((file, failure))
            return said

        results, n_read = list[tuple[CorpusFile, str]](), 0
        ranges: dict[str, list[CorpusFile]] = defaultdict(list)
        for file in files:
            ranges[file.recording].append(file)
        alone, tables = _split_tables([same[0] for same in ranges.values()])
        for n_at_once, groups in ((READERS, alone), (TABLES_AT_ONCE, tables)):
            with ThreadPoolExecutor(n_at_once) as pool:
                for file, said in itertools.chain.from_iterable(pool.map(attempt, groups)):
                    self._report(n_read := n_read + 1, len(ranges))
                    for each in ranges[file.recording]:
                        if isinstance(said, FileFailure):
                            self._set_aside(each, said)
                        else:
                            results.append((each, said))
        return results

    def _set_aside(self, file: CorpusFile, failure: FileFailure) -> None:
        old = self._ledger.live(file.uri)
        may_be_same = old is not None and _is_as_large(file, old) and file.modified_ns == old["modified_ns"]
        if old is not None and may_be_same and old["status"] == "indexed" and failure.reason == "unreadable":
            _keep_unreadable(self._plan, self._ledger, file.uri, old, failure.message)
        else:
            if old is not None and old["status"] == "indexed":  # its disk may have gone since it was listed
                self._plan.removed[old["file_id"]] = file.uri
            self._plan.failed.append(unreadable_row(file, failure))
            self._plan.note(file.uri, "failed", failure.message)


def _split_tables(files: list[CorpusFile]) -> tuple[list[list[CorpusFile]], list[list[CorpusFile]]]:
    """Files one by one, and those that are rows of a table together, in their order there."""
    alone: list[list[CorpusFile]] = []
    tables: dict[str, list[CorpusFile]] = defaultdict(list)
    for file in files:
        if (table := file.row_of) is not None:
            tables[table].append(file)
        else:
            alone.append([file])
    return alone, [sorted(rows, key=lambda file: file.offset or 0) for rows in tables.values()]


def _hash_unsized(
    candidates: list[CorpusFile], ledger: Ledger, plan: Plan, request: RunRequest, hash_file: Read, reader: _Reader
) -> list[CorpusFile]:
    """Set ``content_hash`` of files whose size says nothing, where they were known before or may have moved.

    Of the others, the workers find out what is indexed already.

    Returns:
        The readable files.
    """
    unsized = [file for file in candidates if not file.has_size and file.content_hash is None]
    if not unsized:
        return candidates
    may_move = len(unsized) <= len(plan.deleted) * NEW_PER_DELETED
    to_hash = unsized if may_move else _known(unsized, ledger, request)
    wanted = {file.uri for file in to_hash}
    others = [file for file in candidates if file.uri not in wanted]
    return [*others, *_hash(to_hash, hash_file, reader)]


def _known(files: list[CorpusFile], ledger: Ledger, request: RunRequest) -> list[CorpusFile]:
    """Those that were there before, maybe in a folder that was renamed since."""
    old = ledger.look_up([file.uri for file in files], [])
    former = ledger.look_up([request.former(file.uri) for file in files], []) if request.moved else old
    return [file for file, *rows in zip(files, old, former, strict=True) if rows != [None, None]]


def _hash(files: list[CorpusFile], hash_file: Read, reader: _Reader) -> list[CorpusFile]:
    hashed = reader.read(files, hash_file)
    for file, content_hash in hashed:
        file.content_hash = content_hash
    return [file for file, _ in hashed]


def _hash_where_needed(
    candidates: list[CorpusFile],
    ledger: Ledger,
    plan: Plan,
    request: RunRequest,
    hash_file: Read,
    probe_file: Read,
    reader: _Reader,
) -> list[CorpusFile]:
    """Set ``content_hash``, unless it is: None where no other file has this content, as far as one looks beforehand.

    Returns:
        The readable files.
    """
    settled = [file for file in candidates if file.content_hash is not None]
    known_sizes = ledger.sizes() | {file.size_bytes for file in settled if file.has_size}
    settled += [file for file in candidates if file.content_hash is None and not file.has_size]
    candidates = [file for file in candidates if file.content_hash is None and file.has_size]
    cut = {file.recording: file.size_bytes for file in candidates if file.part}  # its ranges are not copies of it
    n_of_size = Counter(cut.values())
    n_of_size.update(file.size_bytes for file in candidates if file.recording not in cut)
    to_probe, to_hash = [], []
    for file in candidates:
        if file.size_bytes > 0 and file.size_bytes in known_sizes:
            to_hash.append(file)
        elif file.size_bytes > 0 and n_of_size[file.size_bytes] > 1:
            to_probe.append(file)
        else:
            settled.append(file)
    may_move = not _are_more(to_hash, len(plan.deleted) * NEW_PER_DELETED)
    if not may_move and (_are_more(to_hash, READ_FIRST) or _bytes_of(to_hash) > READ_FIRST_BYTES):
        known = {file.uri for file in _known(to_hash, ledger, request)}
        settled += [file for file in to_hash if file.uri not in known]
        to_hash = [file for file in to_hash if file.uri in known]
    if _are_more(to_probe, READ_FIRST):
        settled, to_probe = settled + to_probe, []
    probes = [(file, (file.size_bytes, probe)) for file, probe in reader.read(to_probe, probe_file)]
    n_of_probe = Counter(probe for _, probe in {(file.recording, probe) for file, probe in probes})
    alike = [file for file, probe in probes if n_of_probe[probe] > 1]
    settled += [file for file, probe in probes if n_of_probe[probe] == 1]
    if _bytes_of(alike) > READ_FIRST_BYTES:
        settled, alike = settled + alike, []
    settled += _hash([*to_hash, *alike], hash_file, reader)
    return sorted(settled, key=lambda file: file.uri)


def _bytes_of(files: list[CorpusFile]) -> int:
    """What it takes to read the recordings of these files."""
    return sum({file.recording: file.size_bytes for file in files}.values())


def _are_more(files: list[CorpusFile], n_reads: int) -> bool:
    """Whether more than so many reads are needed: a recording is read once for all of its ranges."""
    return len(files) > n_reads and len({file.recording for file in files}) > n_reads


def _settle_known_content(
    candidates: list[CorpusFile], ledger: Ledger, plan: Plan, request: RunRequest
) -> list[list[CorpusFile]]:
    """Sort out what needs no decoding; returns the other files, those of one content together."""
    contents: list[list[CorpusFile]] = []
    same: dict[str, list[CorpusFile]] = {}
    left = {row["uri"] for row in plan.deleted}
    mended = {_audio_id(file) for file in candidates if file.uri in plan.mended}
    for first in range(0, len(candidates), ROWS_AT_ONCE):
        some = candidates[first : first + ROWS_AT_ONCE]
        for file, old in zip(some, ledger.look_up([file.uri for file in some]), strict=True):
            # What is decoded anew is decoded once, for all files that hold it.
            if _audio_id(file) not in mended and _settle(file, old, ledger, plan, request, left):
                continue
            audio_id = _audio_id(file)
            group = [] if audio_id is None else same.setdefault(audio_id, [])
            plan.note(file.uri, *_why(file, old, group, plan.mended.get(file.uri)))
            if not group:
                contents.append(group)
            group.append(file)
            plan.n_to_decode += 1
    cut, counted = cut_recordings(contents), set[str]()
    for files in contents:
        if (recording := files[0].recording) in counted:
            continue
        if recording in cut:
            counted.add(recording)
        plan.bytes_to_decode += size_of(files)
    plan.seconds_to_decode = sum(map(estimated_s_of, contents))
    return contents


def _audio_id(file: CorpusFile) -> str | None:
    return None if file.content_hash is None else identify_audio(file.recording, file.part, file.content_hash)


def _settle(file: CorpusFile, old: Row | None, ledger: Ledger, plan: Plan, request: RunRequest, left: set[str]) -> bool:
    """Whether a file needs no decoding, as its content is indexed already: it is noted then what happens to it."""
    audio_id = _audio_id(file)
    is_again = request.full or (old is not None and old["status"] == "indexed" and request.retries(old))
    if audio_id is None or is_again:
        if audio_id is not None and old is None and (holder := ledger.holder(audio_id, prefer=left)) is not None:
            _note_moved(plan, holder, left)
        return False
    if old is not None and _is_of(old, audio_id) and not request.retries(old):
        is_touched = file.modified_ns != old["modified_ns"]
        _leave(plan, ledger, file.uri, old, file.modified_ns if is_touched else None, "the same bytes")
        return True
    holder = ledger.holder(audio_id, prefer=left)
    if holder is None:
        return False
    plan.copies.append((copied_row(holder, file.uri, file.modified_ns), holder["file_id"]))
    plan.holders[holder["uri"]] = holder["file_id"]
    action = "moved" if holder["uri"] in left else "duplicate"
    plan.note(file.uri, action, f"has the bytes of {holder['uri']}")
    _note_moved(plan, holder, left)
    return True


def _note_moved(plan: Plan, holder: Row, left: set[str]) -> None:
    """A new file has the bytes of ``holder``: if that is gone, it has moved there, and nowhere else."""
    plan.removed.pop(holder["file_id"], None)
    left.discard(holder["uri"])


def _is_of(old: Row, audio_id: str) -> bool:
    return bool(old["audio_id"] == audio_id and _says_what_the_bytes_are(old))


def _why(file: CorpusFile, old: Row | None, group: list[CorpusFile], mend: Mend | None) -> tuple[str, str]:
    """The action and reason for a file that is decoded, or whose content another one of ``group`` is decoded for."""
    if group and not mend:
        return "duplicate", f"has the bytes of {group[0].uri}"
    if old is None:
        return "new", "not in the index"
    same_bytes = file.content_hash is not None and file.content_hash == old["content_hash"]
    if mend and (same_bytes or _is_as_it_was(file, old)):
        return "mended", mend.what
    if file.content_hash is not None and old["content_hash"] not in (None, file.content_hash):
        return "changed", "other bytes"
    if _is_as_it_was(file, old):
        return "retried", "asked for" if old["status"] == "indexed" else f"failed before: {old['reason']}"
    if old["status"] == "failed" and not _says_what_the_bytes_are(old):
        return "retried", f"could not be read before: {old['reason']}"
    if not file.has_size:
        return "changed", "another time"
    return "changed", "other bytes" if old["size_bytes"] == file.size_bytes else "another size"


def group_copies(plan: Plan, max_rows: int, max_files: int) -> Iterator[tuple[list[tuple[Row, str]], list[Row]]]:
    """The copies of a plan in bounded groups, with the ledger rows of files that went as they were moved.

    A copy needs the rows of its holder. Where the holder itself is a copy of something else now, or is gone, both are
    in one group: files that swapped places, and chains of such. Only these may exceed the bounds.

    Args:
        max_rows: clips in one group. max_files: files in one group.
    """
    gone = {row["file_id"]: row for row in plan.deleted}
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
            yield copies, _take_deleted(copies, gone)
            copies = []
    if copies:
        yield copies, _take_deleted(copies, gone)


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


def _take_deleted(copies: list[tuple[Row, str]], gone: dict[str, Row]) -> list[Row]:
    return [gone.pop(holder_id) for _, holder_id in copies if holder_id in gone]
