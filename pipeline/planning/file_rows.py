"""Builds the row of ``files`` for each outcome: a file is found, indexed, copied, failed, damaged or deleted.

A row has every column but ``batch_id``, which the commit adds. No other module builds one:

- ``empty_row``: the file is found; decoding fills in what it learns;
- ``indexed_row``: all of it is decoded; ``with_checksums``: all of it is encoded;
- ``copied_row``: another file with the same bytes has been decoded; ``mtime_changed_row``: only its time changed;
- ``confirmed_row``: its decoding was corrected, and its sound is the same; ``CONFIRMED`` tells so on the way;
- ``failed_row``: its content fails; ``unreadable_row``: its bytes cannot be read; ``lost_rows``: its worker died;
- ``damaged_row``: its rows in the index cannot be trusted;
- ``deleted_row``: the file is no longer there.
"""

from collections.abc import Set

import pyarrow as pa

from pipeline import schema
from pipeline.audio.decoder_versions import DECODER
from pipeline.corpus.corpus_file import CorpusFile
from pipeline.corpus.shards import is_sized
from pipeline.errors import FileFailure
from pipeline.schema import Row

_COUNTS = {"n_clips": 0, "n_frames": 0}
_EMPTY: Row = dict.fromkeys(schema.without(schema.FILES, "batch_id").names) | _COUNTS


def empty_row(uri: str, audio_id: str | None) -> Row:
    """A row with its ids and nothing else."""
    return _EMPTY | {"uri": uri, "audio_id": audio_id, "file_id": schema.make_file_id(uri, audio_id)}


def indexed_row(row: Row, n_frames: int, truncated: str | None) -> Row:
    """The row of a file that is decoded. Args: ``truncated``: how much of it is missing; None if nothing is."""
    row = row | {"status": "indexed", "n_frames": n_frames}
    return row | {"stage": "decode", "reason": "truncated", "message": truncated} if truncated else row


def with_checksums(row: Row, clips_checksum: int, frames_checksum: int | None) -> Row:
    """The row of a file that is encoded. Args: ``frames_checksum``: None if the index stores no frames."""
    row = row | {"clips_checksum": clips_checksum}
    return row | ({"n_frames": 0} if frames_checksum is None else {"frames_checksum": frames_checksum})


def copied_row(holder: Row, uri: str, modified_ns: int | None) -> Row:
    """The row of a file that has the same bytes as another one, its ``holder``."""
    return holder | {"uri": uri, "file_id": schema.make_file_id(uri, holder["audio_id"]), "modified_ns": modified_ns}


def mtime_changed_row(old: Row, modified_ns: int) -> Row:
    """The row of a file whose modification time changed, and whose bytes did not."""
    return old | {"modified_ns": modified_ns}


CONFIRMED = "confirmed"
"""The status of rows that a worker sends for files that decode as they did: their clips and frames stay."""


def confirmed_row(old: Row, found: Row) -> Row:
    """The row of a file that decodes as it did.

    Args:
        found: what was learnt of it; without ``duration_s``, not all of it was decoded.
    """
    names = _CONFIRMED if found["duration_s"] is None else _DECODED | _CONFIRMED
    return old | {name: found[name] for name in names}


_CONFIRMED = frozenset(["modified_ns", "decoder"])
_DECODED = frozenset(
    ["stage", "reason", "message", "expected_duration_s", "sample_rate_hz", "channels", "codec", "note"]
)


def failed_row(row: Row, failure: FileFailure) -> Row:
    """The row of a file whose content cannot be indexed. What decoding learnt of it stays."""
    why = {"stage": failure.stage, "reason": failure.reason, "message": failure.message}
    return row | {"status": "failed", **why, **_COUNTS}


def unreadable_row(file: CorpusFile | Row, failure: FileFailure) -> Row:
    """The row of a file whose bytes cannot be read, from its row of LISTED or of ``files``."""
    size_bytes = file["size_bytes"] if is_sized(file["uri"]) else None
    row = empty_row(file["uri"], None) | {"size_bytes": size_bytes, "modified_ns": file["modified_ns"]}
    return failed_row(row, failure)


def lost_rows(batches: pa.Table, batch_ids: Set[str], failure: FileFailure) -> list[Row]:
    """The rows of all files of some PLANNED batches whose workers died before anything was known of the files.

    This version of decoding has tried them: without it, each run would try again those that a correction may concern.
    """
    return [
        unreadable_row({"uri": uri, "size_bytes": audio["size_bytes"], "modified_ns": modified_ns}, failure)
        | {"decoder": DECODER}
        for row in batches.to_pylist()
        if row["batch_id"] in batch_ids
        for audio in row["audios"]
        for uri, modified_ns in zip(audio["uris"], audio["modified_ns"], strict=True)
    ]


def damaged_row(old: Row) -> Row:
    """The row of a file whose rows in the index are damaged and have been removed. A deleted file stays deleted."""
    if old["status"] == "deleted":
        return old | _COUNTS
    message = "its rows were damaged and have been taken out: reindex"
    return unreadable_row(old, FileFailure("read", "damaged", message))


def deleted_row(old: Row) -> Row:
    """The row of a file that is no longer there. What was known of its content stays."""
    nothing = dict.fromkeys(("stage", "reason", "message", "clips_checksum", "frames_checksum"))
    return old | {"status": "deleted", **nothing, **_COUNTS}


def files_table(rows: list[Row]) -> pa.Table:
    """Ledger rows as a table, still without ``batch_id``."""
    return pa.Table.from_pylist(rows, schema=schema.without(schema.FILES, "batch_id"))
