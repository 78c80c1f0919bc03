"""The corpus and the ledger in, what to do with each file out. No file is decoded here; some headers are read.

Size and modification time decide first. A file is unchanged if both equal those in the ledger, unless its bytes could
not be read last time; an indexed file that cannot be read now counts as unchanged, too. ``hashing`` then reads the
files whose content may be known. If the index has a file's content, its rows are copied; a file with the bytes of a
deleted one has moved. All other files are decoded, each content once.

A million files are planned before the first one is decoded, so little memory is held for each.
"""

from collections.abc import Callable, Sequence, Set
from dataclasses import asdict, dataclass, field

import pyarrow as pa

from pipeline.audio.decoder_versions import COLUMNS, CORRECTIONS, Correction, Look
from pipeline.corpus.corpus_file import (
    CorpusFile,
    ExaminedFile,
    Stored,
    estimated_s_of,
    identify_audio,
    size_of,
)
from pipeline.corpus.listing import gc_paused
from pipeline.corpus.source_scope import places_above
from pipeline.errors import FileFailure
from pipeline.planning.batches import cut_recordings, look_at, pack
from pipeline.planning.compare import (
    explain_decoding,
    has_same_size,
    is_as_it_was,
    is_of_its_bytes,
    is_same,
    looks_unchanged,
)
from pipeline.planning.concerned import Concerned
from pipeline.planning.file_rows import copied_row, deleted_row, mtime_changed_row, unreadable_row
from pipeline.planning.hashing import Hasher, Read, share_hashes
from pipeline.planning.ledger import Ledger
from pipeline.planning.lengths import MeasureLength, correct_estimates
from pipeline.planning.plan import Plan
from pipeline.planning.request import RunRequest
from pipeline.schema import Row

ROWS_AT_ONCE = 5_000
"""Rows of tables that are taken out of Arrow at a time."""

_COMPARED = ["modified_ns", "content_hash", "audio_id", *(name for name in COLUMNS if name != "status")]
"""Columns of the ledger that are compared with every file, beside ``status``."""


@dataclass(frozen=True)
class PlanSetup:
    """How to make a plan: the functions that read files, the size of batches, and the options of the run."""

    batch_s: float
    """Audio in one batch, in seconds."""
    run_id: str
    hash_file: Read
    """Returns the SHA-256 of the bytes, hexadecimal."""
    probe_file: Read
    """Reads a few of the bytes; the answers are equal for equal files."""
    request: RunRequest = field(default_factory=RunRequest)
    report: Callable[[int, int], None] = lambda n_read, n_files: None
    """Called with the number of files read so far, and the number of files to read."""
    corrections: Sequence[Correction] = CORRECTIONS
    """Why files decode differently now."""
    list_actions: bool = True
    """Whether the plan lists what happens to each file."""
    measure_s: MeasureLength = lambda place: None
    """The duration of a recording by its header, in seconds."""


@gc_paused()
def make_plan(listed: pa.Table, ledger: Ledger, setup: PlanSetup, outdated: Set[str] = frozenset()) -> Plan:
    """Compare the files of a corpus with the ledger.

    Args:
        listed: a LISTED table of the whole corpus: files in the ledger that it lacks are deleted.
        outdated: uris of files in the ledger whose metadata is not what the sources say.
    """
    plan, request = Plan(outdated=outdated, list_actions=setup.list_actions), setup.request
    decider = _Decider(plan, ledger, setup)
    hasher = Hasher(setup.hash_file, setup.probe_file, setup.report, decider.set_aside)
    candidates, to_check = decider.compare(listed)
    decider.find_deleted(listed)
    checked = hasher.hash(to_check)
    share_hashes(checked, candidates)
    candidates += decider.select_changed(checked)
    if not request.full:
        candidates = hasher.hash_unsized(candidates, ledger, request, len(plan.deleted))
    candidates = hasher.hash_where_needed(candidates, ledger, request, len(plan.deleted))
    contents = decider.select_to_decode(candidates)
    correct_estimates([file for files in contents for file in files], setup.measure_s, ledger.lengths())
    _count(plan, contents)
    plan.batches = pack(contents, setup.batch_s, setup.run_id)
    plan.actions.sort()
    return plan


