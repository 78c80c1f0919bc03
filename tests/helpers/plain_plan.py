"""What ``make_plan`` must come to, written without a thought for speed or memory: a dict for each file."""

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Set
from dataclasses import dataclass, field

from pipeline import schema
from pipeline.corpus.corpus_file import estimate_seconds
from pipeline.corpus.shards import is_audio_table, is_sized, shard_of
from pipeline.corpus.time_ranges import range_of, recording_of
from pipeline.errors import FileFailure
from pipeline.planning.batches import MAX_FILES_PER_BATCH
from pipeline.planning.outcomes import empty_row
from pipeline.planning.plan import NEW_PER_DELETED, lies_within
from pipeline.planning.request import RunRequest
from pipeline.schema import Row

Read = Callable[[str], str]


@dataclass
class PlainPlan:
    """What is compared of a plan; rows by uri."""

    actions: dict[str, tuple[str, str]] = field(default_factory=dict)
    known: dict[str, tuple[str, str, str]] = field(default_factory=dict)
    stay: dict[str, int] = field(default_factory=dict)
    """Files whose ledger row is written again, with the time they have then."""
    copies: dict[str, tuple[str, str]] = field(default_factory=dict)
    """uri -> its audio id, the file it is copied from."""
    deleted: Set[str] = frozenset()
    batches: list[list[Row]] = field(default_factory=list)
    n_unchanged: int = 0
    n_failed_before: int = 0
    n_to_decode: int = 0
    bytes_to_decode: int = 0


def plan_plainly(
    listed: list[Row],
    files: list[Row],
    read: Read,
    probe: Read,
    request: RunRequest,
    outdated: Set[str],
    batch_s: float,
) -> PlainPlan:
    """Args: ``read`` and ``probe`` take the uri of a recording; the rest as ``make_plan`` has it."""
    plan, candidates, before = PlainPlan(), list[Row](), {row["uri"]: row for row in files}
    live = {uri: row for uri, row in before.items() if row["status"] != "deleted"}
    there, closed = {row["uri"] for row in listed}, {row["uri"] for row in listed if row["hides_files"]}
    plan.deleted = {uri for uri in live.keys() - there if not lies_within(uri, closed)}
    plan.actions = dict.fromkeys(plan.deleted, ("deleted", "no longer there"))

    def leave(old: Row, modified_ns: int | None = None, why: str = "same size and time") -> None:
        uri, also = old["uri"], old["uri"] in outdated
        why = why if modified_ns is None else "another time, the same bytes"
        plan.n_unchanged += 1
        if also or modified_ns is not None:
            plan.stay[uri] = old["modified_ns"] if modified_ns is None else modified_ns
        plan.actions[uri] = ("metadata", f"other metadata; {why}") if also else ("unchanged", why)
        if old["status"] == "failed":
            plan.n_failed_before += 1
            why = f"failed before: {old['reason']}; not tried again{'; other metadata' if also else ''}"
            plan.actions[uri] = "failed", why

    def fail(row: Row, failure: FileFailure) -> None:
        uri, old = row["uri"], live.get(row["uri"])
        is_same = old is not None and (
            failure.stage == "list" or (_is_as_large(row, old) and row["modified_ns"] == old["modified_ns"])
        )
        if old is not None and old["status"] == "indexed" and failure.reason == "unreadable" and is_same:
            leave(old, why=f"cannot be read now, its rows stay: {failure.message}")
        else:
            plan.known[uri] = failure.stage, failure.reason, failure.message
            plan.actions[uri] = "failed", failure.message

    def take(rows: list[Row], read: Read) -> list[tuple[Row, str]]:
        taken = []
        for row in rows:
            try:
                taken.append((row, read(recording_of(row))))
            except FileFailure as failure:
                fail(row, failure)
        return taken

    for row in ({**row, "content_hash": None} for row in listed):
        old = live.get(row["uri"])
        if old is not None and _looks_unchanged(row, old) and not request.retries(old):
            if not request.check_content or old["content_hash"] is None:
                leave(old)
                continue
            for _, content_hash in take([row], read):
                if content_hash == old["content_hash"]:
                    leave(old)
                else:
                    candidates.append(row | {"content_hash": content_hash})
        elif row["reason"] is not None:
            fail(row, FileFailure("list", row["reason"], row["message"]))
        else:
            candidates.append(row)

    settled = [row for row in candidates if row["content_hash"] is not None]
    unsized = [row for row in candidates if row["content_hash"] is None and not _has_size(row)]
    may_move = len(unsized) <= len(plan.deleted) * NEW_PER_DELETED
    for row in unsized:
        if not request.full and (may_move or row["uri"] in live):
            settled += [row | {"content_hash": content_hash} for row, content_hash in take([row], read)]
    sizes = {row["size_bytes"] for row in live.values() if row["content_hash"] is not None}
    sizes |= {row["size_bytes"] for row in settled}
    read_already = {row["uri"] for row in settled} | plan.known.keys() | plan.actions.keys()
    settled += [row for row in unsized if row["uri"] not in read_already]
    others = [row for row in candidates if row["content_hash"] is None and _has_size(row)]
    n_of_size = Counter(size for _, size in {(recording_of(row), row["size_bytes"]) for row in others})
    n_of_size[0] = 0
    to_read = [row for row in others if row["size_bytes"] and row["size_bytes"] in sizes]
    alike = [row for row in others if row["size_bytes"] not in sizes and n_of_size[row["size_bytes"]] > 1]
    settled += [row for row in others if row not in to_read and row not in alike]
    probes = [(row, (row["size_bytes"], said)) for row, said in take(alike, probe)]
    n_of_probe = Counter(said for _, said in {(recording_of(row), said) for row, said in probes})
    to_read += [row for row, said in probes if n_of_probe[said] > 1]
    settled += [row for row, said in probes if n_of_probe[said] == 1]
    settled += [row | {"content_hash": content_hash} for row, content_hash in take(to_read, read)]

    holders: dict[str, set[str]] = defaultdict(set)
    for row in files:
        if row["status"] == "indexed":
            holders[row["audio_id"]].add(row["uri"])
    contents, left = dict[str, list[Row]](), set(plan.deleted)
    for row in sorted(settled, key=lambda row: str(row["uri"])):
        uri, content_hash, old = row["uri"], row["content_hash"], live.get(row["uri"])
        audio_id = None if content_hash is None else schema.make_audio_id(content_hash, str(range_of(row)))
        is_again = request.full or (old is not None and old["status"] == "indexed" and request.retries(old))
        if audio_id is not None and not is_again:
            if old is not None and old["audio_id"] == audio_id and _is_settled(old) and not request.retries(old):
                is_touched = row["modified_ns"] != old["modified_ns"]
                leave(old, row["modified_ns"] if is_touched else None, "the same bytes")
                continue
            if uris := holders[audio_id]:
                holder = min(uris & left or uris)
                plan.copies[uri] = audio_id, before[holder]["file_id"]
                plan.actions[uri] = "moved" if holder in left else "duplicate", f"has the bytes of {holder}"
                left.discard(holder)
                continue
        group = contents.setdefault(audio_id or f"uri {uri}", [])
        plan.actions[uri] = _why(row, old, group)
        group.append(row)
        plan.n_to_decode += 1
    firsts = {recording_of(group[0]): group for group in reversed(contents.values())}
    plan.bytes_to_decode = sum(map(_size, firsts.values()))
    plan.batches = _pack(list(contents.values()), batch_s)
    return plan


