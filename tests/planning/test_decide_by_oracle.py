"""Of random corpora and ledgers, a plan is what an oracle expects that knows the guarantee and not the code."""

from typing import Any

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import schema
from pipeline.errors import FileFailure
from pipeline.planning.decide import PlanSetup, make_plan
from pipeline.planning.file_rows import empty_row
from pipeline.planning.plan import Plan
from pipeline.planning.request import RunRequest
from pipeline.schema import Row
from tests.helpers.plain_plan import PlainPlan, PlainPlanner, has_size, recording_of
from tests.helpers.plans import content_hash, make_ledger

FILES = ("a.wav", "b.flac", "in/c.wav", "in/d.wav", "in/deep/e.wav", "t.tar#1.wav", "t.tar#2.wav")
ROWS = tuple(f"p.parquet#{number}" for number in range(3))
ALL = FILES + ROWS
RANGES = {"": (None, None), "#t=,1": (None, 1.0), "#t=1": (1.0, None), "#t=0.5,2": (0.5, 2.0)}

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


def list_file(recording: str, part: str, content: str, modified_ns: int) -> Row:
    start_s, end_s = RANGES[part]
    row: Row = {"uri": f"{recording}{part}", "modified_ns": modified_ns, "offset": offset_of(recording)}
    row |= {"size_bytes": len(content) if has_size(row) else 7, "start_s": start_s, "end_s": end_s}
    return row | {"hides_files": None, "reason": None, "message": None}


@st.composite
def corpora(draw: st.DrawFn) -> tuple[dict[str, str], list[Row]]:
    """The content of each recording, and the LISTED rows; some recordings are listed as ranges, too, or only so."""
    recordings = draw(st.dictionaries(st.sampled_from(ALL), contents))
    rows: dict[str, Row] = {}
    for recording, content in recordings.items():
        parts = draw(st.sets(st.sampled_from(sorted(RANGES)), min_size=1)) if recording in FILES[:5] else {""}
        modified_ns = draw(st.integers(0, 2))  # 0: its store tells no time
        listed = [list_file(recording, part, content, modified_ns) for part in parts]
        rows |= {row["uri"]: row for row in listed}
    for uri in draw(st.sets(st.sampled_from(["in", "x.wav", "a.wav", "t.tar"]), max_size=2)) - rows.keys():
        reason = "unreadable" if uri in ("in", "t.tar") else draw(st.sampled_from(["unreadable", "vanished"]))
        why = {"reason": reason, "message": "why", "hides_files": uri in ("in", "t.tar") or None}
        rows[uri] = list_file(uri, "", "", 0) | why
    return recordings, [rows[uri] for uri in sorted(rows)]


@st.composite
def ledgers(draw: st.DrawFn, recordings: dict[str, str]) -> list[Row]:
    """Rows of ``files``: of files that are as they were, that have changed, and that are no longer there."""
    rows = {}
    for recording in draw(st.sets(st.sampled_from((*ALL, "x.wav")))):
        content = draw(st.just(recordings[recording]) | contents) if recording in recordings else draw(contents)
        part = draw(st.sampled_from(sorted(RANGES))) if recording in FILES[:5] else ""
        (status, stage), uri = draw(states), f"{recording}{part}"
        row = empty_row(uri, schema.make_audio_id(content_hash(content), part)) | {
            "content_hash": content_hash(content)
        }
        if (status, stage) == ("failed", "read"):
            row = empty_row(uri, None)
        reasons = ["reason", "unreadable"] if stage == "read" else ["reason"]
        row |= {"status": status, "stage": stage, "reason": stage and draw(st.sampled_from(reasons))}
        row |= {"size_bytes": len(content), "modified_ns": draw(st.integers(0, 2)), "batch_id": "0" * 32}
        rows[uri] = row
    return list(rows.values())


class Disk:
    """The made-up recordings; notes which ones are hashed."""

    def __init__(self, recordings: dict[str, str], broken: frozenset[str]) -> None:
        self.recordings, self.broken = recordings, broken
        self.hashed: list[str] = []

    def hash_file(self, place: Any) -> str:
        recording = self._name(place)
        self.hashed.append(recording)
        return content_hash(self._read(recording))

    def probe_file(self, place: Any) -> str:
        return self._read(self._name(place))[:1]

    def _read(self, recording: str) -> str:
        if recording in self.broken:
            raise FileFailure("read", "unreadable", "input/output error")
        return self.recordings[recording]

    @staticmethod
    def _name(place: Any) -> str:
        """The recording at a path, or at a ``Place`` in a shard."""
        if isinstance(place, str):
            return place
        [name] = [uri for uri in ALL if uri.split("#")[0] == place.shard and offset_of(uri) == place.offset]
        return name


