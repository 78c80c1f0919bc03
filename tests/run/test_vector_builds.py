"""Runs that die while they build vector indexes, and clusters that cannot build any."""

from pathlib import Path
from typing import Any

import pytest

from pipeline.index import vector_build, vector_index
from pipeline.index.handle import find_index
from pipeline.index.limited import Limits, call_limited
from pipeline.index.maintenance import optimize_index
from pipeline.index.search_settings import ALL_PARTITIONS
from pipeline.index.vector_build import NAME
from pipeline.index.vector_index import Step
from pipeline.index.vector_upkeep import Make, VectorUpkeep
from pipeline.index.verify import verify_index
from pipeline.run.driver import index_corpus
from pipeline.run.vector_builds import SHARD_BYTES, find_lack
from pipeline.search import audit_index
from tests.helpers import dying_build
from tests.helpers.building import make_here
from tests.helpers.contents import KnownCorpus, live
from tests.helpers.protocol import Died, Dying, edit, fill
from tests.helpers.runs import WideEncoder, in_place

TABLES = ("clips", "pools")

DEATHS = [("build shard", 1), ("build shard", 2), ("join shards", 1), ("commit shards", 1), ("delete shards", 1)]
"""Steps of a build, and how often a run comes to them before it dies."""


@pytest.fixture
def corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> KnownCorpus:
    """Files whose clips and pools make several shards. Their index is made with the first run of a test."""
    monkeypatch.setattr(vector_index, "VECTORS_TO_INDEX", 3)
    monkeypatch.setattr(vector_build, "ROWS_PER_SHARD", dying_build.ROWS_PER_SHARD)
    monkeypatch.setattr(vector_build, "MOST_SEGMENTS", dying_build.MOST_SEGMENTS)
    monkeypatch.setattr(vector_index, "PARTITIONS", 500)  # a small table has several
    monkeypatch.setattr(audit_index, "N_QUESTIONS", 3)
    corpus = KnownCorpus(tmp_path, store={"checkpoint_rows": 1})
    fill(corpus)
    return corpus


def run(corpus: KnownCorpus, make: Make) -> VectorUpkeep:
    vectors = VectorUpkeep(make)
    index_corpus(corpus.config, stages=in_place(WideEncoder()), vectors=vectors)
    return vectors


def segments_on_disk(corpus: KnownCorpus, name: str) -> set[str]:
    return {folder.name for folder in Path(corpus.config.into, f"{name}.lance", "_indices").glob("*")}


def segments_in_use(table: Any) -> set[str]:
    """Of all indexes of all versions of a table."""
    versions = [table.checkout_version(each["version"]) for each in table.versions()]
    return {segment.uuid for each in versions for index in each.describe_indices() for segment in index.segments}


def check_one_index(corpus: KnownCorpus) -> None:
    """There is one vector index for each table, which covers all rows; shards of dead builds are deleted."""
    into = corpus.config.into
    assert live(into) == corpus.expected()
    assert verify_index(into) == []
    for name in TABLES:
        table = find_index(into).live.open(name)
        assert [index.name for index in table.describe_indices()].count(NAME) == 1
        found = vector_index.read_index(table)
        assert found is not None
        assert (found.n_indexed, found.n_unindexed) == (table.count_rows(), 0)
        parts = {segment for segment in segments_on_disk(corpus, name) if segment.startswith(vector_build._PART)}
        assert not parts
        assert segments_in_use(table) <= segments_on_disk(corpus, name)


@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize(("step", "nth"), DEATHS)
def test_the_next_run_builds_what_a_dead_one_left(corpus: KnownCorpus, name: str, step: str, nth: int) -> None:
    for _ in range(2):
        with pytest.raises(Died):
            run(corpus, Dying(name, step, nth))
        assert vector_index.read_index(find_index(corpus.config.into).live.open(name)) is None
    assert (step, nth) == DEATHS[0] or any(
        segment.startswith(vector_build._PART) for segment in segments_on_disk(corpus, name)
    )
    assert not run(corpus, make_here).problems
    check_one_index(corpus)


