"""The collector knows what is planned, and takes little memory for it."""

import tracemalloc

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from pipeline import schema
from pipeline.errors import FileFailure
from pipeline.grid import Grid
from pipeline.planning.batches import pack_alone
from pipeline.planning.file_rows import lost_rows
from pipeline.run.collector import Collector

FAILURE = FileFailure("decode", "crashed", "why")


def planned(counts: list[list[int]]) -> pa.Table:
    """PLANNED: for each list a batch, for each number in it a content that so many files hold."""
    rows = [
        {
            "batch_id": schema.make_batch_id("run", number),
            "audios": [
                {
                    "size_bytes": 1,
                    "estimated_s": 0.5 + k,
                    "uris": [f"/a/folder/{number}-{k}-{file}.wav" for file in range(n_files)],
                    "modified_ns": [1] * n_files,
                    "offsets": [None] * n_files,
                }
                for k, n_files in enumerate(contents)
            ],
        }
        for number, contents in enumerate(counts)
    ]
    return pa.Table.from_pylist(rows, schema=schema.PLANNED)


def make_collector(batches: pa.Table) -> Collector:
    return Collector(Grid(250, 10), 4, with_frames=True, planned=batches)


@given(counts=st.lists(st.lists(st.integers(1, 3), max_size=3), max_size=6), first=st.integers(0, 3), data=st.data())
def test_every_planned_batch_is_missed_with_all_its_files(
    counts: list[list[int]], first: int, data: st.DataObject
) -> None:
    whole = planned(counts)
    batches = pa.concat_tables([whole.slice(first, 2), whole.slice(first + 2)])  # several chunks
    collector = make_collector(batches)
    there = {schema.make_batch_id("run", number): counts[number] for number in range(first, len(counts))}
    assert {batch_id: planned.n_files for batch_id, planned in collector._planned.items()} == {
        batch_id: sum(contents) for batch_id, contents in there.items()
    }
    for batch_id, contents in there.items():
        assert collector.estimate(batch_id) == (sum(0.5 + k for k in range(len(contents))), 0.0, frozenset())
    assert collector.missing == set(batches["batch_id"].to_pylist())
    lost = data.draw(st.sets(st.sampled_from(sorted(collector.missing)))) if collector.missing else set[str]()
    audios = [row["audios"] for row in batches.to_pylist() if row["batch_id"] in lost]
    uris = [uri for group in audios for audio in group for uri in audio["uris"]]
    assert [row["uri"] for row in lost_rows(batches, lost, FAILURE)] == uris


def test_audio_that_is_examined_is_estimated_apart() -> None:
    [row] = planned([[1, 2, 1]]).to_pylist()
    row["audios"][1] |= {"look": 3, "stored_s": 9.0}
    collector = make_collector(pa.Table.from_pylist([row], schema=schema.PLANNED))
    examined = frozenset(row["audios"][1]["uris"])
    assert len(examined) == 2
    assert collector.estimate(row["batch_id"]) == (0.5 + 2.5, 1.5, examined)


def test_a_collector_takes_little_memory_for_each_planned_file() -> None:
    n_files = 20_000
    batches = planned([[1] * 200] * (n_files // 200))
    tracemalloc.start()
    collector = make_collector(batches)
    assert pack_alone(batches, set(), "run", 9).num_rows == 0
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(collector.missing) == n_files // 200
    assert peak_bytes / n_files < 50
