"""An oracle for ``make_plan``: what becomes of each file, written from the guarantee, with no thought for speed or
memory.

It uses none of Earshot's planning, only the rules by which ids are made. Unlike a run, it knows the bytes of every
file; it works out beside which files a run would have hashed, since only then does the run notice a file that cannot be
read.
"""

from collections.abc import Mapping, Set
from dataclasses import dataclass, field
from typing import Any

from pipeline import schema

Row = dict[str, Any]


@dataclass
class PlainPlan:
    """What is compared of a plan. Files are named by their uris, recordings too."""

    actions: dict[str, tuple[str, str]] = field(default_factory=dict)
    failed: dict[str, tuple[str, str, str]] = field(default_factory=dict)
    """Stage, reason and message of files that cannot be listed or read."""
    rewritten: dict[str, int] = field(default_factory=dict)
    """Unchanged files whose row is written again, with the modification time in it."""
    copies: dict[str, str] = field(default_factory=dict)
    """The file whose rows are copied."""
    decoded: set[tuple[str, ...]] = field(default_factory=set)
    """Files of one content, in order."""
    deleted: set[str] = field(default_factory=set)
    removed: set[str] = field(default_factory=set)
    hashed: set[str] = field(default_factory=set)
    """Recordings that are read to the end before the first file is decoded."""
    n_unchanged: int = 0
    n_failed_before: int = 0