class _Decider:
    """Notes in a plan what happens to each file."""

    def __init__(self, plan: Plan, ledger: Ledger, setup: PlanSetup) -> None:
        self._plan, self._ledger, self._request = plan, ledger, setup.request
        self._concerned = Concerned(ledger, setup.corrections)
        self._left: set[str] = set()
        """Uris of deleted files that no new file has matched yet."""

    # --- by size and time ---

    def compare(self, listed: pa.Table) -> tuple[list[CorpusFile], list[CorpusFile]]:
        """Settle the files that size and time decide. Returns candidates for decoding, and files that look unchanged
        but whose content is to be checked."""
        candidates, to_check = list[CorpusFile](), list[CorpusFile]()
        for piece in listed.to_batches(max_chunksize=ROWS_AT_ONCE):
            rows = piece.to_pylist()
            for row, old in zip(rows, self._ledger.look_up([row["uri"] for row in rows], _COMPARED), strict=True):
                may_redecode = row["reason"] is None and not self._request.keep_decoder
                correction = self._concerned.find_correction(old) if old is not None and may_redecode else None
                if correction:
                    self._plan.corrected[row["uri"]] = correction
                if old is not None and not correction and looks_unchanged(row, old) and not self._request.retries(old):
                    if self._request.check_content and old["content_hash"] is not None:
                        to_check.append(CorpusFile.of_listed(row))
                    else:
                        self._keep(row["uri"], old, "same size and time")
                elif row["reason"] is not None:
                    self.set_aside(row, FileFailure("list", row["reason"], row["message"]))
                else:
                    candidates.append(CorpusFile.of_listed(row))
                    if old is not None and correction and is_as_it_was(row, old) and not self._request.check_content:
                        candidates[-1].content_hash = old["content_hash"]
        return candidates, to_check

    def find_deleted(self, listed: pa.Table) -> None:
        """Note the files that are no longer there. Files in a folder or shard that cannot be listed may still exist."""
        hidden = set(listed["uri"].filter(listed["hides_files"]).to_pylist())
        deleted = [old for old in self._ledger.find_deleted(listed["uri"]) if not lies_within(old["uri"], hidden)]
        self._plan.removed |= {old["file_id"]: old["uri"] for old in deleted if old["status"] == "indexed"}
        self._plan.deleted = list(map(deleted_row, deleted))
        self._left = {row["uri"] for row in deleted}
        for row in deleted:
            self._plan.note(row["uri"], "deleted", "no longer there")

    def set_aside(self, file: CorpusFile | Row, failure: FileFailure) -> None:
        """Note that a file cannot be listed or read. An indexed file that may be the same keeps its rows: its disk or
        its permissions may be restored."""
        old = self._ledger.live(file["uri"])
        if old is not None and old["status"] == "indexed":
            is_same_time = file["modified_ns"] == old["modified_ns"]
            may_be_same = failure.stage == "list" or (has_same_size(file, old) and is_same_time)
            if failure.reason == "unreadable" and may_be_same:
                self._plan.unreadable.append((file["uri"], failure.message))
                self._keep(file["uri"], old, f"cannot be read now, its rows stay: {failure.message}")
                return
            self._plan.removed[old["file_id"]] = file["uri"]
        self._plan.failed.append(unreadable_row(file, failure))
        self._plan.note(file["uri"], "failed", failure.message)

    def _keep(self, uri: str, old: Row, why: str, modified_ns: int | None = None) -> None:
        """Note that a file is unchanged. Only its metadata may be outdated, and its time another: ``modified_ns``."""
        self._plan.n_unchanged += 1
        is_outdated = uri in self._plan.outdated
        if is_outdated or modified_ns is not None:
            row: Row = self._ledger.live(uri) or {}
            rows = self._plan.metadata_changed if is_outdated else self._plan.mtime_changed
            rows.append(row if modified_ns is None else mtime_changed_row(row, modified_ns))
        if old["status"] == "failed":
            self._plan.n_failed_before += 1
            also = "; other metadata" if is_outdated else ""
            self._plan.note(uri, "failed", f"failed before: {old['reason']}; not tried again{also}")
        elif is_outdated:
            self._plan.note(uri, "metadata", f"other metadata; {why}")
        else:
            self._plan.note(uri, "unchanged", why)

    # --- by content ---

    def select_changed(self, hashed: list[CorpusFile]) -> list[CorpusFile]:
        """The files whose content is not that of the ledger; the others are unchanged."""
        changed: list[CorpusFile] = []
        for file in hashed:
            old = self._ledger.live(file.uri)
            if old is not None and old["content_hash"] == file.content_hash:
                self._keep(file.uri, old, "same size and time")
            else:
                changed.append(file)
        return changed

    def select_to_decode(self, files: list[CorpusFile]) -> list[list[CorpusFile]]:
        """The files whose content is not in the index, or is encoded anew; those of one content together."""
        contents: list[list[CorpusFile]] = []
        same: dict[str, list[CorpusFile]] = {}
        corrected = {_audio_id(file) for file in self._select_corrected(files)}
        for first in range(0, len(files), ROWS_AT_ONCE):
            some = files[first : first + ROWS_AT_ONCE]
            for file, old in zip(some, self._ledger.look_up([file.uri for file in some]), strict=True):
                audio_id = _audio_id(file)
                # Content that is decoded anew is decoded once, for all files that hold it.
                left = self._settle(file, old, is_decoded=audio_id in corrected)
                if left is None:
                    continue
                group = [] if audio_id is None else same.setdefault(audio_id, [])
                self._plan.note(left.uri, *explain_decoding(left, old, group, self._plan.corrected.get(left.uri)))
                if not group:
                    contents.append(group)
                group.append(left)
        self._note_unexamined(contents)
        return contents

    def _select_corrected(self, files: list[CorpusFile]) -> list[CorpusFile]:
        """The files of the same bytes as before that a correction concerns; others are not noted as such any more."""
        concerned, corrected = [file for file in files if file.uri in self._plan.corrected], list[CorpusFile]()
        for first in range(0, len(concerned), ROWS_AT_ONCE):
            some = concerned[first : first + ROWS_AT_ONCE]
            for file, old in zip(some, self._ledger.look_up([file.uri for file in some], _COMPARED), strict=True):
                if old is not None and is_same(file, old):
                    corrected.append(file)
                else:
                    del self._plan.corrected[file.uri]
        return corrected

    def _note_unexamined(self, contents: list[list[CorpusFile]]) -> None:
        """Correct the actions of files that would be examined, if not a further file needed their content encoded."""
        encoded = {
            file.uri for files in contents if look_at(files) is None for file in files if file.stored is not None
        }
        if encoded and self._plan.list_actions:
            self._plan.actions = [
                (uri, "redecoded" if action == "examined" and uri in encoded else action, why)
                for uri, action, why in self._plan.actions
            ]

    def _settle(self, file: CorpusFile, old: Row | None, *, is_decoded: bool) -> CorpusFile | None:
        """Note what the index knows of the content of a file. Returns None if it need not be decoded; else the file,
        with what shows whether it decodes differently now, if the index has it.

        Args:
            is_decoded: whether the content is decoded, since a correction concerns files that hold it already.
        """
        audio_id = _audio_id(file)
        if audio_id is None:
            return file
        if old is not None and old["audio_id"] == audio_id and is_of_its_bytes(old) and not self._request.retries(old):
            if is_decoded:
                return self._examine(file, old)
            is_mtime_changed = file.modified_ns != old["modified_ns"]
            why = "another time, the same bytes" if is_mtime_changed else "the same bytes"
            self._keep(file.uri, old, why, file.modified_ns if is_mtime_changed else None)
            return None
        if old is not None and self._is_encoded_anew(old):
            return file
        holder = self._ledger.holder(audio_id, prefer=self._left)
        if holder is None:
            return file
        is_moved = holder["uri"] in self._left
        self._left.discard(holder["uri"])  # a deleted file has moved to one place only
        self._plan.removed.pop(holder["file_id"], None)
        if self._request.full:
            return file
        return self._copy(file, holder, is_decoded=is_decoded, is_moved=is_moved)

    def _is_encoded_anew(self, old: Row) -> bool:
        return self._request.full or (old["status"] == "indexed" and self._request.retries(old))

    def _examine(self, file: CorpusFile, old: Row) -> CorpusFile:
        """The file, with what shows whether it decodes differently now, if it is indexed, and if that can be seen.

        Outdated metadata is rewritten before it is looked at.
        """
        if old["status"] != "indexed" or file.uri not in self._plan.corrected:
            return file
        look = self._find_look(file, old)
        if look is None:
            return file
        if file.uri in self._plan.outdated:
            self._plan.metadata_changed.append(old)
        return ExaminedFile(**asdict(file), stored=Stored(look, old["duration_s"], old["note"]))

    def _copy(self, file: CorpusFile, holder: Row, *, is_decoded: bool, is_moved: bool) -> CorpusFile | None:
        """Note that the rows of an indexed file are copied. If a correction concerns that one, the copy is examined."""
        correction = None if self._request.keep_decoder else self._concerned.find_correction(holder)
        look = None
        if correction is not None:
            self._plan.corrected[file.uri] = correction
            look = self._find_look(file, holder)
        if look is None and (correction or is_decoded):
            return file
        self._plan.copies.append((copied_row(holder, file.uri, file.modified_ns), holder["file_id"]))
        self._plan.holders[holder["uri"]] = holder["file_id"]
        if look is None:
            self._plan.note(file.uri, "moved" if is_moved else "duplicate", f"has the bytes of {holder['uri']}")
            return None
        self._plan.examined_copies.add(file.uri)
        return ExaminedFile(**asdict(file), stored=Stored(look, holder["duration_s"], holder["note"]))

    def _find_look(self, file: CorpusFile, known: Row) -> Look | None:
        """What shows whether a file decodes differently now than ``known``, the row of an indexed file with its bytes.
        The length of a range does not show it."""
        look = None if self._request.retries(known) else self._concerned.find_look(known)
        return None if look is not None and look >= Look.LENGTH and file.time_range else look


def lies_within(uri: str, places: Set[str]) -> bool:
    """Whether a file lies in one of these folders, at whatever depth, or is a member of one of these shards."""
    return bool(places) and not places.isdisjoint(places_above(uri))


def _count(plan: Plan, contents: list[list[CorpusFile]]) -> None:
    """Note how much there is to decode. A recording that is cut into ranges is read once."""
    cut, counted = cut_recordings(contents), set[str]()
    for files in contents:
        recording = files[0].recording
        if recording not in counted:
            plan.bytes_to_decode += size_of(files)
        if recording in cut:
            counted.add(recording)
        if look_at(files) is not None:
            plan.n_examined += len(files)
            plan.seconds_examined += estimated_s_of(files)
            continue
        plan.n_to_decode += len(files)
        plan.seconds_to_decode += estimated_s_of(files)
        if any(file.uri in plan.corrected for file in files):
            plan.n_redecoded += len(files)
            plan.seconds_redecoded += estimated_s_of(files)


def _audio_id(file: CorpusFile) -> str | None:
    return None if file.content_hash is None else identify_audio(file.recording, file.time_range, file.content_hash)
