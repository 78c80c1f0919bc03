"""A vector index that is built in shards equals one that is built at once, and grows like it."""

from pathlib import Path
from typing import Any

import lance
import numpy as np
import pytest

from pipeline.index import vector_build, vector_index
from pipeline.index.handle import find_index
from pipeline.index.maintenance import optimize_index
from pipeline.index.vector_build import build_shard, join_shards, split_fragments, train_model
from pipeline.index.vector_index import Step
from pipeline.index.vector_upkeep import VectorUpkeep
from tests.helpers.building import make_here
from tests.helpers.vector_tables import ClipTable


def make_in_shards(table: Any, step: Step, tick: Any) -> None:
    assert step.n_partitions is not None
    place = {"uri": table.uri, "version": table.version}
    model = train_model(**place, n_partitions=step.n_partitions)
    segments = [
        [build_shard(**place, model=model, shard=shard) for shard in shards] for shards in split_fragments(table)
    ]
    assert sum(map(len, segments)) > 1
    join_shards(**place, segments=segments)


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ClipTable:
    monkeypatch.setattr(vector_index, "VECTORS_TO_INDEX", 300)
    monkeypatch.setattr(vector_build, "ROWS_PER_SHARD", 100)
    table = ClipTable(tmp_path)
    for number in range(5):
        table.run({str(number): 59})
    return table


def test_fragments_are_dealt_out_whole_and_in_order(table: ClipTable, monkeypatch: pytest.MonkeyPatch) -> None:
    clips = find_index(table.path).live.open("clips")
    fragments = [fragment.fragment_id for fragment in clips.get_fragments()]
    segments = split_fragments(clips)
    assert [number for shards in segments for shard in shards for number in shard.fragments] == fragments
    assert [[len(shard.fragments) for shard in shards] for shards in segments] == [[2], [1], [2]]
    monkeypatch.setattr(vector_build, "MOST_SEGMENTS", 2)
    assert [[len(shard.fragments) for shard in shards] for shards in split_fragments(clips)] == [[1, 1], [1, 2]]
    monkeypatch.setattr(vector_build, "ROWS_PER_SHARD", 200)
    assert [[shard.is_alone for shard in shards] for shards in split_fragments(clips)] == [[True], [True]]


@pytest.mark.parametrize(("most", "built"), [(1, (354,)), (2, (177, 177)), (4, (59, 118, 59, 118))])
def test_shards_become_segments_that_grow_like_any_other(
    table: ClipTable, monkeypatch: pytest.MonkeyPatch, most: int, built: tuple[int, ...]
) -> None:
    monkeypatch.setattr(vector_build, "MOST_SEGMENTS", most)
    upkeep = VectorUpkeep(make_in_shards)
    table.run({"5": 59}, vectors=upkeep)
    assert not upkeep.problems
    found = table.check()
    assert found is not None
    assert found.segments == built
    clips = find_index(table.path).live.open("clips")
    used = {segment.uuid for index in clips.describe_indices() for segment in index.segments}
    kept = {folder.name for folder in Path(table.path, "clips.lance", "_indices").iterdir()}
    in_older = {
        segment.uuid
        for version in range(1, clips.version)
        for index in clips.checkout_version(version).describe_indices()
        for segment in index.segments
    }
    assert kept == used | in_older
    table.run({"6": 40, "0": 7})
    table.run({"7": 30}, ("1",))
    assert table.check() is not None
    optimize_index(table.path, 0.0, vectors=VectorUpkeep(make_here))
    found = table.check()
    assert found is not None
    assert found.n_unindexed == 0


def test_an_index_is_replaced_in_one_version(table: ClipTable) -> None:
    table.run({"5": 59})
    uri = f"{table.path}/clips.lance"
    version = lance.dataset(uri).version
    make_in_shards(lance.dataset(uri), Step("clips", 3, 0, 354), None)
    after = lance.dataset(uri)
    assert after.version == version + 1
    assert len(after.get_ivf_model(vector_build.NAME).centroids) == 3


def test_both_ways_of_building_find_the_same(tmp_path: Path, table: ClipTable) -> None:
    table.run({"5": 59})
    uri, query = f"{table.path}/clips.lance", np.linspace(-1, 1, 8).astype(np.float32)
    near = {"column": "vector", "q": query, "k": 20, "nprobes": 100, "metric": "dot", "refine_factor": 20}
    at_once = lance.dataset(uri).to_table(columns=["clip_id"], nearest=near)
    make_in_shards(lance.dataset(uri), Step("clips", 19, 0, 354), None)
    assert lance.dataset(uri).to_table(columns=["clip_id"], nearest=near)["clip_id"] == at_once["clip_id"]
