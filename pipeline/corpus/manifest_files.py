"""Lists the files that a manifest names: looks up the size and the time of each."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from itertools import islice

from pipeline import storage
from pipeline.corpus.listing import listed_row
from pipeline.corpus.local_files import stat_row
from pipeline.corpus.manifest import read_ranges
from pipeline.corpus.object_stores import stat_folder
from pipeline.corpus.shard_files import list_named_members
from pipeline.corpus.shards import is_member, shard_of
from pipeline.corpus.time_ranges import TimeRange, split_uri
from pipeline.errors import one_line
from pipeline.schema import Row
from pipeline.storage import chunked, map_in_threads

MANY = 100
"""From this many objects in one folder on, the folder is listed instead of looking up each of them."""

SEEN_PER_WANTED = 60
"""Listing this many objects takes as long as one look-up: an answer lists a thousand, and 16 look-ups run at once."""

FILES_AT_A_TIME = 32
"""Files that one thread looks up in a row: a look-up on a disk takes less time than handing it to a thread."""

StatFile = Callable[[str], tuple[int, int]]


def list_manifest(path: str, stat_file: StatFile = storage.stat_file) -> Iterator[Row]:
    """The files that a manifest names, and the time ranges of them. Files that are not there are listed with a reason.

    Args:
        stat_file: size and time of an object.

    Raises:
        CorpusError: as ``read_ranges``.
    """
    ranges = read_ranges(path)
    written: dict[str, list[TimeRange]] = defaultdict(list)
    for row in _look_up(list(ranges), stat_file):
        recording, time_range = split_uri(row["uri"])
        wanted = ranges[row["uri"]]
        if time_range and row["reason"] == "vanished" and TimeRange() in wanted:
            written[recording].append(time_range)  # no file has this name: it names a range, as a uri of ``files`` does
            wanted.remove(TimeRange())
        yield from _list_ranges(row, wanted)
    for row in _look_up(list(written), stat_file):
        yield from _list_ranges(row, written[row["uri"]])


def _list_ranges(recording: Row, ranges: list[TimeRange]) -> Iterator[Row]:
    for each in ranges:
        yield {**recording, "uri": f"{recording['uri']}{each}", "start_s": each.start_s, "end_s": each.end_s}


def _look_up(uris: list[str], stat_file: StatFile) -> Iterator[Row]:
    """The rows of these files, members of shards last."""

    def look_up(uri: str) -> Row:
        return known.get(uri) or _look_up_one(uri, stat_file)

    members: dict[str, set[str]] = defaultdict(set)
    for uri in uris:
        if is_member(uri):
            members[shard_of(uri)].add(uri)
    others = [uri for uri in uris if not is_member(uri)]
    known = _stat_folders(others)
    for rows in map_in_threads(lambda chunk: list(map(look_up, chunk)), chunked(others, FILES_AT_A_TIME)):
        yield from rows
    for shard, row in zip(members, map_in_threads(look_up, members), strict=True):
        yield from list_named_members(row, members[shard])


def _stat_folders(uris: list[str]) -> dict[str, Row]:
    """The rows of the objects in folders that hold many of them: a store lists a folder at once.

    Objects that the listing does not show, for whatever reason, are left to be looked up one by one.
    """
    folders = Counter(uri.rsplit("/", 1)[0] for uri in uris if storage.is_url(uri))
    many = [folder for folder, n_files in folders.items() if n_files >= MANY]
    wanted = set(uris) if many else set()

    def list_wanted(folder: str) -> dict[str, Row]:
        try:
            # A folder with far more objects than these is not listed to its end.
            seen = islice(stat_folder(folder), folders[folder] * SEEN_PER_WANTED)
            return {uri: listed_row(uri, *found) for uri, found in seen if uri in wanted}
        except Exception:  # each store has errors of its own
            return {}

    return {uri: row for rows in map_in_threads(list_wanted, many) for uri, row in rows.items()}


def _look_up_one(path: str, stat_file: StatFile) -> Row:
    if not storage.is_url(path):
        return stat_row(path, if_missing="there is no such file")
    try:
        return listed_row(path, *stat_file(path))
    except FileNotFoundError:
        return listed_row(path, reason="vanished", message="there is no such object")
    except Exception as error:  # each store has errors of its own
        return listed_row(path, reason="unreadable", message=f"cannot be read: {one_line(error)}")
