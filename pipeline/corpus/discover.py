"""Sources in, the files of a corpus out: names, sizes and times. No audio is opened here.

The rules:

- A source is a file, a folder (searched through all its subfolders) or a glob pattern (``**`` crosses
  folders), on a disk or, as a URL, in an object store. A path that exists is taken as it stands, even with
  ``*`` or ``[`` in its name; so are the folders that exist at the beginning of a pattern. Folders that a
  pattern matches are searched.
- In folders and globs, audio files are known by their extension; a file named as a source is always taken.
- A tar file that a source names, or that a glob matches, is a shard: its members with an extension of audio are
  files, each ``shard.tar#member``. In folders, shards are looked into where ``corpus.extensions`` has ``tar``.
- So is a Parquet or Arrow file with a column of audio bytes: each row is a file, whatever its extension.
- A CSV (``.csv``, or with tabs ``.tsv``), JSON lines or any other Parquet file that a source names, or that a glob
  matches, is a manifest: the files in its column ``uri`` are taken, whatever their extension, or the ranges of
  them that it gives.
- Files and folders whose name begins with a dot are left out, unless ``corpus.hidden`` says otherwise
  or the source itself names one.
- A symbolic link to a file is a file, under the name of the link. A link to a folder is entered only
  with ``corpus.follow_symlinks`` or where the source itself names it, and no folder twice.
- What looks like audio and cannot be read (a dangling link, a closed folder, a pipe) is listed with the
  reason: ``vanished`` where it is gone, ``unreadable`` where it may come back, like a link into a folder that is
  missing or empty. What is found and not looked at is counted (``ignored``): nothing is skipped silently.
"""

import errno
import fnmatch
import glob
import os
import stat
import tarfile
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import TypeVar

import pyarrow as pa

from pipeline import storage
from pipeline.config import CorpusConfig
from pipeline.corpus.audio_tables import NoAudioError, holds_audio
from pipeline.corpus.ignored_files import HIDDEN, LINKS, IgnoredFiles, kind_of, summarize
from pipeline.corpus.listing import Listing, gc_paused, to_table
from pipeline.corpus.manifest import is_manifest, read_ranges
from pipeline.corpus.raw_formats import RAW_FORMATS
from pipeline.corpus.shards import extension_of, is_audio_table, is_member, is_shard, list_members, name_of, shard_of
from pipeline.corpus.table_files import KINDS
from pipeline.corpus.time_ranges import TimeRange, split_uri
from pipeline.errors import CorpusError, EarshotError, EmptyCorpus, one_line
from pipeline.schema import LISTED, Row

_EXTENSIONS = (
    "wav wave bwf rf64 w64 flac ogg oga opus spx mp3 mp2 mpga m4a m4b m4r aac adts loas latm webm weba mka"
    " aif aiff aifc au snd caf voc sd2 8svx svx pvf sph nist ircam"
    " wma xwma amr awb ape wv tta tak shn alac dsf dff mpc mp+ ra rm"
    " ac3 ec3 eac3 dts dtshd mlp thd truehd"
    " mp4 m4v mov 3gp 3g2 mkv avi wmv asf flv f4v mpg mpeg m2ts vob mxf ogv ogx rmvb"
)
AUDIO_EXTENSIONS = frozenset([*_EXTENSIONS.split(), *RAW_FORMATS])
"""What counts as audio in a folder, unless ``corpus.extensions`` says otherwise: what the decoders read.

An extension that mostly means something else is left out, since each such file would be a failure: ``ts`` and ``mts``
(TypeScript, translations), ``raw`` and ``iff`` (pictures), ``mpp`` (Microsoft Project), ``sf``, ``paf``, ``nut``,
``dat``. They are counted like all that is not looked at, and ``corpus.extensions`` takes them.
"""

FILES_AT_ONCE = 16
"""Shards that are looked into, and files of manifests, at once: that waits for disks and servers, not for cores."""

_ADVICE = "; if it was renamed or is given up, see --move-source and --forget of `earshot index`"