def _has_size(row: Row) -> bool:
    return row["offset"] is None or is_sized(row["uri"])


def _is_settled(old: Row) -> bool:
    return old["status"] == "indexed" or (old["status"] == "failed" and old["stage"] in ("decode", "encode"))


def _looks_unchanged(row: Row, old: Row) -> bool:
    if row["reason"] is not None:
        return bool(old["status"] == "failed" and old["reason"] == row["reason"])
    same_time = row["modified_ns"] != 0 and old["modified_ns"] == row["modified_ns"]
    return _is_as_large(row, old) and same_time and _is_settled(old)


def _is_as_large(row: Row, old: Row) -> bool:
    return not _has_size(row) or bool(old["size_bytes"] == row["size_bytes"])


def _why(row: Row, old: Row | None, group: list[Row]) -> tuple[str, str]:
    if group:
        return "duplicate", f"has the bytes of {group[0]['uri']}"
    if old is None:
        return "new", "not in the index"
    if row["content_hash"] is not None and old["content_hash"] not in (None, row["content_hash"]):
        return "changed", "other bytes"
    if _looks_unchanged(row, old):
        return "retried", "asked for" if old["status"] == "indexed" else f"failed before: {old['reason']}"
    if old["status"] == "failed" and not _is_settled(old):
        return "retried", f"could not be read before: {old['reason']}"
    if not _has_size(row):
        return "changed", "another time"
    return "changed", "other bytes" if old["size_bytes"] == row["size_bytes"] else "another size"


def _sized(group: list[Row]) -> Row:
    return next((row for row in group if _has_size(row)), group[0])


def _size(group: list[Row]) -> int:
    return int(_sized(group)["size_bytes"])


def _seconds(group: list[Row]) -> float:
    row = _sized(group)
    return estimate_seconds(recording_of(row), row["size_bytes"], range_of(row))


def _pack(contents: list[list[Row]], batch_s: float) -> list[list[Row]]:
    recordings: dict[tuple[str, str], list[list[Row]]] = defaultdict(list)
    for group in contents:
        recordings[recording_of(group[0]), group[0]["uri"] if _seconds(group) >= batch_s else ""].append(group)

    def position(groups: list[list[Row]]) -> tuple[float, str, int]:
        row, longest = groups[0][0], -max(map(_seconds, groups))
        is_row = row["offset"] is not None and is_audio_table(shard_of(row["uri"]))
        return (longest, shard_of(row["uri"]), row["offset"]) if is_row else (longest, recording_of(row), 0)

    for groups in recordings.values():
        groups.sort(key=lambda group: (range_of(group[0]).samples[0], group[0]["uri"]))
    batches, held, n_files = list[list[Row]](), 0.0, 0
    for groups in sorted(recordings.values(), key=position):
        if held + sum(map(_seconds, groups)) > batch_s:
            held = math.inf
        for group in groups:
            if not batches or held + _seconds(group) > batch_s or n_files + len(group) > MAX_FILES_PER_BATCH:
                batches.append([])
                held, n_files = 0.0, 0
            audio = {name: group[0][name] for name in ("content_hash", "start_s", "end_s")}
            audio |= {"size_bytes": _size(group), "uris": [row["uri"] for row in group]}
            audio |= {"modified_ns": [row["modified_ns"] for row in group], "offsets": [row["offset"] for row in group]}
            batches[-1].append(audio)
            held, n_files = held + _seconds(group), n_files + len(group)
    return batches


def empty_ledger_row(uri: str, content_hash: str, part: str) -> Row:
    """The ledger row of a file with this content, without what became of it."""
    return empty_row(uri, schema.make_audio_id(content_hash, part)) | {"content_hash": content_hash}
