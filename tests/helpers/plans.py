"""Ledgers made by hand, made-up files, and plans of files."""

from collections import Counter
from typing import Any

import pyarrow as pa

from pipeline import schema
from pipeline.audio.source import hash_file, probe_file
from pipeline.errors import FileFailure
from pipeline.planning.decide import PlanSetup, make_plan
from pipeline.planning.file_rows import empty_row
from pipeline.planning.ledger import Ledger
from pipeline.planning.plan import Plan
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
    row.update(expected_duration_s=1.0, sample_rate_hz=48_000, channels=1, codec="flac")
    return row | {"n_clips": 1, "n_frames": 25}


class Disk:
    """Made-up files: uri -> (content, modified_ns). Counts how often each is read. A content's size is its length."""

    def __init__(self, files: dict[str, tuple[str, int]], broken: frozenset[str] = frozenset()) -> None:
        self.files, self.broken = files, broken
        self.hashed: Counter[str] = Counter()
        self.probed: Counter[str] = Counter()

    def listed(self, reasons: dict[str, str] | None = None) -> pa.Table:
        rows = [_listed(uri, len(content), modified_ns) for uri, (content, modified_ns) in self.files.items()]
        rows += [_listed(uri, 0, 0, reason) for uri, reason in (reasons or {}).items()]
        return pa.Table.from_pylist(sorted(rows, key=lambda row: str(row["uri"])), schema=schema.LISTED)

    def hash_file(self, uri: str) -> str:
        self.hashed[uri] += 1
        if uri in self.broken:
            raise FileFailure("read", "unreadable", "input/output error")
        return content_hash(self.files[uri][0])

    def probe_file(self, uri: str) -> str:
        """The first letter of a content stands for the bytes that are probed."""
        self.probed[uri] += 1
        if uri in self.broken:
            raise FileFailure("read", "unreadable", "input/output error")
        return self.files[uri][0][:1]


def _listed(uri: str, size_bytes: int, modified_ns: int, reason: str | None = None) -> Row:
    message = None if reason is None else "why"
    return dict(uri=uri, size_bytes=size_bytes, modified_ns=modified_ns, reason=reason, message=message)


def plan_files(listed: pa.Table, ledger: Ledger | None = None, **setup: Any) -> Plan:
    """A plan of real files, by default the first one."""
    values: dict[str, Any] = {"batch_s": 300.0, "run_id": "run", "hash_file": hash_file, "probe_file": probe_file}
    return make_plan(listed, ledger or Ledger(schema.FILES.empty_table()), PlanSetup(**(values | setup)))


def plan_of(listed: pa.Table, ledger: Ledger, disk: Disk, batch_s: float = 1.0, **setup: Any) -> Plan:
    """A plan of made-up files."""
    setup |= {"batch_s": batch_s, "hash_file": disk.hash_file, "probe_file": disk.probe_file}
    plan = plan_files(listed, ledger, **setup)
    assert plan.batches.schema == schema.PLANNED
    return plan


def contents(plan: Plan) -> list[list[str]]:
    return [audio["uris"] for audios in plan.batches["audios"].to_pylist() for audio in audios]