MANY = 100
"""Objects of a manifest in one folder, from which on the folder is listed rather than each of them looked at."""

SEEN_PER_WANTED = 60
"""Objects of a listing that cost as much as a request for one: a thousand come in each answer, and sixteen can be asked
for at the same time."""

FILES_AT_A_TIME = 32
"""Files of a manifest that one thread looks at: a local one takes less time than to hand it over."""

_Identity = tuple[int, int]  # device and inode
T = TypeVar("T")
R = TypeVar("R")


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
        leave_out: a folder that is not entered, if it exists: the index, which may lie among what it indexes.
        manifests: a list to note the manifests in that the sources name.
        report: told now and then how many files have been found.
        ignored: notes what is found and not looked at.

    Raises:
        CorpusError: a source does not exist or is a ``.json`` file, a glob matches nothing, or none holds audio.
    """
    config, ignored = config or CorpusConfig(), ignored or IgnoredFiles()
    sources = [storage.absolute(source) if storage.is_url(source) else source for source in sources]
    if leave_out is not None and storage.is_url(leave_out):
        leave_out = storage.absolute(leave_out)
    if leave_out in (urls := [source for source in sources if storage.is_url(source)]):
        raise CorpusError(f"{leave_out}: the index cannot be the folder that is indexed; use another one")
    if same := [source for source in sources if os.path.isdir(source) and _identify(source) & _identify(leave_out)]:
        raise CorpusError(f"{same[0]}: the index cannot be the folder that is indexed; use for example {same[0]}-index")
    if wrong := [source for source in sources if source.lower().endswith(".json") and not os.path.isdir(source)]:
        raise CorpusError(f"{wrong[0]}: is no audio, and no table by its name: give {KINDS}")
    listing, aside, named = Listing(report), dict[str, Row](), list[str]()

    def take(row: Row) -> None:
        """Manifests and shards are looked into when all are known."""
        uri, is_named = row["uri"], row.pop("named", False)
        if not is_shard(uri) and uri not in aside and not (is_named and is_manifest(uri)):
            listing.add(row)
        elif aside.setdefault(uri, row) is row and is_named:
            named.append(uri)

    for source in sources:
        listed = _list_url(source, config, leave_out, ignored) if source in urls else None
        for row in listed or _list_source(source, config, _identify(leave_out), ignored):
            take(row)
    for manifest in (manifests_read := _find_manifests(named)):
        del aside[manifest]
        if manifests is not None:
            manifests.append(manifest)
        n_files, trouble = 0, set[str]()
        for row in _list_manifest(manifest):
            n_files += 1
            trouble.add(row["message"] or "")
            take(row)
        if not n_files:
            raise CorpusError(f"{manifest}: names no file")
        if "" not in trouble:
            raise CorpusError(
                f"{manifest}: of the {n_files} files that it names none can be read ({min(trouble)}): is their disk"
                " there, and do the credentials hold?"
            )
    for uri in (*manifests_read, *aside, *([storage.absolute(config.metadata)] if config.metadata else [])):
        ignored.take_back(uri)
    shards = [row for row in aside.values() if row["reason"] is None]
    listing.extend(to_table(row for row in aside.values() if row["reason"] is not None))
    inside = config
    if config.extensions and all(is_shard(f".{extension}") for extension in config.extensions):
        inside = config.model_copy(update={"extensions": None})  # they say where to look, and not for what
    for members in _each(shards, lambda shard: to_table(_list_shard(shard, inside, ignored))):
        listing.extend(members)
    found = listing.to_table()
    if not found.num_rows:
        wanted = "an audio file's extension" if config.extensions is None else f"extension {list(config.extensions)}"
        others = _say_overlooked(ignored, 0)
        advice = "corpus.extensions names others, and tar, parquet or arrow for the shards in folders"
        if "corpus.extensions" in others:
            advice = "with tar, parquet or arrow among the extensions, shards in folders are looked into"
        raise EmptyCorpus(f"{', '.join(sources)}: no file with {wanted} there{others}; {advice}")
    return found


def _say_overlooked(ignored: IgnoredFiles, since: int) -> str:
    """The end of a message that nothing was found: what was not looked at, of what was noted ``since``."""
    said = summarize(ignored.count(LISTED.empty_table(), since))
    return f"; not looked at: {said}" if said else ""


def _each(items: Iterable[T], read: Callable[[T], R]) -> Iterator[R]:
    """What ``read`` says of each, in order; many at once, and only a few of them waiting to be taken."""
    waiting = iter(items)
    with ThreadPoolExecutor(FILES_AT_ONCE) as pool:
        while some := list(islice(waiting, 4 * FILES_AT_ONCE)):
            yield from pool.map(read, some)


def _find_manifests(named: Iterable[str]) -> list[str]:
    """Of the files that sources name, the manifests. A broken Parquet file is one, unless there are tables among them.

    Raises:
        CorpusError: a table has several columns of bytes.
    """

    def has_audio(path: str) -> bool | None:
        try:
            return holds_audio(path)
        except CorpusError as error:
            raise CorpusError(f"{path}: {error}") from None
        except Exception:  # each store has errors of its own; whoever reads it for good will say it
            return None

    found = [path for path in named if is_manifest(path)]
    tables = [path for path in found if is_audio_table(path)]
    with ThreadPoolExecutor(FILES_AT_ONCE) as pool:
        known = dict(zip(tables, pool.map(has_audio, tables), strict=True))
    either = True in known.values()
    return [path for path in found if not (known.get(path, False) or (either and known.get(path, False) is None))]


def _identify(path: str | None) -> set[_Identity]:
    if path is None:
        return set()
    try:
        status = os.stat(path)
    except OSError:
        return set()
    return {(status.st_dev, status.st_ino)}


def _list_source(source: str, config: CorpusConfig, entered: set[_Identity], ignored: IgnoredFiles) -> Iterator[Row]:
    """The files of one source, save in folders that have been ``entered``."""
    path = os.path.abspath(os.path.expanduser(source))
    if os.path.isdir(path):
        try:
            os.scandir(path).close()
        except OSError as error:
            raise CorpusError(f"{source}: cannot be listed: {error.strerror}") from None
        yield from _walk(path, config, entered, ignored)
    elif os.path.lexists(path):
        yield _named(_describe(path))
    elif glob.has_magic(source):
        yield from _list_glob(source, path, config, entered, ignored)
    else:
        raise CorpusError(f"{source}: no such file or folder{_ADVICE}")


def _list_url(source: str, config: CorpusConfig, leave_out: str | None, ignored: IgnoredFiles) -> Iterator[Row]:
    """The files of a source in an object store, save in the folder to ``leave_out``."""

    def enter(folder: str) -> bool:
        return folder != leave_out

    def ignore(url: str) -> None:
        ignored.add(url, HIDDEN)

    n_before = ignored.n_noted
    try:
        for url, found, is_named in storage.list_files(source, hidden=config.hidden, enter=enter, ignore=ignore):
            if isinstance(found, Exception):
                message = f"folder cannot be listed: {one_line(found)}"
                yield _row(url, reason="unreadable", message=message, hides_files=True)
            elif is_named:
                if url == source or _is_audio(url, config) or is_shard(url) or is_manifest(url):
                    yield _named(_row(url, *found))
                else:
                    ignored.add(url, kind_of(extension_of(url)))
            elif _is_audio(url, config):
                yield _row(url, *found)
            else:
                ignored.add(url, kind_of(extension_of(url)))
    except FileNotFoundError:
        others = _say_overlooked(ignored, n_before)
        raise CorpusError(f"{source}: no such file or folder, and no file that matches{others}{_ADVICE}") from None
    except EarshotError:
        raise
    except Exception as error:  # each store has errors of its own
        raise CorpusError(f"{source}: cannot be listed: {one_line(error)}") from None


def _list_manifest(path: str) -> Iterator[Row]:
    ranges = read_ranges(path)
    written: dict[str, list[TimeRange]] = defaultdict(list)
    for row in _describe_all(list(ranges)):
        recording, part = split_uri(row["uri"])
        wanted = ranges[row["uri"]]
        if part and row["reason"] == "vanished" and TimeRange() in wanted:
            written[recording].append(part)  # no file has this name: it is that of a range, as ``files`` has it
            wanted.remove(TimeRange())
        yield from _list_ranges(row, wanted)
    for row in _describe_all(list(written)):
        yield from _list_ranges(row, written[row["uri"]])


def _list_ranges(recording: Row, ranges: list[TimeRange]) -> Iterator[Row]:
    for part in ranges:
        yield {**recording, "uri": f"{recording['uri']}{part}", "start_s": part.start_s, "end_s": part.end_s}


def _describe_all(uris: list[str]) -> Iterator[Row]:
    members = {shard_of(uri): set[str]() for uri in uris if is_member(uri)}
    for uri in uris:
        if is_member(uri):
            members[shard_of(uri)].add(uri)
    others = [uri for uri in uris if not is_member(uri)]
    known = _describe_folders(others)
    for rows in _each(_chunks(others), lambda chunk: [known.get(uri) or _describe_any(uri) for uri in chunk]):
        yield from rows
    for shard, row in zip(members, _each(members, _describe_any), strict=True):
        yield from _list_members(row, members[shard])


def _describe_folders(uris: list[str]) -> dict[str, Row]:
    """The rows of the objects among ``uris`` whose folders hold many of them: a store is asked for all in a folder at
    once. What is not found so, for whatever reason, is left to be asked for by itself."""
    folders = Counter(uri.rsplit("/", 1)[0] for uri in uris if storage.is_url(uri))
    many = [folder for folder, n_files in folders.items() if n_files >= MANY]
    wanted = set(uris) if many else set()

    def describe(folder: str) -> dict[str, Row]:
        try:
            # Of a folder with far more than these, they are asked for one by one.
            seen = islice(storage.stat_folder(folder), folders[folder] * SEEN_PER_WANTED)
            return {uri: _row(uri, *found) for uri, found in seen if uri in wanted}
        except Exception:  # each store has errors of its own
            return {}

    return {uri: row for rows in _each(many, describe) for uri, row in rows.items()}


def _chunks(uris: Iterable[str]) -> Iterator[list[str]]:
    waiting = iter(uris)
    while chunk := list(islice(waiting, FILES_AT_A_TIME)):
        yield chunk


def _list_members(shard: Row, wanted: set[str]) -> Iterator[Row]:
    """The rows of certain members of a shard."""
    missing = set(wanted)
    try:
        for member, place in list_members(shard["uri"]):
            if member in wanted:
                missing.discard(member)
                yield _row(member, place.size_bytes, shard["modified_ns"], offset=place.offset)
    except Exception as error:  # each store has errors of its own
        yield from (_row(uri, reason="unreadable", message=f"its shard: {one_line(error)}") for uri in sorted(missing))
    else:
        yield from (_row(uri, reason="vanished", message="its shard has no such member") for uri in sorted(missing))


def _describe_any(path: str) -> Row:
    if not storage.is_url(path):
        return _describe(path, gone="there is no such file")
    try:
        return _row(path, *storage.stat_file(path))
    except FileNotFoundError:
        return _row(path, reason="vanished", message="there is no such object")
    except Exception as error:  # each store has errors of its own
        return _row(path, reason="unreadable", message=f"cannot be read: {one_line(error)}")


def _list_shard(shard: Row, config: CorpusConfig, ignored: IgnoredFiles) -> Iterator[Row]:
    """The audio files in a shard; the shard itself where it cannot be read to its end, or holds none."""
    uri, n_members = shard["uri"], 0
    try:
        for member, place in list_members(uri):
            if is_audio_table(uri) or _is_wanted(member, config, ignored):
                n_members += 1
                yield _row(member, place.size_bytes, shard["modified_ns"], offset=place.offset)
    except NoAudioError as error:
        yield _row(uri, reason="not_audio", message=str(error))
    except tarfile.TarError as error:
        message = f"is no whole tar file: {one_line(error)}; {n_members} files found"
        yield _row(uri, reason="not_audio", message=message, hides_files=True)
    except Exception as error:  # each store has errors of its own
        yield _row(uri, reason="unreadable", message=f"cannot be read: {one_line(error)}", hides_files=True)
    else:
        if not n_members:
            yield _row(
                uri, reason="not_audio", message=f"a {'table' if is_audio_table(uri) else 'tar file'} without audio"
            )


def _is_wanted(member: str, config: CorpusConfig, ignored: IgnoredFiles) -> bool:
    """Whether a member of a tar shard is taken, by its own name; noted where it is not."""
    name = name_of(member)
    is_hidden = not config.hidden and any(storage.is_hidden(part) for part in name.split("/"))
    if not is_hidden and not is_shard(name) and _is_audio(member, config):
        return True
    ignored.add(member, HIDDEN if is_hidden else kind_of(extension_of(member)))
    return False


def _list_glob(
    source: str, pattern: str, config: CorpusConfig, entered: set[_Identity], ignored: IgnoredFiles
) -> Iterator[Row]:
    found, n_before = False, ignored.n_noted
    # Leading folders that exist are taken as they stand; below them, each part is a pattern for one level.
    folder, *parts = Path(pattern).parts
    while parts and os.path.isdir(os.path.join(folder, parts[0])):
        folder = os.path.join(folder, parts.pop(0))
    for path in _expand(folder, parts, config, frozenset(entered), ignored):
        found = True
        if os.path.isdir(path):
            yield from _walk(path, config, entered, ignored)
        elif _is_audio(path, config) or is_shard(path) or is_manifest(path):
            yield _named(_describe(path))
        else:
            ignored.add(path, kind_of(extension_of(path)))
    if not found:
        raise CorpusError(f"{source}: the pattern matches no file{_say_overlooked(ignored, n_before)}{_ADVICE}")


def _expand(
    folder: str, parts: list[str], config: CorpusConfig, closed: frozenset[_Identity], ignored: IgnoredFiles
) -> Iterator[str]:
    """The paths below ``folder`` that match ``parts``, and folders on the way to them that cannot be listed.

    Folders that are ``closed`` are not entered. What does not match was not asked for, and is not ignored; what is
    hidden, or a link to a folder, counts where it matches or where ``**`` would have entered it.
    """
    if closed and not _identify(folder).isdisjoint(closed):
        return
    if not parts or parts == ["**"]:
        yield folder
        return
    part, rest = parts[0], parts[1:]
    if part == "**":
        for each, _ in _visit(folder, config, set(closed), ignored, _is_folder):
            yield from _expand(each, rest, config, closed, ignored)
        return
    if not glob.has_magic(part):
        if os.path.lexists(path := os.path.join(folder, part)):
            yield from _expand(path, rest, config, closed, ignored)
        return

    def matches(entry: os.DirEntry[str]) -> bool:
        return fnmatch.fnmatchcase(entry.name, part) and (not rest or _is_folder(entry))

    try:
        children = _children(folder, config.hidden or part.startswith("."), ignored, matches)
    except OSError:
        yield folder
        return
    for entry in filter(matches, children):
        is_folder = _is_folder(entry)
        if not is_folder or _may_enter(entry, config):
            yield from _expand(entry.path, rest, config, closed, ignored)
        else:
            ignored.add(entry.path, LINKS)


def _walk(folder: str, config: CorpusConfig, entered: set[_Identity], ignored: IgnoredFiles) -> Iterator[Row]:
    """The audio files in ``folder`` and below, save in folders that have been ``entered``."""
    for path, files in _visit(folder, config, entered, ignored):
        if isinstance(files, OSError):
            yield _row(
                path, reason="unreadable", message=f"folder cannot be listed: {files.strerror}", hides_files=True
            )
            continue
        for entry in files:
            if _is_audio(entry.path, config):
                yield _describe(entry.path)
            else:
                ignored.add(entry.path, kind_of(extension_of(entry.path)))


def _visit(
    folder: str,
    config: CorpusConfig,
    entered: set[_Identity],
    ignored: IgnoredFiles,
    asked: Callable[[os.DirEntry[str]], bool] = lambda entry: True,
) -> Iterator[tuple[str, list[os.DirEntry[str]] | OSError]]:
    """Each folder from ``folder`` downwards with what it holds beside folders, or with why it cannot be listed.

    Args:
        asked: what of that is ignored where it is hidden.
    """
    waiting = [folder]
    while waiting:
        path = waiting.pop()
        try:
            status = os.stat(path)
            if (status.st_dev, status.st_ino) in entered:
                continue
            entered.add((status.st_dev, status.st_ino))
            children = _children(path, config.hidden, ignored, asked)
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
    folder: str, hidden: bool, ignored: IgnoredFiles, asked: Callable[[os.DirEntry[str]], bool]
) -> list[os.DirEntry[str]]:
    """What is in a folder, without what is hidden, if that is left out, and ignored if it is ``asked`` for."""
    with os.scandir(folder) as entries:
        children = sorted(entries, key=lambda entry: entry.name)
    shown = [entry for entry in children if hidden or not storage.is_hidden(entry.name)]
    if len(shown) < len(children):
        for entry in children:
            if storage.is_hidden(entry.name) and asked(entry):
                ignored.add(entry.path, HIDDEN)
    return shown


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads to itself, or through a closed folder
        return False


def _may_enter(entry: os.DirEntry[str], config: CorpusConfig) -> bool:
    return config.follow_symlinks or not entry.is_symlink()


def _is_audio(path: str, config: CorpusConfig) -> bool:
    wanted = AUDIO_EXTENSIONS if config.extensions is None else config.extensions
    return "*" in wanted or extension_of(path) in wanted


def _describe(path: str, gone: str = "gone since its folder was listed") -> Row:
    try:
        status = os.stat(path)
    except OSError as error:
        is_gone = error.errno in (errno.ENOENT, errno.ELOOP)
        message = gone if is_gone else f"cannot be read: {error.strerror}"
        if is_gone and os.path.islink(path):
            folder = os.path.dirname(os.path.realpath(path))
            is_gone = not _is_bare(folder)
            message = (
                "link to nothing" if is_gone else f"link to nothing: {folder} is missing or empty; is a disk away?"
            )
        return _row(path, reason="vanished" if is_gone else "unreadable", message=message)
    if not stat.S_ISREG(status.st_mode):
        return _row(path, reason="unreadable", message="is no regular file")
    return _row(path, status.st_size, storage.modified_ns(status))


def _is_bare(folder: str) -> bool:
    """Whether what a link leads to may be on a disk that is not mounted: its folder is missing, or nothing is in it."""
    try:
        with os.scandir(folder) as entries:
            return next(entries, None) is None
    except OSError:
        return True


def _named(row: Row) -> Row:
    """The row of a file that a source names, or its pattern matches: no other is taken for a manifest."""
    return {**row, "named": row["reason"] is None}


def _row(
    path: str,
    size_bytes: int = 0,
    modified_ns: int = 0,
    reason: str | None = None,
    message: str | None = None,
    offset: int | None = None,
    hides_files: bool = False,
) -> Row:
    try:
        path.encode()
    except UnicodeEncodeError:
        # Such a name fits in no table as it is: it is shown escaped, and the file is left to be renamed.
        path = os.fsencode(path).decode("utf-8", "backslashreplace")
        reason, message = "bad_name", "the file's name is not UTF-8: rename it"
    return dict(
        uri=path,
        start_s=None,
        end_s=None,
        size_bytes=size_bytes,
        modified_ns=modified_ns,
        offset=offset,
        reason=reason,
        message=message,
        hides_files=hides_files or (reason == "unreadable" and is_shard(path)),
    )
