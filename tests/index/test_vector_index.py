"""Vector indexes are built, extended, merged and trained anew; every live row is in them once, and no other."""

import datetime as dt
from pathlib import Path
from typing import Any

import lance
import numpy as np
import pytest

from pipeline.errors import EarshotError
from pipeline.index import journal, maintenance, vector_index
from pipeline.index.changes import Changes
from pipeline.index.handle import find_index
from pipeline.index.limited import Limits, Unfinished, call_limited
from pipeline.index.maintenance import optimize, optimize_index
from pipeline.index.memory import find_available
from pipeline.index.repair import mark_damaged, restore_index
from pipeline.index.search_settings import ALL_PARTITIONS
from pipeline.index.vector_build import NAME, make_step
from pipeline.index.vector_index import (
    MAX_SEGMENTS,
    Step,
    count_partitions,
    count_trained,
    find_damage,
    plan_step,
    read_index,
)
from pipeline.index.vector_upkeep import (
    LEAST_S,
    SECONDS_A_NUMBER,
    Make,
    VectorUpkeep,
    find_limits,
    make_limited,
)
from pipeline.index.verify import verify_index
from pipeline.index.writer import Writer
from tests.helpers import endless
from tests.helpers.building import make_here
from tests.helpers.damage import damage_partition, damage_vector_index, fail_as_engine, largest_file
from tests.helpers.protocol import Died
from tests.helpers.vector_tables import ClipTable, nearest

AT_ONCE = dt.timedelta(0)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vector_index, "VECTORS_TO_INDEX", 100)
    monkeypatch.setattr(vector_index, "PARTITIONS", 500)  # a small table has several


def clips(table: ClipTable) -> Any:
    return find_index(table.path).live.open("clips")


def find_bad_indexes(table: ClipTable) -> list[str]:
    """What ``verify`` says of the indexes; the made-up rows do not fit together."""
    return [f"{each.table}: {each.what}" for each in verify_index(table.path) if "index on" in each.what]


# --- counts -----------------------------------------------------------------------------------------------------------


def test_the_number_of_partitions_tells_for_how_many_rows_they_were_trained() -> None:
    sizes = [int(10_000 * 1.3**power) for power in range(60)]
    counts = [count_partitions(n_rows) for n_rows in sizes]
    assert counts == sorted(counts)
    for n_rows, n_partitions in zip(sizes, counts, strict=True):
        assert 0.7 < count_trained(n_partitions) / n_rows < 1.4


def test_building_takes_time_proportional_to_the_rows() -> None:
    assert count_partitions(10_000) == 50
    assert count_partitions(10**6) == 500
    assert count_partitions(10**9) < 700


# --- building and growing ---------------------------------------------------------------------------------------------


def test_an_index_is_built_once_there_are_enough_rows(tmp_path: Path) -> None:
    table = ClipTable(tmp_path)
    table.run({"a": 60})
    assert table.check() is None
    table.run({"b": 60})
    found = table.check()
    assert found is not None
    assert found.segments == (120,)
    assert found.n_bytes > 0
    assert abs(found.built_at - dt.datetime.now(dt.UTC)) < dt.timedelta(minutes=10)


def test_a_build_in_a_process_of_its_own_makes_one_version(tmp_path: Path) -> None:
    table = ClipTable(tmp_path)
    upkeep = VectorUpkeep()
    table.run({"a": 120}, vectors=upkeep)
    assert [(done.table, done.done, done.n_rows) for done in upkeep.done] == [("clips", "built", 120)]
    table.run({"b": 40}, vectors=upkeep)
    assert [done.done for done in upkeep.done] == ["built", "extended"]
    found = table.check()
    assert found is not None
    assert found.n_unindexed == 0


def test_few_new_rows_are_left_out_until_the_index_is_optimized(tmp_path: Path) -> None:
    table = ClipTable(tmp_path)
    table.run({"a": 200})
    table.run({"b": 5})
    found = table.check()
    assert found is not None
    assert (found.n_indexed, found.n_unindexed) == (200, 5)
    assert optimize_index(table.path, vectors=VectorUpkeep(make_here)).vector_indexes[0].done == "extended"
    found = table.check()
    assert found is not None
    assert found.n_unindexed == 0


