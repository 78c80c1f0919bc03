"""Sources in, the files of a corpus out: names, sizes and times. No audio is opened here.

The rules:

- A source is a file, a folder (searched through all its subfolders) or a glob pattern (``**`` crosses
  folders). A path that exists is taken as it stands, even with ``*`` or ``[`` in its name.
- In folders and globs, audio files are known by their extension; a file named as a source is always taken.
- Files and folders whose name begins with a dot are left out, unless ``corpus.hidden`` says otherwise
  or the source itself names one.
- A symbolic link to a file is a file, under the name of the link. A link to a folder is entered only
  with ``corpus.follow_symlinks``, and no folder twice.
- What looks like audio and cannot be read (a dangling link, a closed folder, a pipe) is listed with the
  reason: nothing is skipped silently.
"""

import errno
import glob
import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline.config import CorpusConfig
from pipeline.errors import CorpusError
from pipeline.schema import LISTED

_EXTENSIONS = (
    "wav wave bwf rf64 w64 flac ogg oga opus spx mp3 mp2 mpga m4a m4b aac webm weba mka"
    " aif aiff aifc au snd caf voc sd2 wma amr ape wv tta ac3 alac"
)
AUDIO_EXTENSIONS = frozenset(_EXTENSIONS.split())
"""What counts as audio in a folder, unless ``corpus.extensions`` says otherwise."""

Row = dict[str, Any]


def list_corpus(sources: Iterable[str], config: CorpusConfig | None = None) -> pa.Table:
    """List every file of ``sources`` once: a LISTED table in the order of uris.

    A uri is the absolute path of a file, as written: links are not resolved.

    Raises:
        CorpusError: a source does not exist, or a glob matches nothing.
    """
    config = config or CorpusConfig()
    rows: dict[str, Row] = {}
    for source in sources:
        for row in _list_source(source, config):
            rows.setdefault(row["uri"], row)
    return pa.Table.from_pylist([rows[uri] for uri in sorted(rows)], schema=LISTED)


def _list_source(source: str, config: CorpusConfig) -> Iterator[Row]:
    if "://" in source:
        raise CorpusError(f"{source}: only local files, folders and globs can be read; give a path")
    path = os.path.abspath(os.path.expanduser(source))
    if os.path.isdir(path):
        yield from _walk(path, config, set(), is_source=True)
    elif os.path.lexists(path):
        yield _describe(path)
    elif glob.has_magic(source):
        yield from _list_glob(source, path, config)
    else:
        raise CorpusError(f"{source}: no such file or folder")


def _list_glob(source: str, pattern: str, config: CorpusConfig) -> Iterator[Row]:
    found = False
    for path in glob.iglob(pattern, recursive=True, include_hidden=config.hidden):
        found = True
        # Folders that a pattern names are searched; those that `**` passes through are its own business.
        if os.path.isdir(path):
            if "**" not in pattern:
                yield from _walk(path, config, set(), is_source=True)
        elif _is_audio(path, config):
            yield _describe(path)
    if not found:
        raise CorpusError(f"{source}: the pattern matches no file")


def _walk(
    folder: str, config: CorpusConfig, entered: set[tuple[int, int]], *, is_source: bool = False
) -> Iterator[Row]:
    try:
        status = os.stat(folder)
        if (status.st_dev, status.st_ino) in entered:
            return
        entered.add((status.st_dev, status.st_ino))
        with os.scandir(folder) as entries:
            children = sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        if is_source:
            raise CorpusError(f"{folder}: cannot be listed: {error.strerror}") from None
        yield _row(folder, reason="unreadable", message=f"folder cannot be listed: {error.strerror}")
        return
    for entry in children:
        if entry.name.startswith(".") and not config.hidden:
            continue
        if entry.is_dir(follow_symlinks=config.follow_symlinks):
            yield from _walk(entry.path, config, entered)
        elif _is_audio(entry.path, config) and not (entry.is_symlink() and entry.is_dir()):
            yield _describe(entry.path)


def _is_audio(path: str, config: CorpusConfig) -> bool:
    wanted = AUDIO_EXTENSIONS if config.extensions is None else config.extensions
    return "*" in wanted or Path(path).suffix.lower().removeprefix(".") in wanted


def _describe(path: str) -> Row:
    try:
        status = os.stat(path)
    except OSError as error:
        gone = error.errno in (errno.ENOENT, errno.ELOOP)
        message = "link to nothing" if gone else f"cannot be read: {error.strerror}"
        return _row(path, reason="vanished" if gone else "unreadable", message=message)
    if not stat.S_ISREG(status.st_mode):
        return _row(path, reason="unreadable", message="is no regular file")
    return _row(path, status.st_size, status.st_mtime_ns)


def _row(
    path: str, size_bytes: int = 0, modified_ns: int = 0, reason: str | None = None, message: str | None = None
) -> Row:
    try:
        path.encode()
    except UnicodeEncodeError:
        # Such a name fits in no table as it is: it is shown escaped, and the file is left to be renamed.
        path = os.fsencode(path).decode("utf-8", "backslashreplace")
        reason, message = "bad_name", "the file's name is not UTF-8: rename it"
    return dict(uri=path, size_bytes=size_bytes, modified_ns=modified_ns, reason=reason, message=message)
