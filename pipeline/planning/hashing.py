"""Which files are hashed before the first one is decoded: candidates for decoding in, their content hashes out.

A file is hashed where another file may have the same content, so that each content is encoded once:

- its size is that of a content in the ledger, or of a file that is hashed anyway; or
- another new file has its size, and both agree where they are probed.

A row of a Parquet file has no size before it is read. It is hashed where the ledger has it, or where so many files are
deleted that it may have moved.

Hashing a million files would take longer than encoding some twice. So at most ``READ_FIRST`` new files, and
``READ_FIRST_BYTES``, are read for this; duplicates among the rest are found while they are decoded.
"""

import itertools
from collections import Counter, defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from pipeline.audio.source import place_of
from pipeline.corpus.corpus_file import CorpusFile
from pipeline.errors import FileFailure
from pipeline.planning.ledger import Ledger
from pipeline.planning.request import RunRequest

Read = Callable[[Any], str]
"""Reads a path, URL or place. May raise FileFailure."""

READERS = 16
"""Files read at once: reading waits for disks and servers, not for cores."""

TABLES_AT_ONCE = 4
"""Tables of audio read at once, each from its first row to its last: that takes memory."""

NEW_PER_DELETED = 20
"""Hash up to this many new files per deleted one, to find files that moved: they need not be encoded."""

READ_FIRST = 20_000
"""The limit of new files that are probed, and that are hashed."""

READ_FIRST_BYTES = 16 * 2**30
"""The limit of bytes of new files that are hashed: about a minute from a fast disk or store."""


class Hasher:
    """Sets ``content_hash`` of files. Files that cannot be read are given to ``set_aside`` instead.

    A file that cannot be hashed is not decoded: it may be a duplicate, which would be encoded twice.
    """

    def __init__(
        self,
        hash_file: Read,
        probe_file: Read,
        report: Callable[[int, int], None],
        set_aside: Callable[[CorpusFile, FileFailure], None],
    ) -> None:
        self._hash_file, self._probe_file = hash_file, probe_file
        self._report, self._set_aside = report, set_aside
        self._failures: dict[str, FileFailure] = {}
        """By recording, why it could not be read: it is not tried again for its ranges."""

    def hash(self, files: list[CorpusFile]) -> list[CorpusFile]:
        """Hash files; returns those that can be read."""
        hashed = self._read(files, self._hash_file)
        for file, content_hash in hashed:
            file.content_hash = content_hash
        return [file for file, _ in hashed]

    def hash_unsized(
        self, files: list[CorpusFile], ledger: Ledger, request: RunRequest, n_deleted: int
    ) -> list[CorpusFile]:
        """Hash the files without a size that were known before or may have moved; returns the readable of ``files``."""
        unsized = [file for file in files if not file.has_size and file.content_hash is None]
        if not unsized:
            return files
        may_move = len(unsized) <= n_deleted * NEW_PER_DELETED
        to_hash = unsized if may_move else _select_known(unsized, ledger, request)
        uris = {file.uri for file in to_hash}
        return [*(file for file in files if file.uri not in uris), *self.hash(to_hash)]

    def hash_where_needed(
        self, files: list[CorpusFile], ledger: Ledger, request: RunRequest, n_deleted: int
    ) -> list[CorpusFile]:
        """Hash the files that may have the content of another one; returns the readable of ``files``, by uri."""
        settled = [file for file in files if file.content_hash is not None or not file.has_size]
        known_sizes = ledger.sizes() | {file.size_bytes for file in settled if file.has_size}
        sized = [file for file in files if file.content_hash is None and file.has_size]
        of_known_size, of_equal_size, others = _sort_by_size(sized, known_sizes)
        settled += others
        may_move = not _are_more(of_known_size, n_deleted * NEW_PER_DELETED)
        if not may_move and (_are_more(of_known_size, READ_FIRST) or _bytes_of(of_known_size) > READ_FIRST_BYTES):
            known = {file.uri for file in _select_known(of_known_size, ledger, request)}
            settled += [file for file in of_known_size if file.uri not in known]
            of_known_size = [file for file in of_known_size if file.uri in known]
        alike, others = self._probe(of_equal_size)
        settled += others
        if _bytes_of(alike) > READ_FIRST_BYTES:
            settled, alike = settled + alike, []
        settled += self.hash([*of_known_size, *alike])
        return sorted(settled, key=lambda file: file.uri)

    def _probe(self, files: list[CorpusFile]) -> tuple[list[CorpusFile], list[CorpusFile]]:
        """The files that have the size and the probe of another one, and the others that can be read."""
        if _are_more(files, READ_FIRST):
            return [], files
        probes = [(file, (file.size_bytes, probe)) for file, probe in self._read(files, self._probe_file)]
        n_of_probe = Counter(probe for _, probe in {(file.recording, probe) for file, probe in probes})
        alike = [file for file, probe in probes if n_of_probe[probe] > 1]
        return alike, [file for file, probe in probes if n_of_probe[probe] == 1]

    def _read(self, files: list[CorpusFile], read: Read) -> list[tuple[CorpusFile, str]]:
        """Each file that can be read, with what ``read`` returns. Many are read at once, a recording once for all of
        its ranges, the rows of a table in their order."""

        def attempt(files: list[CorpusFile]) -> list[tuple[CorpusFile, str | FileFailure]]:
            answers: list[tuple[CorpusFile, str | FileFailure]] = []
            for file in files:
                try:
                    known = self._failures.get(file.recording)
                    answers.append((file, known or read(place_of(file.recording, file.offset, file.size_bytes))))
                except FileFailure as failure:
                    answers.append((file, failure))
            return answers

        results, n_read = list[tuple[CorpusFile, str]](), 0
        ranges: dict[str, list[CorpusFile]] = defaultdict(list)
        for file in files:
            ranges[file.recording].append(file)
        alone, tables = _split_tables([same[0] for same in ranges.values()])
        for n_at_once, groups in ((READERS, alone), (TABLES_AT_ONCE, tables)):
            with ThreadPoolExecutor(n_at_once) as pool:
                for file, answer in itertools.chain.from_iterable(pool.map(attempt, groups)):
                    self._report(n_read := n_read + 1, len(ranges))
                    if isinstance(answer, FileFailure):
                        self._failures[file.recording] = answer
                    for each in ranges[file.recording]:
                        if isinstance(answer, FileFailure):
                            self._set_aside(each, answer)
                        else:
                            results.append((each, answer))
        return results


