"""Lists the audio files in shards: members of tar files, rows of tables with audio."""

import tarfile
from collections.abc import Iterator

from pipeline import storage
from pipeline.config import CorpusConfig
from pipeline.corpus.audio_column import NoAudioError
from pipeline.corpus.extensions import is_audio
from pipeline.corpus.ignored_files import HIDDEN, IgnoredFiles
from pipeline.corpus.listing import listed_row
from pipeline.corpus.shards import is_audio_table, is_shard, list_members, name_of
from pipeline.corpus.tar_headers import TooLongError
from pipeline.errors import one_line
from pipeline.schema import Row
from pipeline.words import count


def list_shard(shard: Row, config: CorpusConfig, ignored: IgnoredFiles) -> Iterator[Row]:
    """The audio files in a shard; and the shard itself where it cannot be read to its end, or holds none."""
    uri, n_members = shard["uri"], 0
    try:
        for member, place in list_members(uri):
            if is_audio_table(uri) or _is_wanted(member, config, ignored):
                n_members += 1
                yield listed_row(member, place.size_bytes, shard["modified_ns"], offset=place.offset)
    except NoAudioError as error:
        yield listed_row(uri, reason="not_audio", message=str(error))
    except tarfile.TarError as error:
        what = "is read up to" if isinstance(error, TooLongError) else "is no whole tar file:"
        message = f"{what} {one_line(error)}; {count(n_members, 'file')} found"
        yield listed_row(uri, reason="not_audio", message=message, hides_files=True)
    except Exception as error:  # each store has errors of its own
        yield listed_row(uri, reason="unreadable", message=f"cannot be read: {one_line(error)}", hides_files=True)
    else:
        if not n_members:
            kind = "table" if is_audio_table(uri) else "tar file"
            yield listed_row(uri, reason="not_audio", message=f"a {kind} without audio")


def list_named_members(shard: Row, wanted: set[str]) -> Iterator[Row]:
    """The rows of those members of a shard that a manifest names."""
    missing = set(wanted)
    try:
        for member, place in list_members(shard["uri"]):
            if member in wanted:
                missing.discard(member)
                yield listed_row(member, place.size_bytes, shard["modified_ns"], offset=place.offset)
    except Exception as error:  # each store has errors of its own
        reason, message = "unreadable", f"its shard: {one_line(error)}"
    else:
        reason, message = "vanished", "its shard has no such member"
    yield from (listed_row(uri, reason=reason, message=message) for uri in sorted(missing))


def _is_wanted(member: str, config: CorpusConfig, ignored: IgnoredFiles) -> bool:
    """Whether a member of a tar shard is listed, by its own name; noted as ignored where it is not."""
    name = name_of(member)
    if not config.hidden and any(storage.is_hidden(part) for part in name.split("/")):
        ignored.add(member, HIDDEN)
        return False
    if is_shard(name) or not is_audio(member, config):
        ignored.add_file(member)
        return False
    return True
