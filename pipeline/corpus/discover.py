"""Lists the files of a corpus: sources in, one table of names, sizes and times out. No audio is opened here.

The rules:

- A source is a file, a folder (searched through all its subfolders) or a glob pattern (``**`` crosses folders), on a
  disk or, as a URL, in an object store. A path that exists is taken literally, even with ``*`` or ``[`` in its name; so
  are the folders that exist at the beginning of a pattern. Folders that match a pattern are searched.
- In folders and patterns, audio files are known by their extension; a file named as a source is always taken.
- A tar file that is named as a source, or matches a pattern, is a shard: its members with an audio extension are files,
  each ``shard.tar#member``. Shards in folders are opened if ``corpus.extensions`` has ``tar``.
- So is a Parquet or Arrow file with a column of audio bytes: each row is a file, whatever its extension.
- A CSV (``.csv``, or with tabs ``.tsv``), JSON lines or any other Parquet file that is named as a source, or matches a
  pattern, is a manifest: the files in its column ``uri`` are taken, whatever their extension, or the time ranges of
  them that it gives.
- Files and folders whose name begins with a dot are left out, unless ``corpus.hidden`` is set or a source names one.
- A symbolic link to a file is a file, under the name of the link. A link to a folder is entered only with
  ``corpus.follow_symlinks`` or if a source names it, and no folder is entered twice.
- A file that looks like audio and cannot be read (a dangling link, an unreadable folder, a pipe) is listed with the
  reason: ``vanished`` if it does not exist, ``unreadable`` if it may come back, like a link into a folder that is
  missing or empty. Every other file is counted as ignored (``ignored_files``): nothing is skipped silently.

``local_files`` and ``object_stores`` list sources, ``manifest_files`` and ``shard_files`` what lies in files.
"""

import os
from collections.abc import Callable, Iterable

import pyarrow as pa

from pipeline import storage
from pipeline.config import CorpusConfig
from pipeline.corpus.audio_tables import holds_audio
from pipeline.corpus.ignored_files import IgnoredFiles
from pipeline.corpus.listing import Listing, gc_paused, to_table
from pipeline.corpus.local_files import identify, list_path
from pipeline.corpus.manifest import is_manifest
from pipeline.corpus.manifest_files import list_manifest
from pipeline.corpus.object_stores import list_url
from pipeline.corpus.shard_files import list_shard
from pipeline.corpus.shards import is_audio_table, is_shard
from pipeline.corpus.table_files import KINDS
from pipeline.errors import CorpusError, EmptyCorpus
from pipeline.schema import Row
from pipeline.storage import map_in_threads
from pipeline.words import count


@gc_paused()
def list_corpus(
    sources: Iterable[str],
    config: CorpusConfig | None = None,
    leave_out: str | None = None,
    manifests: list[str] | None = None,
    report: Callable[[int], None] = lambda n_files: None,
    ignored: IgnoredFiles | None = None,
) -> pa.Table:
    """List every file of ``sources`` once: a LISTED table in the order of uris.

    A uri is the absolute path of a file, as written (links are not resolved), or its URL.

    Args:
        leave_out: a folder that is not entered: the index, which may lie among the files that it indexes.
        manifests: receives the manifests that the sources name.
        report: receives the number of files found so far, now and then.
        ignored: receives the files that are found and not listed.

    Raises:
        CorpusError: a source does not exist or is a ``.json`` file, a pattern matches nothing, or there is no audio.
    """
    config, ignored = config or CorpusConfig(), ignored or IgnoredFiles()
    sources = [storage.absolute(source) if storage.is_url(source) else source for source in sources]
    if leave_out is not None and storage.is_url(leave_out):
        leave_out = storage.absolute(leave_out)
    _check_sources(sources, leave_out)
    found = _Found(report)
    for source in sources:
        if storage.is_url(source):
            found.take(list_url(source, config, leave_out, ignored))
        else:
            found.take(list_path(source, config, identify(leave_out), ignored))
    read = found.take_manifests()
    if manifests is not None:
        manifests += read
    for uri in (*read, *found.aside, *([storage.absolute(config.metadata)] if config.metadata else [])):
        ignored.take_back(uri)
    found.take_shards(config, ignored)
    table = found.listing.to_table()
    if not table.num_rows:
        raise _empty(sources, config, ignored)
    return table