def share_hashes(hashed: list[CorpusFile], others: list[CorpusFile]) -> None:
    """Give files the content hash of their recording where another range of it, or all of it, has been hashed."""
    cut = {file.recording for file in itertools.chain(hashed, others) if file.time_range}
    hash_of = {file.recording: file.content_hash for file in hashed if file.recording in cut}
    for file in others:
        file.content_hash = file.content_hash or hash_of.get(file.recording)


def _sort_by_size(
    files: list[CorpusFile], known_sizes: set[int]
) -> tuple[list[CorpusFile], list[CorpusFile], list[CorpusFile]]:
    """Files of a known size, files that have the size of another one of ``files``, and the others, empty ones included.
    A recording does not count as a second file beside its ranges."""
    cut = {file.recording: file.size_bytes for file in files if file.time_range}
    n_of_size = Counter(cut.values())
    n_of_size.update(file.size_bytes for file in files if file.recording not in cut)
    of_known_size, of_equal_size, others = list[CorpusFile](), list[CorpusFile](), list[CorpusFile]()
    for file in files:
        if file.size_bytes > 0 and file.size_bytes in known_sizes:
            of_known_size.append(file)
        elif file.size_bytes > 0 and n_of_size[file.size_bytes] > 1:
            of_equal_size.append(file)
        else:
            others.append(file)
    return of_known_size, of_equal_size, others


def _split_tables(files: list[CorpusFile]) -> tuple[list[list[CorpusFile]], list[list[CorpusFile]]]:
    """Files one by one, and the rows of each table together, in their order there."""
    alone: list[list[CorpusFile]] = []
    tables: dict[str, list[CorpusFile]] = defaultdict(list)
    for file in files:
        if (table := file.row_of) is not None:
            tables[table].append(file)
        else:
            alone.append([file])
    return alone, [sorted(rows, key=lambda file: file.offset or 0) for rows in tables.values()]


def _select_known(files: list[CorpusFile], ledger: Ledger, request: RunRequest) -> list[CorpusFile]:
    """Files that the ledger has, maybe under their uri before a source was renamed."""
    old = ledger.look_up([file.uri for file in files], [])
    former = ledger.look_up([request.former(file.uri) for file in files], []) if request.moved else old
    return [file for file, *rows in zip(files, old, former, strict=True) if rows != [None, None]]


def _bytes_of(files: list[CorpusFile]) -> int:
    """How many bytes it takes to hash these files."""
    return sum({file.recording: file.size_bytes for file in files}.values())


def _are_more(files: list[CorpusFile], n_reads: int) -> bool:
    """Whether hashing takes more than ``n_reads`` reads: a recording is read once for all of its ranges."""
    return len(files) > n_reads and len({file.recording for file in files}) > n_reads
