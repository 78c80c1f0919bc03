"""How a machine is shared between the stages. The rest of the wiring is tested with Ray, in tests/integration."""

import pytest

from pipeline.config import EncodeConfig
from pipeline.errors import UsageError
from pipeline.flow import share_machine

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
def test_cores_are_shared_and_one_is_left_to_decoding(resources: dict[str, float], actors: int, threads: int) -> None:
    found, each, wants = share_machine(resources, EncodeConfig())
    assert (found, each) == (actors, threads)
    assert 0 < wants["num_cpus"] < 1  # a whole core would let Ray fuse encoder and decoder
    assert found * wants["num_cpus"] + 1.0 + 0.1 <= resources["CPU"]  # beside a decode and a write task


def test_every_gpu_gets_an_encoder_unless_the_cpu_is_asked_for() -> None:
    resources = {"CPU": 16.0, "GPU": 4.0, "memory": 100.0 * GIB}
    actors, _, wants = share_machine(resources, EncodeConfig())
    assert (actors, wants["num_gpus"], wants["num_cpus"]) == (4, 1, 0)
    actors, _, wants = share_machine(resources, EncodeConfig(device="cpu", actors=3))
    assert actors == 3
    assert "num_gpus" not in wants


def test_more_encoders_than_gpus_or_cores_still_fit() -> None:
    for actors in (1, 2, 3, 5, 8):
        _, _, wants = share_machine({"CPU": 16.0, "GPU": 2.0}, EncodeConfig(actors=actors))
        assert actors <= 2 * (1 // wants["num_gpus"])  # what Ray can place: an encoder lies on one GPU
        _, _, wants = share_machine({"CPU": 2.0, "memory": 4.0 * GIB}, EncodeConfig(actors=40 * actors))
        assert 40 * actors * wants["num_cpus"] + 1.0 + 0.1 <= 2.0


def test_a_gpu_that_is_not_there_is_refused() -> None:
    with pytest.raises(UsageError, match="device: cuda"):
        share_machine({"CPU": 4.0, "memory": 8.0 * GIB}, EncodeConfig(device="cuda"))