def _check_sources(sources: list[str], leave_out: str | None) -> None:
    """Refuse sources that can only be mistakes: the folder of the index, and ``.json`` files."""
    for source in sources:
        is_folder = not storage.is_url(source) and os.path.isdir(source)
        if storage.is_url(source) and source == leave_out:
            raise CorpusError(f"{leave_out}: the index cannot be the folder that is indexed; use another one")
        if is_folder and identify(source) & identify(leave_out):
            advice = f"use for example {source}-index"
            raise CorpusError(f"{source}: the index cannot be the folder that is indexed; {advice}")
        if source.lower().endswith(".json") and not is_folder:
            raise CorpusError(f"{source}: is no audio, and no table by its name: give {KINDS}")


class _Found:
    """The files found so far. Manifests and shards are set aside, and opened when all of them are known."""

    def __init__(self, report: Callable[[int], None]) -> None:
        self.listing = Listing(report)
        self.aside: dict[str, Row] = {}
        self._named: list[str] = []

    def take(self, rows: Iterable[Row]) -> None:
        for row in rows:
            uri, is_named = row["uri"], row.pop("named", False)
            if not is_shard(uri) and uri not in self.aside and not (is_named and is_manifest(uri)):
                self.listing.add(row)
            elif self.aside.setdefault(uri, row) is row and is_named:
                self._named.append(uri)

    def take_manifests(self) -> list[str]:
        """Take the files that manifests name, and return the manifests. Each must name a file that can be read."""
        manifests = _find_manifests(self._named)
        for manifest in manifests:
            del self.aside[manifest]
            n_files, messages = 0, set[str]()
            for row in list_manifest(manifest):
                n_files += 1
                messages.add(row["message"] or "")
                self.take([row])
            if not n_files:
                raise CorpusError(f"{manifest}: names no file")
            if "" not in messages:
                raise CorpusError(
                    f"{manifest}: none of the {count(n_files, 'file')} that it names can be read ({min(messages)}): is"
                    " their disk mounted, and are the credentials valid?"
                )
        return manifests

    def take_shards(self, config: CorpusConfig, ignored: IgnoredFiles) -> None:
        """Take the files in shards."""
        self.listing.extend(to_table(row for row in self.aside.values() if row["reason"] is not None))
        if config.extensions and all(is_shard(f".{extension}") for extension in config.extensions):
            config = config.model_copy(update={"extensions": None})  # they choose shards, not their members
        shards = [row for row in self.aside.values() if row["reason"] is None]
        for members in map_in_threads(lambda shard: to_table(list_shard(shard, config, ignored)), shards):
            self.listing.extend(members)


def _find_manifests(named: Iterable[str]) -> list[str]:
    """The manifests among the files that sources name.

    A broken Parquet file counts as a manifest, unless some of the others are tables with audio.
    """

    def has_audio(path: str) -> bool | None:
        try:
            return holds_audio(path)
        except CorpusError as error:
            raise CorpusError(f"{path}: {error}") from None
        except Exception:  # each store has errors of its own; reading the file in earnest will raise it again
            return None

    found = [path for path in named if is_manifest(path)]
    tables = [path for path in found if is_audio_table(path)]
    known = dict(zip(tables, map_in_threads(has_audio, tables), strict=True))
    either = True in known.values()
    return [path for path in found if not (known.get(path, False) or (either and known.get(path, False) is None))]


def _empty(sources: list[str], config: CorpusConfig, ignored: IgnoredFiles) -> EmptyCorpus:
    wanted = "an audio file's extension" if config.extensions is None else f"extension {list(config.extensions)}"
    others = ignored.summarize_since(0)
    advice = "corpus.extensions names others, and tar, parquet or arrow for the shards in folders"
    if "corpus.extensions" in others:
        advice = "with tar, parquet or arrow among the extensions, shards in folders are opened"
    return EmptyCorpus(f"{', '.join(sources)}: no file with {wanted} there{others}; {advice}")
