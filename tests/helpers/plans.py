"""Made-up files, and plans of them."""

from collections import Counter
from typing import Any

import pyarrow as pa

from pipeline import schema
from pipeline.audio.source import hash_file, probe_file
from pipeline.errors import FileFailure
from pipeline.planning.decide import PlanSetup, make_plan
from pipeline.planning.ledger import Ledger
from pipeline.planning.plan import Plan
from pipeline.schema import Row
from tests.helpers.ledgers import content_hash


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