def test_exact_order_where_everything_is_read_and_refined(tmp_path: Path) -> None:
    table = ClipTable(tmp_path)
    table.run({"a": 300})
    table.run({"b": 40}, delete=())
    query = np.random.default_rng(5).standard_normal(8).astype(np.float32)
    ids = list(table.vectors)
    best = [ids[at] for at in np.argsort(-np.stack([table.vectors[i] for i in ids]).astype(np.float32) @ query)[:10]]
    near = {"column": "vector", "q": query, "k": 10, "nprobes": 10**6, "metric": "dot", "refine_factor": 50}
    assert clips(table).to_table(columns=["clip_id"], nearest=near)["clip_id"].to_pylist() == best


def test_segments_stay_few_and_partitions_are_trained_anew(tmp_path: Path) -> None:
    table = ClipTable(tmp_path)
    table.run({"0": 100})
    built, most = list[int](), 0
    for number in range(1, 30):
        upkeep = VectorUpkeep(make_here)
        table.run({str(number): 13}, vectors=upkeep)
        built += [len(table.vectors) for done in upkeep.done if done.done == "built"]
        found = table.check()
        assert found is not None
        most = max(most, len(found.segments))
        assert found.n_unindexed <= 0.05 * found.n_rows
    assert 2 <= most <= MAX_SEGMENTS
    assert len(built) == 1
    assert built[0] == pytest.approx(400, rel=0.15)


def test_segments_are_merged_before_fragments_are_compacted(tmp_path: Path) -> None:
    table = ClipTable(tmp_path)
    table.run({"a": 300})
    for number in range(6):
        table.run({f"b{number}": 20})
    optimize(Writer(table.path, "f" * 32), older_than=AT_ONCE, vectors=VectorUpkeep(make_here))
    found = table.check()
    assert found is not None
    assert len(clips(table).get_fragments()) <= len(found.segments) <= 2


def test_extending_the_other_indexes_leaves_this_one_alone(tmp_path: Path) -> None:
    table = ClipTable(tmp_path)
    table.run({"a": 300})
    [before] = [index for index in clips(table).describe_indices() if index.name == NAME]
    table.run({"b": 3})
    [after] = [index for index in clips(table).describe_indices() if index.name == NAME]
    assert [segment.uuid for segment in after.segments] == [segment.uuid for segment in before.segments]
    assert find_bad_indexes(table) == []


@pytest.mark.parametrize("seed", range(6))
def test_each_live_row_is_found_once_after_any_steps(tmp_path: Path, seed: int) -> None:
    """Files come, are replaced and leave; indexes are extended and merged, fragments compacted, states restored."""
    table, rng = ClipTable(tmp_path, seed), np.random.default_rng(seed)
    states: dict[int, tuple[Any, Any]] = {}
    for number in range(25):
        if states and rng.random() < 0.15:
            seq = list(states)[-int(rng.integers(1, 3)) :][0]
            restore_index(table.path, seq)
            table.rows, table.vectors = map(dict, states[seq])
            table.check()
        n_new = int(rng.integers(1, 4))
        put = {f"{rng.integers(14)}": int(rng.integers(1, 80)) for _ in range(n_new)}
        gone = tuple(uri for uri in table.rows if uri not in put and rng.random() < 0.15)
        match rng.integers(4):
            case 0:
                writer = Writer(table.path, f"{number:032x}")
                table.commit(writer, put, gone)
                table.check()
                optimize(writer, older_than=AT_ONCE, vectors=VectorUpkeep(make_here))
            case 1:
                writer = Writer(table.path, f"{number:032x}")
                table.commit(writer, put, gone)
            case _:
                table.run(put, gone)
        table.check()
        states[journal.read_published(table.path).seq] = dict(table.rows), dict(table.vectors)
    optimize_index(table.path, vectors=VectorUpkeep(make_here))
    assert find_bad_indexes(table) == []
    found = table.check()
    assert found is not None
    assert found.n_unindexed == 0


def test_a_dimension_that_the_engine_cannot_index_is_told_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lance.write_dataset(_of_dimension(12), journal.table_uri(tmp_path, "clips"))
    for n_rows, problems in (
        (201, {}),
        (
            200,
            {
                "clips": "`clips` can have no vector index, searches scan: its vectors have 12 numbers, and the engine"
                " indexes multiples of 8"
            },
        ),
    ):
        monkeypatch.setattr(vector_index, "VECTORS_TO_INDEX", n_rows)
        upkeep = VectorUpkeep(breaks)
        for _ in range(2):
            upkeep.update(Changes(tmp_path, {"clips": 1}, lambda step: None))
        assert upkeep.problems == problems


def test_a_dimension_that_the_engine_cannot_index_is_scanned(tmp_path: Path) -> None:
    lance.write_dataset(_of_dimension(12), tmp_path / "t")
    assert plan_step("clips", lance.dataset(tmp_path / "t")) is None
    lance.write_dataset(_of_dimension(16), tmp_path / "u")
    assert plan_step("clips", lance.dataset(tmp_path / "u")) is not None
    assert plan_step("frames", lance.dataset(tmp_path / "u")) is None


