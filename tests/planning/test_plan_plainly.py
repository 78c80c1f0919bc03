"""A plan is what a plain way of making it comes to."""

from typing import Any

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import schema
from pipeline.corpus.shards import Place, is_sized, shard_of
from pipeline.corpus.time_ranges import TimeRange
from pipeline.errors import FileFailure
from pipeline.planning.plan import Plan, make_plan
from pipeline.planning.request import RunRequest
from pipeline.schema import Row
from tests.helpers.ledgers import content_hash, make_ledger
from tests.helpers.plain_plan import PlainPlan, empty_ledger_row, plan_plainly

FILES = ("a.wav", "b.flac", "in/c.wav", "in/d.wav", "in/deep/e.wav", "t.tar#1.wav", "t.tar#2.wav")
ROWS = tuple(f"p.parquet#{number}" for number in range(3))
ALL = FILES + ROWS
RANGES = (TimeRange(), TimeRange(None, 1.0), TimeRange(1.0, None), TimeRange(0.5, 2.0))

contents = st.sampled_from(["", "aa", "ab", "ba", "aaa", "abb", "baa", "a" * 9])
states = st.sampled_from([("indexed", None), ("failed", "decode"), ("failed", "read"), ("deleted", None)])
requests = st.builds(
    RunRequest,
    check_content=st.booleans(),
    retry_failed=st.booleans(),
    reason=st.sampled_from([None, None, "reason"]),
    full=st.sampled_from([False, False, True]),
)


def offset_of(recording: str) -> int | None:
    return int(recording.split("#")[1].split(".")[0]) if "#" in recording else None


def list_file(recording: str, part: TimeRange, content: str, modified_ns: int) -> Row:
    uri, offset = f"{recording}{part}", offset_of(recording)
    size_bytes = len(content) if offset is None or is_sized(uri) else 7
    row = {"uri": uri, "size_bytes": size_bytes, "modified_ns": modified_ns, "offset": offset, "hides_files": None}
    return row | {"start_s": part.start_s, "end_s": part.end_s, "reason": None, "message": None}


@st.composite
def corpora(draw: st.DrawFn) -> tuple[dict[str, str], list[Row]]:
    """What is in each recording, and the LISTED rows; some recordings are listed as their ranges too, or only so."""
    recordings = draw(st.dictionaries(st.sampled_from(ALL), contents))
    rows: dict[str, Row] = {}
    for recording, content in recordings.items():
        parts = draw(st.sets(st.sampled_from(RANGES), min_size=1)) if recording in FILES[:5] else {TimeRange()}
        modified_ns = draw(st.integers(0, 2))  # 0: its store tells no time
        listed = [list_file(recording, part, content, modified_ns) for part in parts]
        rows |= {row["uri"]: row for row in listed}
    for uri in draw(st.sets(st.sampled_from(["in", "x.wav", "a.wav", "t.tar"]), max_size=2)) - rows.keys():
        why = {"reason": "unreadable", "message": "why", "hides_files": uri in ("in", "t.tar") or None}
        rows[uri] = list_file(uri, TimeRange(), "", 0) | why
    return recordings, [rows[uri] for uri in sorted(rows)]


@st.composite
def ledgers(draw: st.DrawFn, recordings: dict[str, str]) -> list[Row]:
    """Rows of ``files``: of what is there as it is, as it was, and of what is not."""
    rows = {}
    for recording in draw(st.sets(st.sampled_from((*ALL, "x.wav")))):
        content = draw(st.just(recordings[recording]) | contents) if recording in recordings else draw(contents)
        part = draw(st.sampled_from(RANGES)) if recording in FILES[:5] else TimeRange()
        status, stage = draw(states)
        uri = f"{recording}{part}"
        row = empty_ledger_row(uri, content_hash(content), str(part))
        if (status, stage) == ("failed", "read"):
            row |= {"content_hash": None, "audio_id": None, "file_id": schema.make_file_id(uri, None)}
        row |= {"status": status, "stage": stage, "reason": stage and draw(st.sampled_from(["reason", "unreadable"]))}
        row |= {"size_bytes": len(content), "modified_ns": draw(st.integers(0, 2)), "batch_id": "0" * 32}
        rows[uri] = row
    return list(rows.values())


def summarize(plan: Plan) -> PlainPlan:
    uris = [uri for uri, _, _ in plan.actions]
    assert uris == sorted(set(uris))
    return PlainPlan(
        actions={uri: (action, reason) for uri, action, reason in plan.actions},
        known={row["uri"]: (row["stage"], row["reason"], row["message"]) for row in plan.failed},
        stay={row["uri"]: row["modified_ns"] for row in [*plan.mtime_changed, *plan.metadata_changed]},
        copies={row["uri"]: (row["audio_id"], holder_id) for row, holder_id in plan.copies},
        deleted={row["uri"] for row in plan.deleted},
        batches=plan.batches["audios"].to_pylist(),
        n_unchanged=plan.n_unchanged,
        n_failed_before=plan.n_failed_before,
        n_to_decode=plan.n_to_decode,
        bytes_to_decode=plan.bytes_to_decode,
    )


@settings(deadline=None, max_examples=60)
@given(
    data=st.data(),
    corpus=corpora(),
    asked=requests | st.just(RunRequest()),
    broken=st.frozensets(st.sampled_from(ALL), max_size=2),
    batch_s=st.sampled_from([3e-5, 1e-4, 1.0, 20.0]),
)
def test_a_plan_is_what_a_plain_one_is(
    data: st.DataObject,
    corpus: tuple[dict[str, str], list[Row]],
    asked: RunRequest,
    broken: frozenset[str],
    batch_s: float,
) -> None:
    recordings, listed = corpus
    files = data.draw(ledgers(recordings))
    outdated = data.draw(st.frozensets(st.sampled_from(FILES), max_size=2)) & {row["uri"] for row in files}

    def read(recording: str) -> str:
        if recording in broken or recording not in recordings:
            raise FileFailure("read", "unreadable", "input/output error")
        return content_hash(recordings[recording])

    def probe(recording: str) -> str:
        read(recording)
        return recordings[recording][:1]

    def named(place: Any) -> str:
        if not isinstance(place, Place):
            return str(place)
        members = {(shard_of(uri), offset_of(uri)): uri for uri in ALL if "#" in uri}
        return members[place.shard, place.offset]

    plan = make_plan(
        pa.Table.from_pylist(listed, schema=schema.LISTED),
        make_ledger(*files),
        batch_s=batch_s,
        run_id="run",
        hash_file=lambda place: read(named(place)),
        probe_file=lambda place: probe(named(place)),
        request=asked,
        outdated=outdated,
    )
    assert summarize(plan) == plan_plainly(listed, files, read, probe, asked, outdated, batch_s)
