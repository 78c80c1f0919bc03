"""Vector indexes built by Ray tasks."""

import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

import lance
import pytest

from pipeline.index import vector_build, vector_index
from pipeline.index.limited import Limits, Unfinished, call_limited
from pipeline.index.vector_upkeep import VectorUpkeep, find_limits
from pipeline.run import vector_builds
from pipeline.run.vector_builds import build_on_ray, make_on_ray
from tests.helpers.processes import run_python
from tests.helpers.protocol import Died
from tests.helpers.vector_tables import ClipTable

CLUSTER = """
import os, sys, time

folder = os.environ["RAY_TMPDIR"] = sys.argv[1]
os.makedirs(f"{folder}/ray")

import ray
from ray.cluster_utils import Cluster

from pipeline.index import vector_build, vector_index
from pipeline.index.vector_upkeep import VectorUpkeep
from pipeline.run import vector_builds
from tests.helpers.vector_tables import ClipTable

small = {"num_cpus": 1, "object_store_memory": 200_000_000}
cluster = Cluster(initialize_head=True, head_node_args={"temp_dir": folder, **small})
cluster.add_node(**small)
ray.init(address=cluster.address)
vector_build.ROWS_PER_SHARD, vector_builds.ROWS_TO_SPREAD, vector_builds.SHARD_BYTES = 100, 300, 10**8
vector_index.VECTORS_TO_INDEX = 300
for place in sys.argv[2:4]:  # on the disk, and in a store without TLS, of which the workers have not heard
    table = ClipTable(place)
    for number in range(5):
        table.run({str(number): 59})
    upkeep = VectorUpkeep(vector_builds.make_on_ray)
    table.run({"5": 59}, vectors=upkeep)
    print([done.done for done in upkeep.done], upkeep.problems, table.check())

table = ClipTable(sys.argv[4])
vector_builds.SHARD_BYTES, vector_builds.PATIENCE_S = 10**12, 1.0  # no node has so much
upkeep = VectorUpkeep(vector_builds.make_on_ray)
began = time.monotonic()
table.run({"a": 400}, vectors=upkeep)
print(upkeep.problems["clips"])
print("in time:", time.monotonic() - began < 30)
ray.shutdown()
cluster.shutdown()
"""
"""A cluster of two nodes, which builds two indexes, and cannot build a third one."""


@pytest.fixture
def table(ray_session: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ClipTable:
    monkeypatch.setattr(vector_build, "ROWS_PER_SHARD", 100)
    monkeypatch.setattr(vector_build, "MOST_SEGMENTS", 1)
    monkeypatch.setattr(vector_builds, "SHARD_BYTES", 10**8)
    table = ClipTable(tmp_path)
    for number in range(5):
        table.run({str(number): 59})
    monkeypatch.setattr(vector_index, "VECTORS_TO_INDEX", 300)
    return table


def test_ray_tasks_build_an_index(table: ClipTable) -> None:
    ticks = list[Any]()

    def make(clips: Any, step: vector_index.Step, tick: Any) -> None:
        assert step.n_partitions is not None
        build_on_ray(clips, step.n_partitions, find_limits(clips, step), lambda: ticks.append(1))

    dead = Path(table.path, "clips.lance", "_indices", f"{vector_build._PART}-4a5b-8c9d-0123456789ab")
    dead.mkdir()
    (dead / "index.idx").write_bytes(b"of a build that was killed")
    upkeep = VectorUpkeep(make)
    table.run({"5": 59}, vectors=upkeep)
    assert not upkeep.problems
    found = table.check()
    assert found is not None
    assert found.segments == (354,)
    assert ticks
    assert not dead.exists()


def test_a_build_that_takes_too_long_commits_nothing(table: ClipTable) -> None:
    clips = lance.dataset(f"{table.path}/clips.lance")
    with pytest.raises(Unfinished, match="stopped"):
        build_on_ray(clips, 3, Limits(0.0, 10**9))
    assert lance.dataset(clips.uri).version == clips.version


class Joining:
    """Notes the limits of a call, and makes it, or dies instead."""

    def __init__(self, dies: bool) -> None:
        self._dies, self.limits = dies, list[Limits]()

    def __call__(self, function: Any, values: dict[str, Any], limits: Limits, *others: Any) -> None:
        self.limits.append(limits)
        if self._dies:
            raise Died
        call_limited(function, values, limits, *others)


def test_joining_gets_as_much_time_as_the_tasks(table: ClipTable) -> None:
    """What these leave may be a second."""
    clips, joining, limits = lance.dataset(f"{table.path}/clips.lance"), Joining(dies=False), Limits(60.0, 10**10)
    build_on_ray(clips, 3, limits, join=joining)
    assert joining.limits == [limits]
    assert lance.dataset(clips.uri).version == clips.version + 1


@pytest.mark.parametrize("moment", ["while tasks run", "before they are joined"])
def test_the_next_build_follows_one_whose_driver_died(table: ClipTable, moment: str) -> None:
    def die() -> None:
        raise Died

    clips = lance.dataset(f"{table.path}/clips.lance")
    tick = die if moment == "while tasks run" else lambda: None
    with pytest.raises(Died):
        build_on_ray(clips, 3, Limits(60.0, 10**10), tick, Joining(dies=True))
    assert lance.dataset(clips.uri).version == clips.version
    indexes = Path(table.path, "clips.lance", "_indices")
    assert moment == "while tasks run" or len(list(indexes.glob(f"{vector_build._PART}*"))) == 3
    upkeep = VectorUpkeep(make_on_ray)
    table.run({"5": 59}, vectors=upkeep)
    assert not upkeep.problems
    assert table.check() is not None
    assert not list(indexes.glob(f"{vector_build._PART}*"))


def test_a_task_that_fails_is_told_in_one_line(table: ClipTable) -> None:
    clips = lance.dataset(f"{table.path}/clips.lance")
    for file in Path(table.path, "clips.lance", "data").iterdir():
        file.unlink()
    with pytest.raises(Unfinished, match=r"^\w+: [^\n]*[Nn]ot found[^\n]*$"):
        build_on_ray(clips, 3, Limits(60.0, 10**9))


def test_one_machine_builds_by_itself(table: ClipTable) -> None:
    upkeep = VectorUpkeep(make_on_ray)
    table.run({"5": 59}, vectors=upkeep)
    assert not upkeep.problems
    assert table.check() is not None


@pytest.mark.slow
def test_a_cluster_of_several_nodes_builds_large_indexes(bucket: str, tmp_path: Path) -> None:
    folder = tempfile.mkdtemp(prefix="earshot-ray-", dir="/tmp")  # paths of sockets must be short
    places = (tmp_path / "a", f"{bucket}/{tmp_path.name}/b", tmp_path / "c")
    done = run_python("-c", CLUSTER, folder, *places, RAY_AUTH_MODE="disabled")
    shutil.rmtree(folder, ignore_errors=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("['built'] {} VectorIndex(n_rows=354, segments=(59, 118, 59, 118), ") == 2, done.stdout
    assert re.search(
        r"searches scan: no node of the cluster has 1\.0 TB of memory for Ray's tasks, the largest has \d+\.\d [MG]B"
        r" \(`ray start --memory`\); `earshot optimize` builds the index on one machine, without Ray\n",
        done.stdout,
    )
    assert "in time: True\n" in done.stdout
