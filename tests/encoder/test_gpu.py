"""On a GPU, batches are measured, fit and come back in their places, and the tower matches transformers."""

import copy
import json
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from jobs.bench.encoder import load_models, main, make_random_models, run_plainly
from jobs.bench.sounds import make_sounds
from pipeline.encoder.batching import BATCHES_PER_CALL, WINDOW_SAMPLES, Batches
from pipeline.encoder.encoder import make_tower
from pipeline.encoder.parity import (
    LARGEST_DIFFERENCE,
    LEAST_CLIP_COSINE,
    LEAST_FRAME_COSINE,
    cosine,
    relative,
    without_tf32,
)
from pipeline.encoder.snake import fuse_snake, snake
from pipeline.grid import HOP_SAMPLES, Waveform

pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU"),
    # Torch's compiler recommends TF32; as an error, the warning would look like a broken compiler.
    pytest.mark.filterwarnings("ignore::UserWarning:torch"),
]


@pytest.fixture(scope="module")
def models() -> list[Any]:
    return list(make_random_models())


@pytest.fixture(scope="module")
def ours(models: list[Any]) -> Any:
    same = copy.deepcopy(models[0])
    tower = make_tower(same, same, "cuda", "float32")
    tower.compile()
    return tower


@pytest.fixture(autouse=True)
def all_memory() -> Iterator[None]:
    yield
    torch.cuda.set_per_process_memory_fraction(1.0)
    torch.cuda.empty_cache()


def make_windows(n_frames: list[int]) -> list[Waveform]:
    return [make_sounds(1, n * HOP_SAMPLES / 48_000)[0] * (i + 1) / len(n_frames) for i, n in enumerate(n_frames)]


def check_rows(batches: Batches, model: Any, windows: list[Waveform]) -> list[int]:
    """Check that each window gives the same in its place as alone. Returns how many of one length came together."""
    sizes, seen = [], set()
    for batch, (clips, frames) in batches.run(model.embed, windows):
        sizes.append(len(batch))
        seen |= set(batch)
        for k, i in enumerate(batch):
            alone_clips, alone_frames = model(torch.from_numpy(windows[i][None]).cuda())
            assert relative(clips[k], alone_clips[0].float().cpu().numpy()) < LARGEST_DIFFERENCE
            assert relative(frames[k], alone_frames[0].float().cpu().numpy()) < LARGEST_DIFFERENCE
    assert seen == set(range(len(windows)))
    assert sum(sizes) == len(windows)
    return sizes


def test_every_length_comes_back_in_its_place_from_measured_batches(ours: Any) -> None:
    batches = Batches("cuda")
    check_rows(batches, ours, make_windows([250] * 9 + [7, 1, 30, 7, 250, 120, 375, 375]))
    assert batches.windows is not None
    assert batches.windows > 1


def test_a_call_of_many_windows_is_several_batches(ours: Any) -> None:
    sizes = check_rows(Batches("cuda"), ours, make_windows([250] * 32))
    assert len(sizes) >= BATCHES_PER_CALL
    assert max(sizes) == 32 // BATCHES_PER_CALL


def test_batch_that_does_not_fit_is_halved(ours: Any) -> None:
    torch.cuda.empty_cache()
    sound = torch.zeros((1, WINDOW_SAMPLES), device="cuda")
    ours(sound)
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    ours(sound)
    needed = torch.cuda.max_memory_allocated() - before
    torch.cuda.empty_cache()
    _, total = torch.cuda.mem_get_info()
    torch.cuda.set_per_process_memory_fraction(min(1.0, (torch.cuda.memory_reserved() + 3.5 * needed) / total))
    batches = Batches("cuda", 16)
    check_rows(batches, ours, make_windows([250, 250, 375, 250, 250, 120, 7, 7] * 3))
    assert batches.windows is not None
    assert 1 <= batches.windows <= 4


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("length", [48, 50])  # rows of known and of unknown width
def test_snake_compiles_on_a_gpu(dtype: torch.dtype, length: int) -> None:
    fused = fuse_snake("cuda", dtype)
    assert fused is not snake
    x = torch.randn(3, length, 64, device="cuda").to(dtype)
    for scale in ((torch.rand(64, device="cuda") + 0.5, torch.rand(64, device="cuda")), None):
        found, expected = fused(x, scale), snake(x, scale)
        assert found.shape == expected.shape
        assert (found - expected).abs().max() < 64 * torch.finfo(dtype).eps


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("n_models", [1, 2])
@pytest.mark.parametrize("bundled", [False, True])
def test_tower_on_a_gpu_matches_transformers(models: list[Any], bundled: bool, n_models: int, precision: str) -> None:
    sounds = torch.from_numpy(make_sounds(2, 2.0)).cuda()
    if bundled:
        models = list(load_models("earshot-tiny"))
    plain = [copy.deepcopy(model).cuda() for model in models[:n_models]]
    with torch.inference_mode(), without_tf32():
        expected = [part.cpu().numpy() for part in run_plainly(plain, sounds)]
    taken = [copy.deepcopy(model) for model in models[:n_models]]
    tower = make_tower(taken[0], taken[-1], "cuda", precision)
    tower.compile()
    clips, frames = (part.float().cpu().numpy() for part in tower(sounds))
    if precision == "float32":
        assert relative(clips, expected[0]) <= LARGEST_DIFFERENCE
        assert relative(frames, expected[1]) <= LARGEST_DIFFERENCE
    else:
        assert cosine(clips, expected[0]).min() >= LEAST_CLIP_COSINE
        assert cosine(frames, expected[1]).mean() >= LEAST_FRAME_COSINE


def test_measurement_on_a_gpu_prints_all_ways_and_checks_parity(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--seconds", "2", "--batch", "2", "--rounds", "1", "--profile", "--json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    ways = [(row["way"], row["precision"], row["models"]) for row in rows if "way" in row]
    both = ["float32", "bfloat16"]
    plain = [("transformers", precision, n) for precision in both for n in (1, 2)]
    plain += [("transformers, cuDNN on", precision, 1) for precision in both]
    ours = [("earshot", 1), ("earshot", 2), ("earshot, from host memory", 1)]
    assert ways == plain + [(way, precision, n) for precision in both for way, n in ours]
    assert all(row["parity"] for row in rows if row.get("way", "").startswith("earshot"))
    assert [row["compiled"] for row in rows if "compiled" in row] == [True]
