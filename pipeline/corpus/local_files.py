"""Lists the files on a disk: what a path names is a file, a folder or a glob pattern."""

import errno
import fnmatch
import glob
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

from pipeline import storage
from pipeline.config import CorpusConfig
from pipeline.corpus.extensions import is_audio
from pipeline.corpus.ignored_files import HIDDEN, LINKS, IgnoredFiles
from pipeline.corpus.listing import ADVICE, listed_row, named_row
from pipeline.corpus.manifest import is_manifest
from pipeline.corpus.shards import is_shard
from pipeline.errors import CorpusError
from pipeline.schema import Row

Identity = tuple[int, int]
"""Device and inode of a folder."""


def list_path(source: str, config: CorpusConfig, entered: set[Identity], ignored: IgnoredFiles) -> Iterator[Row]:
    """The files that a path names, except those in folders that have been ``entered`` before.

    Raises:
        CorpusError: nothing is there, or it cannot be listed.
    """
    path = os.path.abspath(os.path.expanduser(source))
    if os.path.isdir(path):
        try:
            os.scandir(path).close()
        except OSError as error:
            raise CorpusError(f"{source}: cannot be listed: {error.strerror}") from None
        yield from _walk(path, config, entered, ignored)
    elif os.path.lexists(path):
        yield named_row(stat_row(path))
    elif glob.has_magic(source):
        yield from _list_pattern(source, path, config, entered, ignored)
    else:
        raise CorpusError(f"{source}: no such file or folder{ADVICE}")


def identify(path: str | None) -> set[Identity]:
    """The identity of a folder; empty where there is none."""
    if path is None:
        return set()
    try:
        status = os.stat(path)
    except OSError:
        return set()
    return {(status.st_dev, status.st_ino)}


def stat_row(path: str, if_missing: str = "deleted since its folder was listed") -> Row:
    """The LISTED row of a file.

    Args:
        if_missing: the message for a path where nothing is.
    """
    if "\0" in path:  # a manifest may hold any text
        return listed_row(path, reason="bad_name", message="no file can have this name: it has a zero byte in it")
    try:
        status = os.stat(path)
    except UnicodeEncodeError as error:
        message = (
            f"no file can have this name here: the encoding of the system's names, {error.encoding}, cannot write it"
        )
        return listed_row(path, reason="bad_name", message=message)
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ELOOP):
            return listed_row(path, reason="unreadable", message=f"cannot be read: {error.strerror}")
        if not os.path.islink(path):
            return listed_row(path, reason="vanished", message=if_missing)
        folder = os.path.dirname(os.path.realpath(path))
        if _is_empty(folder):
            message = f"link to nothing: {folder} is missing or empty; is a disk away?"
            return listed_row(path, reason="unreadable", message=message)
        return listed_row(path, reason="vanished", message="link to nothing")
    if not stat.S_ISREG(status.st_mode):
        return listed_row(path, reason="unreadable", message="is no regular file")
    return listed_row(path, status.st_size, storage.modified_ns(status))


def _is_empty(folder: str) -> bool:
    """Whether a folder is missing or empty, as a mount point is while its disk is not mounted."""
    try:
        with os.scandir(folder) as entries:
            return next(entries, None) is None
    except OSError:
        return True


def _list_pattern(
    source: str, pattern: str, config: CorpusConfig, entered: set[Identity], ignored: IgnoredFiles
) -> Iterator[Row]:
    found, n_before = False, ignored.n_noted
    # Leading folders that exist are taken literally; below them, each part is a pattern for one level.
    folder, *parts = Path(pattern).parts
    while parts and os.path.isdir(os.path.join(folder, parts[0])):
        folder = os.path.join(folder, parts.pop(0))
    for path in _expand(folder, parts, config, frozenset(entered), ignored):
        found = True
        if os.path.isdir(path):
            yield from _walk(path, config, entered, ignored)
        elif is_audio(path, config) or is_shard(path) or is_manifest(path):
            yield named_row(stat_row(path))
        else:
            ignored.add_file(path)
    if not found:
        raise CorpusError(f"{source}: the pattern matches no file{ignored.summarize_since(n_before)}{ADVICE}")


