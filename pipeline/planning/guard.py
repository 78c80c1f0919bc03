"""The files that a run would remove from an index in, a refusal out if a disk seems to be missing.

A disk that is not mounted leaves an empty folder behind, which can be listed. So a run removes nothing if

- no audio is left in a source, a folder that the pattern of a source matches, a shard that is still there, or a folder
  that was a mount point when its files were indexed; or
- the run would remove more than ``run.max_deleted_fraction`` of the indexed files.

Files that have moved, so that a new file has their bytes, do not count. Nor do files of a source that a person has just
given up. ``--allow-deletions`` lets one run remove files all the same.
"""

import os
import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.config import Config, anchor
from pipeline.corpus.shards import is_shard, shards_of
from pipeline.corpus.source_scope import SourceScope, places_above, read_manifests
from pipeline.planning.request import RunRequest

IsMount = Callable[[str], bool]
"""Whether a folder, given by its absolute path, is a mount point."""

FEW_FILES = 20
"""The number of files that a run may always remove."""

FOLDERS_SHOWN = 5
"""The number of folders that a message names."""

_ADVICE = (
    "is a disk missing? To remove the files, run again with --allow-deletions; if a source was renamed or given up,"
    " see --move-source and --forget of `earshot index`"
)


@dataclass(frozen=True)
class Disks:
    """Which folders were mount points when the newest run listed the files of an index, and which ones are now."""

    known: frozenset[str]
    is_mount: IsMount


class Guard:
    """Knows the corpus and the disks that it lies on, and refuses deletions that a missing disk may explain.

    Args:
        listed: a LISTED table, the whole corpus as it is now.
    """

    def __init__(self, listed: pa.Table, config: Config, request: RunRequest, disks: Disks) -> None:
        is_there = pc.invert(pc.equal(pc.fill_null(listed["reason"], ""), "vanished"))
        self._there = listed["uri"].filter(is_there)
        self._readable = listed["uri"].filter(pc.is_null(listed["reason"]))
        self._listed = listed["uri"]
        trouble = listed["uri"].filter(pc.is_valid(listed["reason"])).to_pylist()
        self._shards = set(filter(is_shard, trouble))  # there or expected, and without listed files
        self._sources = SourceScope(anchor(config).sources)
        self._most = config.run.max_deleted_fraction
        self._request, self._disks = request, disks

    @cached_property
    def _folders(self) -> set[str]:
        return find_folders(self._there)

    def select_missing(self, indexed: pa.ChunkedArray) -> list[str]:
        """The ``indexed`` files that are missing or cannot be read, at their present place if a source was moved."""
        if self._request.moved:
            indexed = pa.chunked_array([[self._request.renamed(uri) for uri in indexed.to_pylist()]], pa.string())
        return list(indexed.filter(pc.invert(pc.is_in(indexed, self._readable))).to_pylist())

    def find_refusal(self, removed: Iterable[str], n_indexed: int) -> str | None:
        """Why a run may not remove these files, as a message; None if it may.

        Args:
            removed: uris of indexed files that the run would remove and that have not moved.
            n_indexed: the number of indexed files.
        """
        if self._request.allow_deletions:
            return None
        uris = [self._request.renamed(uri) for uri in removed]
        if self._request.forgotten:
            uris = self._drop_forgotten(uris)
        if not uris:
            return None
        if emptied := self._find_emptied(uris):
            (place, n_files), *others = sorted(emptied.items(), key=lambda item: (-item[1], item[0]))
            more = ", ".join(f"{folder}: {n:,}" for folder, n in others[: FOLDERS_SHOWN - 1])
            more += f" and {len(others) - FOLDERS_SHOWN + 1} more" if len(others) >= FOLDERS_SHOWN else ""
            also = f" (likewise {more})" if more else ""
            if place in self._folders:
                missing = f"{n_files:,} of its files are missing"
                what = f"was a mount point when it was indexed and is none now, and {missing}"
            else:
                what = f"holds no audio now, and the index has {n_files:,} {'file' if n_files == 1 else 'files'} of it"
            return f"{place}: {what}{also}: {_ADVICE}"
        if is_much(len(uris), n_indexed, self._most):
            return (
                f"{len(uris):,} of {n_indexed:,} indexed files would be removed ({count_by_folder(uris)}), more than"
                f" run.max_deleted_fraction ({self._most:g}) allows: {_ADVICE}"
            )
        return None

    def find_mounts(self, stay: pa.ChunkedArray) -> list[str]:
        """The mount points that files of the corpus lie on, for later runs.

        Args:
            stay: uris of indexed files that this run does not remove. If some of them cannot be seen now, their mount
                point stays known.
        """
        found = {folder for folder in self._folders if folder.startswith("/") and self._disks.is_mount(folder)}
        hidden = {mount for mount in self._disks.known - self._folders if _count_below(stay, mount)}
        return sorted(found | hidden)

    def _drop_forgotten(self, uris: list[str]) -> list[str]:
        """Leave out the files that only given-up sources name."""
        forgotten, written = SourceScope(self._request.forgotten), read_manifests(self._request.forgotten)
        listed = pc.is_in(pa.array(uris, pa.string()), self._listed).to_pylist()
        return [
            uri
            for uri, is_listed in zip(uris, listed, strict=True)
            if is_listed or self._sources.holds(uri) or not (uri in written or forgotten.holds(uri))
        ]

    def _find_emptied(self, uris: list[str]) -> dict[str, int]:
        """The outermost folders and shards that should hold audio and hold none, and how many of ``uris`` each had."""
        n_removed = Counter[str]()
        for place, n_files in Counter(next(places_above(uri), "") for uri in uris).items():
            for folder in (place, *places_above(place)):
                n_removed[folder] += n_files
        emptied: dict[str, int] = {}
        for folder in sorted(n_removed, key=len):
            if emptied.keys().isdisjoint(places_above(folder)) and self._is_emptied(folder, n_removed[folder]):
                emptied[folder] = n_removed[folder]
        return emptied

    def _is_emptied(self, folder: str, n_removed: int) -> bool:
        is_known = folder in self._disks.known
        if folder not in self._folders:
            return is_known or self._is_expected(folder)
        # Files may have been written into the folder while its disk was away.
        return is_known and not self._disks.is_mount(folder) and n_removed > _count_below(self._there, folder)

    def _is_expected(self, place: str) -> bool:
        """Whether audio should be in a folder or shard: a source names it, or it is a shard that is still there.

        A missing shard that a pattern matched was a file, and files may be deleted.
        """
        if is_shard(place):
            return place in self._shards or self._sources.is_source(place)
        return self._sources.is_named(place)


