"""Whether a file lies within the sources, judged by its name alone: works for deleted files, too."""

import glob
from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase

from pipeline import storage
from pipeline.corpus.manifest import is_manifest, read_ranges
from pipeline.corpus.shards import is_member, shard_of
from pipeline.corpus.time_ranges import split_uri


class SourceScope:
    """The files and folders that sources name or their patterns match.

    Args:
        sources: absolute, as ``config.anchor`` leaves them.
    """

    def __init__(self, sources: Iterable[str]) -> None:
        self._places, self._patterns = set[str](), list[list[str]]()
        for source in sources:
            self._places.add(source.rstrip("/"))
            if glob.has_magic(source):
                parts = source.rstrip("/").split("/")
                while parts[-1] == "**" or (parts[-1] == "*" and "**" in parts):  # everything below, at any depth
                    parts.pop()
                self._patterns.append(parts)

    def is_source(self, place: str) -> bool:
        return place in self._places

    def is_named(self, place: str) -> bool:
        """Whether a source is this very folder or file, or its pattern matches it."""
        parts = place.split("/")
        return place in self._places or any(_matches(parts, pattern) for pattern in self._patterns)

    def holds(self, uri: str) -> bool:
        """Whether a source names a file, or a folder or shard around it. Files in manifests: see ``read_manifests``."""
        recording, _ = split_uri(uri)
        return any(map(self.is_named, (uri, recording, *places_above(recording))))


def _matches(parts: list[str], pattern: list[str]) -> bool:
    if not pattern:
        return not parts
    first, rest = pattern[0], pattern[1:]
    if first == "**":
        return any(_matches(parts[k:], rest) for k in range(len(parts) + 1))
    return bool(parts) and (parts[0] == first or fnmatchcase(parts[0], first)) and _matches(parts[1:], rest)


def places_above(uri: str) -> Iterator[str]:
    """The shard and the folders around a file or folder, from the inside out."""
    while True:
        folder = uri.rpartition("/")[0]
        shard = shard_of(uri) if is_member(uri) else ""
        uri = max(folder, shard, key=len)
        if not uri:
            return
        yield uri


def read_manifests(sources: Iterable[str]) -> set[str]:
    """The files that the manifests among ``sources`` name, as far as these can be read."""
    found: set[str] = set()
    for source in filter(is_manifest, sources):
        is_pattern = glob.has_magic(source) and not storage.is_url(source)
        for path in glob.iglob(source, recursive=True) if is_pattern else [source]:
            try:
                found.update(f"{uri}{each}" for uri, ranges in read_ranges(path).items() for each in ranges)
            except Exception:  # each store has errors of its own; the file may be missing, or hold audio
                continue
    return found
