"""How the stages share a machine or a cluster."""

from typing import Any

import pyarrow as pa
import pytest

from pipeline import schema
from pipeline.config import EncodeConfig
from pipeline.errors import UsageError
from pipeline.grid import Grid
from pipeline.run.resources import (
    CALL_S,
    CALLS_IN_STORE,
    CALLS_PER_ENCODER,
    Encoders,
    fit_block_bytes,
    fit_calls_in_flight,
    fit_rows_per_call,
    fit_task,
    fit_windows_per_block,
    limit_encoders,
    share_machine,
    split_into_tables,
)

GIB = 2**30


@pytest.mark.parametrize(
    ("resources", "actors", "threads"),
    [
        ({"CPU": 2.0, "memory": 15.0 * GIB}, 2, 1),
        ({"CPU": 8.0, "memory": 10.0 * GIB}, 2, 4),
        ({"CPU": 64.0, "memory": 400.0 * GIB}, 64, 1),
        ({"CPU": 4.0, "memory": 1.0 * GIB}, 1, 4),
    ],
)
def test_encoders_leave_a_core_to_decoding(resources: dict[str, float], actors: int, threads: int) -> None:
    found = share_machine(resources, EncodeConfig())
    assert (found.least, found.most, found.threads) == (actors, actors, threads)
    assert 0 < found.ray_options["num_cpus"] < 1  # a whole core would let Ray fuse encoder and decoder
    assert actors * found.ray_options["num_cpus"] + 1.0 + 0.1 <= resources["CPU"]  # beside a decode and a write task
    assert found.fit(resources) == actors


def test_every_gpu_gets_an_encoder_unless_the_cpu_is_asked_for() -> None:
    resources = {"CPU": 16.0, "GPU": 4.0, "memory": 100.0 * GIB}
    found = share_machine(resources, EncodeConfig())
    assert (found.least, found.most, found.ray_options) == (4, 4, {"num_gpus": 1, "num_cpus": 0})
    found = share_machine(resources, EncodeConfig(device="cpu", actors=3))
    assert found.least == 3
    assert "num_gpus" not in found.ray_options


def test_encoders_share_a_gpu_if_asked() -> None:
    resources = {"CPU": 16.0, "GPU": 2.0, "memory": 100.0 * GIB}
    found = share_machine(resources, EncodeConfig(actors_per_gpu=4))
    assert (found.least, found.most, found.ray_options["num_gpus"]) == (8, 8, 0.25)
    assert share_machine(resources, EncodeConfig(actors_per_gpu=4, actors=2)).ray_options["num_gpus"] == 0.25


def test_cluster_may_grow_from_no_gpu() -> None:
    config = EncodeConfig(device="cuda", actors=2, max_actors=16, actors_per_gpu=2)
    with pytest.raises(UsageError, match="device: cuda"):  # one's own machine does not
        share_machine({"CPU": 4.0}, config)
    found = share_machine({"CPU": 4.0}, config, may_grow=True)
    assert (found.least, found.most, found.ray_options) == (2, 16, {"num_gpus": 0.5, "num_cpus": 0})
    assert [found.fit({"CPU": 4.0, "GPU": gpus}) for gpus in (0.0, 1.0, 3.0, 8.0, 20.0)] == [0, 2, 6, 16, 16]
    found = share_machine({"CPU": 2.0}, EncodeConfig(max_actors=5))
    assert (found.least, found.most, found.threads) == (1, 5, 1)
    assert found.ray_options["num_cpus"] + 1.0 + 0.1 <= 2.0
    assert found.fit({"CPU": 2.0}) == 2
    assert found.fit({"CPU": 200.0}) == 5


def test_cluster_that_lost_gpus_begins_with_the_encoders_that_fit() -> None:
    config = EncodeConfig(device="cuda", actors=3, max_actors=6)
    for gpus, least in ((4.0, 3), (2.0, 2), (1.0, 1), (0.0, 3)):
        found = share_machine({"CPU": 4.0, "GPU": gpus}, config, may_grow=True)
        assert (found.least, found.most) == (least, 6)