class PlainPlanner:
    """Args: ``listed``: LISTED rows; ``files``: rows of the ledger; ``contents``: the hash and the probe of each
    recording; ``broken``: recordings that cannot be read; ``request``: a RunRequest; ``outdated``: files with other
    metadata."""

    def __init__(
        self,
        listed: list[Row],
        files: list[Row],
        contents: Mapping[str, tuple[str, str]],
        broken: Set[str],
        request: Any,
        outdated: Set[str],
    ) -> None:
        self.listed, self.contents, self.broken = listed, contents, broken
        self.request, self.outdated = request, outdated
        self.old = {row["uri"]: row for row in files if row["status"] != "deleted"}
        self.plan = PlainPlan()

    def make(self) -> PlainPlan:
        self._find_deleted()
        to_check, candidates = [], []
        for row in self.listed:
            if self._looks_unchanged(row) and not self._is_retried(row["uri"]):
                is_checked = self.request.check_content and self.old[row["uri"]]["content_hash"] is not None
                to_check.append(row) if is_checked else self._keep(row["uri"], "same size and time")
            elif row["reason"] is not None:
                self._fail(row, "list", row["reason"], row["message"])
            else:
                candidates.append(row)
        changed = [row for row in self._hash(to_check) if self._bytes_of(row) != self.old[row["uri"]]["content_hash"]]
        for row in to_check:
            if row not in changed and row["uri"] not in self.plan.actions:
                self._keep(row["uri"], "same size and time")
        hashed = changed + self._hash_candidates(candidates, changed)
        hashed_uris = {row["uri"] for row in hashed}
        unhashed = [row for row in candidates if row["uri"] not in hashed_uris | self.plan.actions.keys()]
        self._settle(hashed, unhashed)
        return self.plan

    # --- what a ledger row says ---

    def _looks_unchanged(self, row: Row) -> bool:
        """It is as large and as old as the ledger has it. A file that could not be listed is the same if it still
        cannot be."""
        old = self.old.get(row["uri"])
        if old is None:
            return False
        if row["reason"] is not None:
            return bool(old["status"] == "failed" and old["reason"] == row["reason"])
        return is_as_large(row, old) and row["modified_ns"] == old["modified_ns"] != 0 and was_read(old)

    def _is_retried(self, uri: str) -> bool:
        """Whether the request names the file."""
        if uri not in self.old or self.request.full:
            return bool(self.request.full)
        if self.request.reason is not None:
            return bool(self.request.retry_failed and self.old[uri]["reason"] == self.request.reason)
        return bool(self.request.retry_failed and self.old[uri]["status"] == "failed")

    def _find_deleted(self) -> None:
        """Files of the ledger that are not listed. A folder or a shard that cannot be listed may still hold its
        files."""
        hidden = tuple(row["uri"] + mark for row in self.listed if row["hides_files"] for mark in "/#")
        there = {row["uri"] for row in self.listed}
        self.plan.deleted = {uri for uri in self.old if uri not in there and not uri.startswith(hidden)}
        self.plan.removed = {uri for uri in self.plan.deleted if self.old[uri]["status"] == "indexed"}
        self.plan.actions = dict.fromkeys(self.plan.deleted, ("deleted", "no longer there"))

    # --- files that are not decoded ---

    def _keep(self, uri: str, why: str, modified_ns: int | None = None) -> None:
        old = self.old[uri]
        self.plan.n_unchanged += 1
        if uri in self.outdated or modified_ns is not None:
            self.plan.rewritten[uri] = old["modified_ns"] if modified_ns is None else modified_ns
        self.plan.actions[uri] = ("metadata", f"other metadata; {why}") if uri in self.outdated else ("unchanged", why)
        if old["status"] == "failed":
            self.plan.n_failed_before += 1
            also = "; other metadata" if uri in self.outdated else ""
            self.plan.actions[uri] = ("failed", f"failed before: {old['reason']}; not tried again{also}")

    def _fail(self, row: Row, stage: str, reason: str, message: str) -> None:
        """An indexed file that cannot be read keeps its rows, unless it is seen to have changed."""
        uri, old = row["uri"], self.old.get(row["uri"])
        is_indexed = old is not None and old["status"] == "indexed"
        if old is not None and is_indexed and reason == "unreadable":
            is_same = is_as_large(row, old) and row["modified_ns"] == old["modified_ns"]
            if stage == "list" or is_same:
                self._keep(uri, f"cannot be read now, its rows stay: {message}")
                return
        if is_indexed:
            self.plan.removed.add(uri)
        self.plan.failed[uri] = stage, reason, message
        self.plan.actions[uri] = "failed", message

    # --- which files are hashed ---

    def _bytes_of(self, row: Row) -> str:
        return self.contents[recording_of(row)][0]

    def _hash(self, rows: list[Row]) -> list[Row]:
        """The rows whose recordings can be read."""
        self.plan.hashed |= {recording_of(row) for row in rows}
        return self._read(rows)

    def _read(self, rows: list[Row]) -> list[Row]:
        readable = [row for row in rows if recording_of(row) not in self.broken]
        for row in rows:
            if row not in readable:
                self._fail(row, "read", "unreadable", "input/output error")
        return readable

    def _hash_candidates(self, candidates: list[Row], changed: list[Row]) -> list[Row]:
        """A file is hashed if another one may have its bytes: by its size, and, of new files, by its probe."""
        unsized = [row for row in candidates if not has_size(row)]
        may_have_moved = len(unsized) <= 20 * len(self.plan.deleted)
        to_hash = [row for row in unsized if (may_have_moved or row["uri"] in self.old) and not self.request.full]
        hashed = self._hash(to_hash)
        sizes = {old["size_bytes"] for old in self.old.values() if old["content_hash"] is not None}
        sizes |= {row["size_bytes"] for row in changed if has_size(row)}
        sized = [row for row in candidates if has_size(row) and row["size_bytes"] > 0]
        hashed += self._hash([row for row in sized if row["size_bytes"] in sizes])
        new = [row for row in sized if row["size_bytes"] not in sizes]
        probed = self._read([row for row in new if has_twin(row, new, lambda other: other["size_bytes"])])
        return hashed + self._hash([row for row in probed if has_twin(row, probed, self._probe)])

    def _probe(self, row: Row) -> tuple[int, str]:
        return row["size_bytes"], self.contents[recording_of(row)][1]

    # --- files that may be decoded ---

    def _settle(self, hashed: list[Row], unhashed: list[Row]) -> None:
        """In the order of their uris: of files with the same bytes, the first one is read, and a deleted file moves
        once."""
        bytes_of = {row["uri"]: self._bytes_of(row) for row in hashed}
        unclaimed, groups = set(self.plan.deleted), dict[str, list[str]]()
        for row in sorted([*hashed, *unhashed], key=lambda row: str(row["uri"])):
            uri, old = row["uri"], self.old.get(row["uri"])
            audio_id = f"only {uri}"
            if uri in bytes_of:
                audio_id = schema.make_audio_id(bytes_of[uri], uri[len(recording_of(row)) :])
                if old is not None and old["audio_id"] == audio_id and was_read(old) and not self._is_retried(uri):
                    is_same_time = row["modified_ns"] == old["modified_ns"]
                    why = "the same bytes" if is_same_time else "another time, the same bytes"
                    self._keep(uri, why, None if is_same_time else row["modified_ns"])
                    continue
                if self._is_copied(uri, audio_id, unclaimed):
                    continue
            group = groups.setdefault(audio_id, [])
            self.plan.actions[uri] = self._why(row, bytes_of.get(uri), group)
            group.append(uri)
        self.plan.decoded = set(map(tuple, groups.values()))

    def _is_copied(self, uri: str, audio_id: str, unclaimed: set[str]) -> bool:
        """Whether an indexed file has the bytes, and nobody asked to encode them anew."""
        indexed = {other: row for other, row in self.old.items() if row["status"] == "indexed"}
        holders = {other for other, row in indexed.items() if row["audio_id"] == audio_id}
        is_encoded_anew = self.request.full or (uri in indexed and self._is_retried(uri))
        if not holders or (is_encoded_anew and uri in self.old):
            return False
        holder = min(holders & unclaimed or holders)
        is_moved = holder in unclaimed
        unclaimed.discard(holder)
        self.plan.removed.discard(holder)
        if is_encoded_anew:
            return False
        self.plan.copies[uri] = holder
        self.plan.actions[uri] = "moved" if is_moved else "duplicate", f"has the bytes of {holder}"
        return True

    def _why(self, row: Row, known_bytes: str | None, group: list[str]) -> tuple[str, str]:
        """Why a file is decoded, or another one of its ``group`` for it."""
        old = self.old.get(row["uri"])
        if group:
            return "duplicate", f"has the bytes of {group[0]}"
        if old is None:
            return "new", "not in the index"
        if not was_read(old):
            return "retried", f"could not be read before: {old['reason']}"
        is_same_bytes = known_bytes == old["content_hash"]
        if is_same_bytes or (known_bytes is None and self._looks_unchanged(row)):
            return "retried", "asked for" if old["status"] == "indexed" else f"failed before: {old['reason']}"
        if not is_as_large(row, old):
            return "changed", "another size"
        return "changed", "another time" if known_bytes is None else "other bytes"


def recording_of(row: Row) -> str:
    return str(row["uri"]).split("#t=")[0]


def has_size(row: Row) -> bool:
    """Rows of Parquet files are listed with a guess."""
    return ".parquet#" not in row["uri"]


def is_as_large(row: Row, old: Row) -> bool:
    return not has_size(row) or bool(row["size_bytes"] == old["size_bytes"])


def was_read(old: Row) -> bool:
    """Whether a row says something about the bytes of a file."""
    return old["status"] == "indexed" or old["stage"] in ("decode", "encode")


def has_twin(row: Row, rows: list[Row], key: Any) -> bool:
    """Whether another recording looks the same."""
    return any(key(other) == key(row) and recording_of(other) != recording_of(row) for other in rows)