def summarize(plan: Plan, files: list[Row], hashed: list[str]) -> PlainPlan:
    uris = [uri for uri, _, _ in plan.actions]
    groups = [audio["uris"] for batch in plan.batches.to_pylist() for audio in batch["audios"]]
    uri_of = {row["file_id"]: row["uri"] for row in files}
    assert uris == sorted(set(uris))
    assert len(hashed) == len(set(hashed))
    assert len(groups) == len(set(map(tuple, groups)))
    assert {row["uri"] for row, _ in plan.copies} | {uri for group in groups for uri in group} <= set(uris)
    assert plan.holders == {uri_of[holder_id]: holder_id for _, holder_id in plan.copies}
    assert plan.n_to_decode == sum(map(len, groups))
    return PlainPlan(
        actions={uri: (action, reason) for uri, action, reason in plan.actions},
        failed={row["uri"]: (row["stage"], row["reason"], row["message"]) for row in plan.failed},
        rewritten={row["uri"]: row["modified_ns"] for row in [*plan.mtime_changed, *plan.metadata_changed]},
        copies={row["uri"]: uri_of[holder_id] for row, holder_id in plan.copies},
        decoded=set(map(tuple, groups)),
        deleted={row["uri"] for row in plan.deleted},
        removed=set(plan.removed.values()),
        hashed=set(hashed),
        n_unchanged=plan.n_unchanged,
        n_failed_before=plan.n_failed_before,
    )


def check_audios(plan: Plan, listed: list[Row], disk: Disk) -> None:
    """Each AUDIO is as its files are listed, with its hash if that is known; a recording counts once as bytes."""
    rows, size_of = {row["uri"]: row for row in listed}, dict[str, int]()
    for audio in [audio for batch in plan.batches.to_pylist() for audio in batch["audios"]]:
        files = [rows[uri] for uri in audio["uris"]]
        for name, column in (("modified_ns", "modified_ns"), ("offset", "offsets")):
            assert audio[column] == [row[name] for row in files]
        for row in files:
            recording = recording_of(row)
            assert {name: audio[name] for name in ("start_s", "end_s")} == {
                name: row[name] for name in ("start_s", "end_s")
            }
            assert audio["content_hash"] in (None, content_hash(disk.recordings[recording]))
            assert (audio["content_hash"] is None) == (recording not in set(disk.hashed) - disk.broken)
        sizes = [row["size_bytes"] for row in files if has_size(row)] or [files[0]["size_bytes"]]
        assert audio["size_bytes"] in sizes
        size_of[recording_of(files[0])] = sizes[0]
    assert plan.bytes_to_decode == sum(size_of.values())


@settings(deadline=None, max_examples=80)
@given(
    data=st.data(),
    corpus=corpora(),
    asked=requests | st.just(RunRequest()),
    broken=st.frozensets(st.sampled_from(ALL), max_size=2),
)
def test_a_plan_is_what_the_oracle_expects(
    data: st.DataObject, corpus: tuple[dict[str, str], list[Row]], asked: RunRequest, broken: frozenset[str]
) -> None:
    recordings, listed = corpus
    files = data.draw(ledgers(recordings))
    outdated = data.draw(st.frozensets(st.sampled_from(FILES), max_size=2)) & {row["uri"] for row in files}
    disk = Disk(recordings, broken)
    setup = PlanSetup(300.0, "run", disk.hash_file, disk.probe_file, asked)
    plan = make_plan(pa.Table.from_pylist(listed, schema=schema.LISTED), make_ledger(*files), setup, outdated)
    known = {recording: (content_hash(content), content[:1]) for recording, content in recordings.items()}
    expected = PlainPlanner(listed, files, known, broken, asked, outdated).make()
    assert summarize(plan, files, disk.hashed) == expected
    check_audios(plan, listed, disk)