def is_much(n_removed: int, n_indexed: int, max_deleted_fraction: float) -> bool:
    """Whether ``n_removed`` of the indexed files are too many to be removed without ``--allow-deletions``."""
    return n_removed > max(FEW_FILES, max_deleted_fraction * n_indexed)


def find_folders(uris: pa.ChunkedArray) -> set[str]:
    """The folders and shards that these files lie in, at any depth."""
    found: set[str] = set()
    parents = pc.unique(pc.replace_substring_regex(uris, "/[^/]*$", "")).to_pylist()
    for parent in (*parents, *pc.unique(shards_of(uris)).drop_null().to_pylist()):
        for folder in (parent, *places_above(parent)):
            if folder in found:
                break
            found.add(folder)
    return found - {""}


def _count_below(uris: pa.ChunkedArray, folder: str) -> int:
    return int(pc.sum(pc.starts_with(uris, f"{folder}/")).as_py() or 0)


def count_by_folder(uris: Iterable[str]) -> str:
    """Where these files lie, by the deepest few folders that together hold all of them: ``30 in /a, 7 in /b``."""
    parents = Counter(uri.rpartition("/")[0] for uri in uris)
    shown, depth = Counter[str](), 0
    while True:
        depth += 1
        counts = Counter[str]()
        for parent, n_files in parents.items():
            counts["/".join(parent.split("/")[:depth])] += n_files
        if shown == counts or (shown and len(counts) > FOLDERS_SHOWN):
            break
        shown = counts
    return ", ".join(f"{n_files:,} in {folder or '/'}" for folder, n_files in shown.most_common())


def read_mounts(table: str = "/proc/self/mountinfo") -> IsMount:
    """Tests for mount points: folders in the kernel's list (proc(5)), and folders on another device than their parent,
    such as links to folders on other disks."""
    mounted: set[str] = set()
    if os.path.exists(table):
        for line in Path(table).read_bytes().splitlines():
            place = re.sub(rb"\\([0-7]{3})", lambda octal: bytes([int(octal[1], 8)]), line.split(b" ")[4])
            mounted.add(os.fsdecode(place))

    @cache
    def find_device(folder: str) -> int | None:
        try:
            return os.stat(folder).st_dev
        except OSError:
            return None

    def is_mount(folder: str) -> bool:
        if folder in mounted:
            return True
        own, outer = find_device(folder), find_device(os.path.dirname(folder))
        return own is not None and outer is not None and own != outer

    return is_mount