def _expand(
    folder: str, parts: list[str], config: CorpusConfig, left_out: frozenset[Identity], ignored: IgnoredFiles
) -> Iterator[str]:
    """The paths below ``folder`` that match ``parts``, and folders on the way to them that cannot be listed.

    Folders that are ``left_out`` are not entered. What does not match does not count as ignored. A hidden file, or a
    link to a folder, counts where it matches or where ``**`` would have entered it.
    """
    if left_out and not identify(folder).isdisjoint(left_out):
        return
    if not parts or parts == ["**"]:
        yield folder
        return
    part, rest = parts[0], parts[1:]
    if part == "**":
        for each, _ in _visit(folder, config, set(left_out), ignored, counts=_is_folder):
            yield from _expand(each, rest, config, left_out, ignored)
        return
    if not glob.has_magic(part):
        if os.path.lexists(path := os.path.join(folder, part)):
            yield from _expand(path, rest, config, left_out, ignored)
        return

    def matches(entry: os.DirEntry[str]) -> bool:
        return fnmatch.fnmatchcase(entry.name, part) and (not rest or _is_folder(entry))

    try:
        children = _children(folder, config.hidden or part.startswith("."), ignored, counts=matches)
    except OSError:
        yield folder
        return
    for entry in filter(matches, children):
        if not _is_folder(entry) or _may_enter(entry, config):
            yield from _expand(entry.path, rest, config, left_out, ignored)
        else:
            ignored.add(entry.path, LINKS)


def _walk(folder: str, config: CorpusConfig, entered: set[Identity], ignored: IgnoredFiles) -> Iterator[Row]:
    """The audio files in ``folder`` and below, except those in folders that have been ``entered`` before."""
    for path, files in _visit(folder, config, entered, ignored):
        if isinstance(files, OSError):
            message = f"folder cannot be listed: {files.strerror}"
            yield listed_row(path, reason="unreadable", message=message, hides_files=True)
            continue
        for entry in files:
            if is_audio(entry.path, config):
                yield stat_row(entry.path)
            else:
                ignored.add_file(entry.path)


def _visit(
    folder: str,
    config: CorpusConfig,
    entered: set[Identity],
    ignored: IgnoredFiles,
    counts: Callable[[os.DirEntry[str]], bool] = lambda entry: True,
) -> Iterator[tuple[str, list[os.DirEntry[str]] | OSError]]:
    """Each folder from ``folder`` downwards, with its entries that are no folders, or with why it cannot be listed.
    ``counts`` decides which hidden entries count as ignored."""
    waiting = [folder]
    while waiting:
        path = waiting.pop()
        if (identity := identify(path)) & entered:
            continue
        entered |= identity
        try:
            children = _children(path, config.hidden, ignored, counts)
        except OSError as error:
            yield path, error
            continue
        yield path, [entry for entry in children if not _is_folder(entry)]
        folders = [entry for entry in children if _is_folder(entry)]
        waiting += [entry.path for entry in reversed(folders) if _may_enter(entry, config)]
        for entry in folders:
            if not _may_enter(entry, config):
                ignored.add(entry.path, LINKS)


def _children(
    folder: str, hidden: bool, ignored: IgnoredFiles, counts: Callable[[os.DirEntry[str]], bool]
) -> list[os.DirEntry[str]]:
    """The entries of a folder by name. Hidden ones are left out unless ``hidden``, and ignored if they count."""
    with os.scandir(folder) as entries:
        children = sorted(entries, key=lambda entry: entry.name)
    shown = [entry for entry in children if hidden or not storage.is_hidden(entry.name)]
    if len(shown) < len(children):
        for entry in children:
            if storage.is_hidden(entry.name) and counts(entry):
                ignored.add(entry.path, HIDDEN)
    return shown


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself, or through a folder that cannot be read
        return False


def _may_enter(entry: os.DirEntry[str], config: CorpusConfig) -> bool:
    return config.follow_symlinks or not entry.is_symlink()