@pytest.mark.parametrize(("step", "nth"), DEATHS)
def test_the_former_index_goes_on_where_a_run_dies_while_it_trains_anew(
    corpus: KnownCorpus, step: str, nth: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(corpus, make_here)
    monkeypatch.setattr(vector_index, "GROWTH_TO_TRAIN", 1)
    for number in range(6):
        corpus.put(f"more-{number}.wav", number)
    with pytest.raises(Died):
        run(corpus, Dying("clips", step, nth))
    table = find_index(corpus.config.into).live.open("clips")
    found = vector_index.read_index(table)
    assert found is not None
    assert found.n_unindexed > 0
    assert vector_index.find_damage(table) is None
    assert [done.done for done in run(corpus, make_here).done if done.table == "clips"] == ["built"]
    check_one_index(corpus)


@pytest.mark.parametrize(("step", "nth"), DEATHS)
def test_a_run_outlives_a_build_that_is_killed(corpus: KnownCorpus, step: str, nth: int) -> None:
    """Killed after its commit, it has built the index."""

    def make(table: Any, planned: Step, tick: Any) -> None:
        values = {"uri": table.uri, "version": table.version, "n_partitions": planned.n_partitions}
        values |= {"n_merged": planned.n_merged, "step": step, "nth": nth}
        call_limited(dying_build.make_step, values, Limits(60.0, 10**10))

    problems = run(corpus, make).problems
    assert live(corpus.config.into) == corpus.expected()
    assert verify_index(corpus.config.into) == []
    if step == "delete shards":
        assert not problems
    else:
        assert problems.keys() == {*TABLES}
        assert all(": its process was killed by SIGKILL" in problem for problem in problems.values())
    edit(corpus)
    run(corpus, make_here)
    optimize_index(corpus.config.into, 0.0, vectors=VectorUpkeep(make_here))
    check_one_index(corpus)


@pytest.fixture(params=[0, 1_000], ids=["extended", "merged"])
def grown(request: pytest.FixtureRequest, corpus: KnownCorpus, monkeypatch: pytest.MonkeyPatch) -> KnownCorpus:
    """The corpus with an index of some of its files. The next run makes a segment of its own, or merges both."""
    monkeypatch.setattr(vector_index, "GROWTH_TO_TRAIN", 1_000)
    monkeypatch.setattr(vector_index, "MERGE_RATIO", request.param)
    run(corpus, make_here)
    for number in range(6):
        corpus.put(f"more-{number}.wav", number)
    return corpus


def check_former_index(corpus: KnownCorpus, name: str) -> None:
    table = find_index(corpus.config.into).live.open(name)
    found = vector_index.read_index(table)
    assert found is not None
    assert found.n_unindexed > 0
    assert vector_index.find_damage(table, ALL_PARTITIONS) is None


@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize("step", ["extend index", "end extension"])
def test_the_former_index_goes_on_where_a_run_dies_while_it_extends(grown: KnownCorpus, name: str, step: str) -> None:
    for _ in range(2):
        with pytest.raises(Died):
            run(grown, Dying(name, step, 1))
        check_former_index(grown, name)
    vectors = run(grown, make_here)
    assert not vectors.problems
    assert "extended" in [done.done for done in vectors.done if done.table == name]
    check_one_index(grown)


@pytest.mark.parametrize("step", ["extend index", "write index", "end extension"])
def test_a_run_outlives_an_extension_that_is_killed(grown: KnownCorpus, step: str) -> None:
    def make(table: Any, planned: Step, tick: Any) -> None:
        values = {"uri": table.uri, "version": table.version, "n_partitions": planned.n_partitions}
        values |= {"n_merged": planned.n_merged, "step": step, "nth": 1}
        call_limited(dying_build.make_step, values, Limits(60.0, 10**10))

    problems = run(grown, make).problems
    assert live(grown.config.into) == grown.expected()
    assert verify_index(grown.config.into) == []
    if step == "end extension":
        assert not problems
    else:
        assert step == "write index" or problems.keys() == {*TABLES}  # a write may end before the kill
        assert all("could not be extended; it stays as it was" in problem for problem in problems.values())
        for name in problems:
            check_former_index(grown, name)
    run(grown, make_here)
    optimize_index(grown.config.into, 0.0, vectors=VectorUpkeep(make_here))
    check_one_index(grown)


def test_shards_of_a_build_that_died_after_its_publication_are_deleted_by_the_next_step(corpus: KnownCorpus) -> None:
    """As after a kill in the middle of the deletion."""
    run(corpus, make_here)
    for name in TABLES:
        dead = Path(corpus.config.into, f"{name}.lance", "_indices", f"{vector_build._PART}-4a5b-8c9d-0123456789ab")
        dead.mkdir()
        (dead / "index.idx").write_bytes(b"dead")
    edit(corpus)
    run(corpus, make_here)
    optimize_index(corpus.config.into, 0.0, vectors=VectorUpkeep(make_here))
    check_one_index(corpus)


# --- clusters ---------------------------------------------------------------------------------------------------------


def node(cores: float = 4.0, memory: float = 10.0 * SHARD_BYTES, alive: bool = True) -> dict[str, Any]:
    return {"Alive": alive, "Resources": {"CPU": cores, "memory": memory, "node:10.0.0.1": 1.0}}


def test_a_cluster_with_a_node_that_is_large_enough_lacks_nothing() -> None:
    assert find_lack([node(cores=0), node(memory=1e9), node()]) is None


@pytest.mark.parametrize(
    ("nodes", "said"),
    [
        (
            [node(memory=1.2e9), node(cores=0), node(alive=False)],
            "no node of the cluster has 2.0 GB of memory for Ray's tasks, the largest has 1.2 GB"
            " (`ray start --memory`)",
        ),
        ([node(cores=0.5), {"Alive": True, "Resources": {}}], "no node of the cluster has a core for Ray's tasks"),
        ([], "no node of the cluster has a core for Ray's tasks"),
    ],
)
def test_note_says_what_a_cluster_lacks(nodes: list[dict[str, Any]], said: str) -> None:
    assert find_lack(nodes) == said