def _of_dimension(dimension: int, vectors: Any = None) -> Any:
    import pyarrow as pa

    if vectors is None:
        vectors = np.random.default_rng(0).standard_normal((200, dimension))
    column = pa.FixedSizeListArray.from_arrays(pa.array(vectors.astype(np.float16).reshape(-1)), dimension)
    return pa.table({"clip_id": [str(number) for number in range(len(vectors))], "vector": column})


@pytest.mark.parametrize("norm", [1.0, 100.0, 1_000.0, 10_000.0])
def test_long_vectors_are_indexed(tmp_path: Path, norm: float) -> None:
    """In float16, sums of these overflow: the engine's own training fails, or never ends (lance issue 8607)."""
    vectors = np.random.default_rng(0).standard_normal((2_000, 32)) + 3
    vectors *= norm / np.linalg.norm(vectors, axis=1).mean()
    uri = str(tmp_path / "t")
    lance.write_dataset(_of_dimension(32, vectors), uri)
    call_limited(make_step, {"uri": uri, "version": 1, "n_partitions": 8, "n_merged": 0}, Limits(60, 10**9))
    table = lance.dataset(uri)
    near = {"column": "vector", "q": np.ones(32, np.float32), "k": 3_000, "nprobes": 8, "metric": "dot"}
    assert table.to_table(columns=["clip_id"], nearest=near, fast_search=True).num_rows == 2_000


@pytest.mark.parametrize("n_different", [1, 5])
def test_many_equal_vectors_are_indexed(tmp_path: Path, n_different: int) -> None:
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((n_different, 8))[rng.integers(n_different, size=40_000)]
    lance.write_dataset(_of_dimension(8, vectors), tmp_path / "t")
    table = lance.dataset(tmp_path / "t")
    make_here(table, Step("clips", 300, 0, 40_000))
    table = lance.dataset(tmp_path / "t")
    found = read_index(table)
    assert found is not None
    assert found.n_indexed == 40_000
    assert len(table.get_ivf_model(NAME).centroids) == 300  # or it would be trained anew at each run
    assert len(nearest(table, np.ones(8, np.float32), fast_search=True)) == 40_000


def test_a_step_may_take_ten_times_what_was_measured_and_a_share_of_the_memory(tmp_path: Path) -> None:
    n_rows, dimension, measured_s = 10**6, 1_024, (25, 46)
    assert 8 * measured_s[1] <= SECONDS_A_NUMBER * n_rows * dimension <= 20 * measured_s[0]
    table = ClipTable(tmp_path)
    table.run({"a": 150})
    limits = find_limits(clips(table), Step("clips", 500, 0, n_rows))
    assert limits.seconds == pytest.approx(LEAST_S + SECONDS_A_NUMBER * n_rows * 8)
    assert limits.available == pytest.approx(find_available(), rel=0.5)
    assert limits.n_bytes > 4e9


# --- failures ---------------------------------------------------------------------------------------------------------


def never_ends(table: Any, step: Step, tick: Any) -> None:
    call_limited(endless.spin, {"path": "/dev/null"}, Limits(0.5, 10**9))


def breaks(table: Any, step: Step, tick: Any) -> None:
    call_limited(endless.fail, {"message": "no\nluck"}, Limits(30.0, 10**9))


def commits_and_hangs(table: Any, step: Step, tick: Any) -> None:
    make_here(table, step)
    raise Unfinished("stopped after 1 s")


@pytest.mark.parametrize(("make", "why"), [(never_ends, "stopped after 0 s"), (breaks, "ValueError: no luck")])
def test_a_build_that_fails_costs_one_line(tmp_path: Path, make: Make, why: str) -> None:
    table = ClipTable(tmp_path)
    upkeep = VectorUpkeep(make)
    table.run({"a": 150}, vectors=upkeep)
    [problem] = upkeep.problems.values()
    assert problem.startswith("the vector index of `clips` could not be built, searches scan: ")
    assert why in problem
    assert "\n" not in problem
    assert table.check() is None
    optimized = optimize_index(table.path, vectors=upkeep)  # not tried again
    assert optimized.problems == (problem,)
    assert optimized.vector_indexes == ()
    assert find_bad_indexes(table) == []
    table.run({"b": 1})  # begun anew
    assert table.check() is not None


