"""Ledgers made by hand."""

import pyarrow as pa

from pipeline import schema
from pipeline.planning.file_rows import empty_row
from pipeline.planning.ledger import Ledger
from pipeline.schema import Row


def content_hash(content: str) -> str:
    return schema.digest("test", content) * 2


def make_ledger(*rows: Row) -> Ledger:
    return Ledger(pa.Table.from_pylist(list(rows), schema=schema.FILES))


def known_row(uri: str, content: str, modified_ns: int, status: str = "indexed", stage: str | None = None) -> Row:
    """The ledger row that a run leaves."""
    row = empty_row(uri, schema.make_audio_id(content_hash(content)))
    row.update(status=status, stage=stage, reason=stage and "reason", message=stage and "why", duration_s=1.0)
    row.update(size_bytes=len(content), modified_ns=modified_ns, content_hash=content_hash(content), batch_id="0" * 32)
    return row | {"n_clips": 1, "n_frames": 25, "sample_rate_hz": 48_000, "channels": 1, "codec": "flac"}
