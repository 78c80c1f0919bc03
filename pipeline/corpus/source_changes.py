"""Changes to the sources of an index: a folder was renamed (``--move-source``), or is given up (``--forget``)."""

import glob
from collections.abc import Iterable

from pipeline import storage
from pipeline.config import Config
from pipeline.errors import CorpusError, UsageError


def change_sources(
    config: Config, moved: tuple[str, str] | None = None, forgotten: Iterable[str] = (), more: Iterable[str] = ()
) -> Config:
    """The configuration of an index with other sources.

    Args:
        config: as stored in the index: its paths are absolute.
        moved: the old and the new path of a source, or of a folder around sources. A metadata table in it moves along.
        forgotten: sources to leave out.
        more: sources to add.

    Raises:
        UsageError: the index has no such source, or none would be left. CorpusError: the new path does not exist.
    """
    sources, metadata = list(config.sources), config.corpus.metadata
    if moved is not None:
        old, new = map(storage.absolute, moved)
        renamed = [_rename(source, old, new) for source in sources]
        if renamed == sources and old != new:
            raise _unknown(old, config)
        if not (storage.exists(new) or glob.has_magic(new)):
            raise CorpusError(f"{new}: no such file or folder, so {old} cannot have moved there")
        sources = renamed
        metadata = metadata and _rename(metadata, old, new)
    for source in map(storage.absolute, forgotten):
        if source not in sources:
            raise _unknown(source, config)
        sources.remove(source)
    sources = list(dict.fromkeys([*sources, *map(storage.absolute, more)]))
    if not sources:
        raise UsageError(
            f"{config.into}: no source would be left; name another one beside --forget, or delete the index itself"
        )
    corpus = config.corpus.model_copy(update={"metadata": metadata})
    return config.model_copy(update={"sources": tuple(sources), "corpus": corpus})


def _rename(path: str, old: str, new: str) -> str:
    return new + path[len(old) :] if path == old or path.startswith(f"{old}/") else path


def _unknown(source: str, config: Config) -> UsageError:
    return UsageError(f"{source}: is no source of {config.into}; its sources are {', '.join(config.sources)}")
