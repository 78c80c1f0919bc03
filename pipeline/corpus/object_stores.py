"""Lists the files in object stores: what a URL names is a file, a folder or a glob pattern, as on a disk."""

import fnmatch
import glob
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from pipeline import storage
from pipeline.config import CorpusConfig
from pipeline.corpus.extensions import is_audio
from pipeline.corpus.ignored_files import HIDDEN, IgnoredFiles
from pipeline.corpus.listing import ADVICE, listed_row, named_row
from pipeline.corpus.manifest import is_manifest
from pipeline.corpus.shards import is_shard
from pipeline.errors import CorpusError, EarshotError, one_line
from pipeline.schema import Row
from pipeline.storage import Info, retried

PAGE_FILES = 1_000
"""Objects in one answer of S3. They stay in memory until the page is complete."""

FOLDERS_AT_ONCE = 16
"""Folders that are listed at the same time: that waits for the store."""


def list_url(source: str, config: CorpusConfig, leave_out: str | None, ignored: IgnoredFiles) -> Iterator[Row]:
    """The files that a URL names, except those in the folder ``leave_out``.

    Raises:
        CorpusError: nothing is there, or it cannot be listed.
    """
    n_before = ignored.n_noted
    try:
        store, name = storage.find_store(source)
        for found in _resolve(store, name, config, ignored):
            if found["type"] == "directory":
                if store.unstrip_protocol(found["name"].rstrip("/")) != leave_out:
                    yield from _walk(store, found["name"], config, leave_out, ignored)
                continue
            url = str(store.unstrip_protocol(found["name"]))
            if url == source or is_audio(url, config) or is_shard(url) or is_manifest(url):
                yield named_row(listed_row(url, *storage.stat_of(found)))
            else:
                ignored.add_file(url)
    except FileNotFoundError:
        others = ignored.summarize_since(n_before)
        raise CorpusError(f"{source}: no such file or folder, and no file that matches{others}{ADVICE}") from None
    except EarshotError:
        raise
    except Exception as error:  # each store has errors of its own
        raise CorpusError(f"{source}: cannot be listed: {one_line(error)}") from None


def stat_folder(url: str) -> Iterator[tuple[str, tuple[int, int]]]:
    """The URL of each file in a folder, with its size and time (``storage.stat_file``): one request for a thousand.

    Files whose size or time the store does not list are left out.
    """
    store, name = storage.find_store(url)
    for infos in list_pages(store, name):
        for info in infos:
            if info["type"] == "file" and storage.is_complete(info):
                yield str(store.unstrip_protocol(info["name"])), storage.stat_of(info)


def list_pages(store: Any, path: str) -> Iterator[list[Info]]:
    """The content of a folder, as fsspec describes it; of S3 a page at a time, since there may be millions of files."""
    if not hasattr(store, "call_s3") or store.version_aware:
        yield retried(store.ls, path, detail=True)
        return
    bucket, key, _ = store.split_path(path.rstrip("/"))
    asked = {"Bucket": bucket, "Prefix": f"{key}/" if key else "", "Delimiter": "/", "MaxKeys": PAGE_FILES}
    while True:
        page = retried(store.call_s3, "list_objects_v2", **asked, **store.req_kw)
        folders = [each["Prefix"] for each in page.get("CommonPrefixes", ())]
        yield [{"name": f"{bucket}/{folder}", "type": "directory"} for folder in folders] + [
            {"name": f"{bucket}/{each['Key']}", "type": "file", "size": each["Size"], **each}
            for each in page.get("Contents", ())
        ]
        if not page.get("IsTruncated"):
            return
        asked["ContinuationToken"] = page["NextContinuationToken"]


def _resolve(store: Any, name: str, config: CorpusConfig, ignored: IgnoredFiles) -> list[Info]:
    """The file or folder with this name, or else those that it matches as a pattern, by the rules for disks. Names that
    begin with a dot are left out unless the pattern spells them so."""
    try:
        return [retried(store.info, name)]
    except FileNotFoundError:
        if not glob.has_magic(name):
            raise
    matches = retried(store.glob, _escape_folders(store, name), detail=True)
    dotted = [part for part in name.split("/") if part.startswith(".")]

    def is_left_out(part: str) -> bool:
        is_spelt = any(fnmatch.fnmatchcase(part, each) for each in dotted)
        return not config.hidden and storage.is_hidden(part) and not is_spelt

    found = []
    for path, info in matches.items():
        parts = path.split("/")
        n_shown = next((k for k, part in enumerate(parts) if is_left_out(part)), len(parts))
        if n_shown < len(parts):  # a hidden folder counts once, whatever it holds
            ignored.add(str(store.unstrip_protocol("/".join(parts[: n_shown + 1]))), HIDDEN)
        else:
            found.append(info)
    if not found:
        raise FileNotFoundError(f"the pattern matches nothing: {name}")
    return found


def _escape_folders(store: Any, pattern: str) -> str:
    """The pattern with its leading folders escaped as far as they exist: their names are meant literally."""
    parts, n_taken = pattern.split("/"), 0
    for n_taken, part in enumerate(parts):
        if glob.has_magic(part) and not _is_folder(store, "/".join(parts[: n_taken + 1])):
            break
    return "/".join([*map(glob.escape, parts[:n_taken]), *parts[n_taken:]])


def _is_folder(store: Any, name: str) -> bool:
    try:
        return bool(retried(store.isdir, name))
    except ValueError:  # no bucket can have this name
        return False


def _walk(store: Any, folder: str, config: CorpusConfig, leave_out: str | None, ignored: IgnoredFiles) -> Iterator[Row]:
    """The audio files in ``folder`` and below, except those in the folder ``leave_out``."""

    def list_one(path: str) -> list[tuple[str, tuple[int, int] | None]] | Exception:
        """Names with size and time; None for folders."""
        try:
            return [
                (info["name"].rstrip("/"), None if info["type"] == "directory" else storage.stat_of(info))
                for infos in list_pages(store, path)
                for info in infos
            ]
        except Exception as error:
            return error

    waiting = [folder]
    with ThreadPoolExecutor(FOLDERS_AT_ONCE) as pool:
        while waiting:
            some, waiting = waiting[-FOLDERS_AT_ONCE:], waiting[:-FOLDERS_AT_ONCE]
            for path, children in zip(some, pool.map(list_one, some), strict=True):
                if isinstance(children, Exception):
                    if path == folder:
                        raise children
                    url, message = str(store.unstrip_protocol(path)), f"folder cannot be listed: {one_line(children)}"
                    yield listed_row(url, reason="unreadable", message=message, hides_files=True)
                    continue
                for name, described in children:
                    if name == path.rstrip("/"):
                        continue  # a folder may hold an object of its own name
                    url = str(store.unstrip_protocol(name))
                    if not config.hidden and storage.is_hidden(name.rsplit("/", 1)[-1]):
                        ignored.add(url, HIDDEN)
                    elif described is None:
                        if url != leave_out:
                            waiting.append(name)
                    elif is_audio(url, config):
                        yield listed_row(url, *described)
                    else:
                        ignored.add_file(url)