def test_a_build_that_is_stopped_after_its_commit_counts(tmp_path: Path) -> None:
    table = ClipTable(tmp_path)
    upkeep = VectorUpkeep(commits_and_hangs)
    table.run({"a": 150}, vectors=upkeep)
    assert not upkeep.problems
    assert table.check() is not None


@pytest.mark.parametrize("step", ["vectors clips", "publish"])
def test_a_run_that_dies_at_a_build_loses_nothing(tmp_path: Path, step: str) -> None:
    table = ClipTable(tmp_path)
    table.run({"a": 60})
    writer = Writer(table.path, "d" * 32)
    table.commit(writer, {"b": 60})

    def die(reached: str) -> None:
        if reached == step:
            raise Died

    for _ in range(2):
        with pytest.raises(Died):
            optimize_index(table.path, failpoint=die, vectors=VectorUpkeep(make_here))
        assert table.check() is None
    optimize_index(table.path, vectors=VectorUpkeep(make_here))
    found = table.check()
    assert found is not None
    assert found.n_indexed == 120


@pytest.mark.parametrize(("n_new", "done"), [(600, "built anew"), (60, "extended")])
def test_a_change_that_fails_leaves_the_former_index(tmp_path: Path, n_new: int, done: str) -> None:
    table = ClipTable(tmp_path)
    table.run({"a": 150})
    upkeep = VectorUpkeep(breaks)
    table.run({"b": n_new}, vectors=upkeep)
    assert upkeep.problems == {
        "clips": f"the vector index of `clips` could not be {done}; it stays as it was, searches scan newer rows:"
        " ValueError: no luck"
    }
    found = table.check()
    assert found is not None
    assert (found.n_indexed, found.n_unindexed) == (150, n_new)


@pytest.mark.parametrize("how", ["lost", "cut", "overwritten"])
@pytest.mark.parametrize("segment", [0, 1])
@pytest.mark.parametrize("n_new", [0, 60, 900])
def test_a_damaged_index_is_built_anew(tmp_path: Path, how: str, segment: int, n_new: int) -> None:
    """By the next maintenance, whether it would have done nothing, extended the index, or trained it anew."""
    table = ClipTable(tmp_path)
    table.run({"a": 150})
    table.run({"b": 30})
    damage_vector_index(table.path, "clips", how, segment)
    assert find_bad_indexes(table) == ["clips: the index on vector cannot be read"]
    upkeep = VectorUpkeep(make_here)
    if n_new:
        table.run({"c": n_new}, vectors=upkeep)
    else:
        optimize_index(table.path, vectors=upkeep)
    [problem] = upkeep.problems.values()
    assert problem.startswith("the vector index of `clips` could not be read and was built anew: ")
    assert "\n" not in problem
    found = table.check()
    assert found is not None
    assert found.segments == (180 + n_new,)
    assert find_bad_indexes(table) == []
    table.run({"d": 60}, vectors=upkeep)  # such a table is not left alone
    assert [done.done for done in upkeep.done] == ["built", "extended"]


