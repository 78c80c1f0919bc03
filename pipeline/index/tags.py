"""Tags on the published versions of the tables: no clean-up deletes a version that has one."""

from pathlib import Path

import lance

from pipeline.index.journal import Failpoint, Published, table_uri

_PREFIX = "published-"

KEEP_VERSIONS = 20
"""This many published versions of an index stay readable, whatever their age."""


class Tags:
    """Keeps tags on the newest ``KEEP_VERSIONS`` published versions of each table of an index."""

    def __init__(self, path: str | Path, failpoint: Failpoint) -> None:
        self._path, self._failpoint = path, failpoint
        self._names: dict[str, list[str]] = {}
        """By table, the names of its tags, oldest first."""

    def add(self, published: Published) -> None:
        """Tag the versions of ``published``, and remove the oldest tags beyond ``KEEP_VERSIONS``."""
        for name, version in published.versions.items():
            tags = lance.dataset(table_uri(self._path, name), version=version).tags
            if name not in self._names:
                self._names[name] = sorted(tag for tag in tags.list() if tag.startswith(_PREFIX))
            known = self._names[name]
            tag = f"{_PREFIX}{published.seq:012d}"
            if tag not in known:
                self._failpoint("tag")
                tags.create(tag, version)
                known.append(tag)
            while len(known) > KEEP_VERSIONS:
                tags.delete(known[0])
                del known[0]