def test_more_encoders_than_gpus_or_cores_still_fit() -> None:
    for actors in (1, 2, 3, 5, 8):
        ray_options = share_machine({"CPU": 16.0, "GPU": 2.0}, EncodeConfig(actors=actors)).ray_options
        assert actors <= 2 * (1 // ray_options["num_gpus"])  # what Ray can place: an encoder lies on one GPU
        ray_options = share_machine({"CPU": 2.0, "memory": 4.0 * GIB}, EncodeConfig(actors=40 * actors)).ray_options
        assert 40 * actors * ray_options["num_cpus"] + 1.0 + 0.1 <= 2.0


def test_missing_gpu_is_refused() -> None:
    with pytest.raises(UsageError, match="device: cuda"):
        share_machine({"CPU": 4.0, "memory": 8.0 * GIB}, EncodeConfig(device="cuda"))


def plan_batches(n: int, seconds: float, *, alone: bool = False) -> pa.Table:
    """PLANNED: ``n`` batches of one wav file of about ``seconds`` each."""
    audio = {"estimated_s": seconds, "uris": ["/in/a.wav"], "modified_ns": [1], "offsets": [None]}
    row = {"batch_id": "b", "audios": [audio], "part": {"first": 0, "stop": None} if alone else None}
    return pa.Table.from_pylist([row] * n, schema=schema.PLANNED)


@pytest.mark.parametrize(
    ("n", "cores", "together"), [(1, 2, 1), (31, 2, 1), (64, 2, 4), (5_000, 2, 16), (5_000, 64, 9)]
)
def test_task_decodes_more_batches_if_there_are_enough_for_all_cores(n: int, cores: int, together: int) -> None:
    assert fit_task(plan_batches(n, 60.0), cores) == together


def test_task_decodes_few_batches_on_a_cluster() -> None:
    assert fit_task(plan_batches(5_000, 60.0), 2, may_grow=True) == 4
    assert fit_task(plan_batches(5, 60.0), 2, may_grow=True) == 1


def test_batch_that_is_tried_alone_has_a_task_of_its_own() -> None:
    assert fit_task(plan_batches(5_000, 60.0, alone=True), 2) == 1


def test_no_call_waits_for_an_encoder_that_may_be_killed() -> None:
    assert [fit_calls_in_flight(plan_batches(50, 60.0, alone=alone)) for alone in (False, True)] == [2, 1]


def test_long_recordings_are_set_apart_and_the_others_share_tables() -> None:
    long, short = plan_batches(2, 10_000.0), plan_batches(40, 60.0)
    mixed = pa.concat_tables([long.slice(0, 1), short, long.slice(1)])
    numbered = mixed.set_column(0, "batch_id", pa.array([f"{number:02d}" for number in range(42)]))
    tables = split_into_tables(numbered, n_together=2)
    assert [table.num_rows for table in tables] == [1, 1, 16, 16, 8]
    found = [batch_id for table in tables for batch_id in table["batch_id"].to_pylist()]
    assert found == ["00", "41", *(f"{number:02d}" for number in range(1, 41))]
    assert [table.num_rows for table in split_into_tables(long, n_together=2)] == [1, 1]


def test_blocks_are_smaller_for_little_audio_on_cpus() -> None:
    two = Encoders(2, 2, 1, {"num_cpus": 0.4})
    found = [fit_windows_per_block(plan_batches(n, 30.0), two, Grid()) for n in (1, 43, 100, 1_000, 10_000)]
    assert found == [2, 2, 4, 32, 32]
    found = [fit_windows_per_block(plan_batches(3, seconds), two, Grid()) for seconds in (10.0, 2_000.0, 100_000.0)]
    assert found == [2, 9, 32]
    assert fit_windows_per_block(plan_batches(3, 10.0), Encoders(2, 2, 1, {"num_gpus": 1, "num_cpus": 0}), Grid()) == 32


@pytest.mark.parametrize("n_windows", [2, 32])
def test_ray_leaves_blocks_alone_that_are_nearly_full(n_windows: int) -> None:
    """As Ray's output buffer does it: smaller tables are joined, and those half as large again are cut."""
    full = n_windows * 10 * 48_000 * 4
    target = fit_block_bytes(n_windows, Grid())
    assert target < 0.76 * full
    assert full < 1.5 * target


def test_call_on_a_gpu_has_many_rows_and_every_encoder_several_calls() -> None:
    def fit(n_batches: int, seconds: float, n_encoders: int, **options: Any) -> int | None:
        encoders = Encoders(n_encoders, n_encoders, 1, {"num_gpus": 1, "num_cpus": 0})
        return fit_rows_per_call(plan_batches(n_batches, seconds), encoders, Grid(), **options)

    assert fit(5_000, 10.0, 2) == 2 * CALL_S / 10  # a row for the window, and one for the file
    assert fit(5_000, 5.0, 2) == 2 * CALL_S / 5
    assert fit(100, 3_600.0, 2) == int(CALL_S * 376 / 3_600)
    assert fit(1_600, 10.0, 2) == 2 * 1_600 / CALLS_PER_ENCODER / 2  # each encoder gets its share of a small corpus
    assert fit(10, 10.0, 2) == 8  # but no less than keeps a GPU busy
    assert fit(4, 300.0, 2) == 32  # nor less than a block, which one encoder gets anyway
    assert fit(5_000, 10.0, 2, store_bytes=CALLS_IN_STORE * 2 * 1000 * 48_000 * 4) == 200  # 1,000 s fit the store


def test_blocks_are_joined_neither_on_cpus_nor_where_one_may_kill_its_encoder() -> None:
    gpus, cpus = Encoders(2, 2, 1, {"num_gpus": 1, "num_cpus": 0}), Encoders(2, 2, 1, {"num_cpus": 0.4})
    assert fit_rows_per_call(plan_batches(50, 10.0), cpus, Grid()) is None
    assert fit_rows_per_call(plan_batches(50, 10.0, alone=True), gpus, Grid()) == 1


def test_no_more_encoders_than_blocks() -> None:
    """One recording of some minutes has work for both cores, though it is one batch."""

    def limit(n_batches: int, seconds: float, n_encoders: int) -> tuple[int, int]:
        found = limit_encoders(
            plan_batches(n_batches, seconds), Encoders(n_encoders, n_encoders, 1, {"num_cpus": 0.4}), Grid()
        )
        return found.least, found.most

    assert limit(1, 1_200.0, 2) == (2, 2)
    assert limit(1, 10.0, 2) == (1, 1)
    assert limit(3, 1.0, 8) == (3, 3)
    assert limit(1, 200.0, 64) == (10, 10)