@pytest.mark.parametrize("way", ["optimize", "many fragments", "merge of segments"])
def test_an_index_with_one_damaged_partition_is_built_anew(
    tmp_path: Path, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A look at one partition does not meet it; whatever remaps or merges the index reads all of them."""
    monkeypatch.setattr(vector_index, "VECTORS_TO_INDEX", 3_000)
    table = ClipTable(tmp_path)
    for number in range(4):
        table.run({str(number): 800})
    damage_partition(table.path, "clips")
    upkeep = VectorUpkeep(make_here if way != "merge of segments" else make_limited)
    if way == "optimize":
        optimize_index(table.path, vectors=upkeep)
    elif way == "many fragments":
        monkeypatch.setattr(maintenance, "FRAGMENTS_BETWEEN", 2)
        table.run({"5": 1}, vectors=upkeep)
    else:
        table.run({"5": 2_000}, vectors=upkeep)
    [problem] = upkeep.problems.values()
    assert problem.startswith("the vector index of `clips` could not be read and was built anew: ")
    assert [done.done for done in upkeep.done] == ["built"]
    found = table.check()
    assert found is not None
    assert found.segments == (len(table.vectors),)
    assert find_bad_indexes(table) == []
    assert find_damage(clips(table), ALL_PARTITIONS) is None
    if way != "merge of segments":
        assert len(clips(table).get_fragments()) <= 2


def test_a_lost_data_file_is_no_reason_to_drop_an_index(tmp_path: Path) -> None:
    table = ClipTable(tmp_path)
    for number in range(2):
        table.run({str(number): 150})
    largest_file(table.path, "clips").unlink()
    with pytest.raises(EarshotError, match="the index is damaged"):
        optimize_index(table.path, vectors=VectorUpkeep(make_here))
    assert read_index(lance.dataset(journal.table_uri(table.path, "clips"))) is not None


def test_a_damaged_index_that_cannot_be_built_anew_is_dropped(tmp_path: Path) -> None:
    table = ClipTable(tmp_path)
    table.run({"a": 150})
    damage_vector_index(table.path, "clips")
    upkeep = VectorUpkeep(breaks)
    optimize_index(table.path, vectors=upkeep)
    assert upkeep.problems == {
        "clips": "the vector index of `clips` could not be built, searches scan: ValueError: no luck"
    }
    assert table.check() is None
    assert find_bad_indexes(table) == []


def test_a_damaged_index_of_few_rows_is_dropped(tmp_path: Path) -> None:
    table = ClipTable(tmp_path)
    table.run({"a": 150, "b": 10})
    damage_vector_index(table.path, "clips")
    upkeep = VectorUpkeep(make_here)
    table.run({"c": 1}, ("a",), vectors=upkeep)
    assert upkeep.problems["clips"].startswith(
        "the vector index of `clips` could not be read and was dropped, searches scan: "
    )
    assert table.check() is None


def test_a_store_that_does_not_answer_is_no_damage(tmp_path: Path) -> None:
    """Building anew may take hours."""
    table = ClipTable(tmp_path)
    table.run({"a": 150})
    said = "LanceError(IO): Generic S3 error: Error performing GET http://x/y in 9s - operation timed out"
    with pytest.raises(OSError, match="timed out"):
        find_damage(Unreachable(clips(table), OSError(said)))
    with pytest.raises(KeyError):
        find_damage(Unreachable(clips(table), KeyError("bug")))


def test_an_error_that_passes_is_no_damage(tmp_path: Path) -> None:
    table = ClipTable(tmp_path)
    table.run({"a": 150})
    fails_once = Unreachable(clips(table), RuntimeError("lance error: task 7 was cancelled"))
    fail = fails_once.to_table

    def search(**options: Any) -> Any:
        fails_once.to_table = clips(table).to_table
        return fail(**options)

    assert find_damage(fails_once) is not None
    fails_once.to_table = search
    assert find_damage(fails_once) is None


class Unreachable:
    """A table whose search raises an error, as if the engine had."""

    def __init__(self, table: Any, error: Exception) -> None:
        self.schema, self.describe_indices = table.schema, table.describe_indices
        self.to_table = fail_as_engine(error)


def test_an_index_that_has_lost_a_file_is_found_and_made_again(tmp_path: Path) -> None:
    table = ClipTable(tmp_path)
    table.run({"a": 150})
    damage_vector_index(table.path, "clips")
    assert find_bad_indexes(table) == ["clips: the index on vector cannot be read"]
    mark_damaged(table.path, [])
    assert find_bad_indexes(table) == []
    assert table.check() is not None


def test_an_earlier_state_has_the_index_of_that_time(tmp_path: Path) -> None:
    table = ClipTable(tmp_path)
    table.run({"a": 60})
    before, seq = dict(table.vectors), journal.read_published(table.path).seq
    table.run({"b": 60})
    assert table.check() is not None
    restore_index(table.path, seq)
    table.vectors = before
    del table.rows["b"]
    assert table.check() is None
    table.run({"c": 70})
    assert table.check() is not None


def test_an_object_store_holds_one(bucket: str, tmp_path: Path) -> None:
    table = ClipTable(f"{bucket}/{tmp_path.name}/index")
    upkeep = VectorUpkeep()
    table.run({"a": 150}, vectors=upkeep)
    table.run({"b": 30}, vectors=upkeep)
    assert not upkeep.problems
    found = table.check()
    assert found is not None
    assert found.n_unindexed == 0
    optimize_index(table.path, 0.0, vectors=upkeep)
    assert table.check() is not None


@pytest.mark.parametrize("how", ["lost", "cut", "overwritten"])
def test_a_damaged_index_in_an_object_store_is_built_anew(bucket: str, tmp_path: Path, how: str) -> None:
    table = ClipTable(f"{bucket}/{tmp_path.name}/index")
    table.run({"a": 150})
    damage_vector_index(table.path, "clips", how)
    upkeep = VectorUpkeep(make_here)
    optimize_index(table.path, vectors=upkeep)
    assert "was built anew: " in upkeep.problems["clips"]
    found = table.check()
    assert found is not None
    assert found.segments == (150,)
