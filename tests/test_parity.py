"""Float32 equals transformers' forward, and bfloat16 stays close to it: for the bundled model, and at full size."""

import copy
import dataclasses
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from jobs.bench.encoder import cosine, make_random_models, make_sounds, relative, run_plainly
from jobs.evaluate_tiny import CHECKPOINT, load, make_exam, measure
from pipeline.encode import load_audio_model, make_tower, resolve_precision
from pipeline.memory import keep_freed_memory
from pipeline.synth import draw_scene

LARGEST_DIFFERENCE = 1e-4
LARGEST_CHANGE = 0.01
LEAST_CLIP_COSINE, LEAST_FRAME_COSINE = 0.9995, 0.999


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with torch.inference_mode():
        yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def bundled() -> Any:
    return load_audio_model("earshot-tiny")


def scenes(n: int, seconds: float) -> torch.Tensor:
    rng = np.random.default_rng(11)
    return torch.from_numpy(np.stack([draw_scene(rng, seconds)[0] for _ in range(n)]))


def run(models: list[Any], sounds: torch.Tensor, precision: str) -> tuple[Any, Any]:
    """Through the tower of copies of the models, of which the last gives the frames."""
    taken = [copy.deepcopy(model) for model in models]
    clips, frames = make_tower(taken[0], taken[-1], "cpu", precision)(sounds)
    return clips.float().numpy(), frames.float().numpy()


def run_transformers(models: list[Any], sounds: torch.Tensor) -> tuple[Any, Any]:
    clips, frames = run_plainly(models, sounds)
    return clips.numpy(), frames.numpy()


def test_the_bundled_model_in_both_precisions(bundled: Any) -> None:
    for sounds in (scenes(3, 10.0), scenes(2, 0.4)):
        clips, frames = run_transformers([bundled], sounds)
        for found, expected in zip(run([bundled], sounds, "float32"), (clips, frames), strict=True):
            assert relative(found, expected) < LARGEST_DIFFERENCE
        rough_clips, rough_frames = run([bundled], sounds, "bfloat16")
        assert cosine(rough_clips, clips).min() > LEAST_CLIP_COSINE
        assert cosine(rough_frames, frames).mean() > LEAST_FRAME_COSINE


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_bundled_model_finds_and_localises_as_before(bundled: Any, precision: str) -> None:
    """Every figure of the held-out exam, by class too, in every precision, beside that of transformers' forward."""
    keep_freed_memory()
    model, tokenizer = load(CHECKPOINT)
    exam = make_exam(held_out=True)
    expected = measure(model, tokenizer, exam)
    taken = copy.deepcopy(bundled)
    quality = measure(model, tokenizer, exam, make_tower(taken, taken, "cpu", precision))
    for name, value in dataclasses.asdict(expected).items():
        assert getattr(quality, name) == pytest.approx(value, abs=LARGEST_CHANGE), name


@pytest.mark.slow
def test_two_models_of_full_size_that_share_their_codec_in_float32() -> None:
    models = list(make_random_models())
    sounds = torch.from_numpy(make_sounds(2, 0.8))
    expected = run_transformers(models, sounds)
    for found, right in zip(run(models, sounds, "float32"), expected, strict=True):
        assert relative(found, right) < LARGEST_DIFFERENCE


@pytest.mark.slow
def test_a_model_of_full_size_in_bfloat16() -> None:
    model, _ = make_random_models()
    sounds = torch.from_numpy(make_sounds(2, 0.8))
    clips, frames = run_transformers([model], sounds)
    rough_clips, rough_frames = run([model], sounds, "bfloat16")
    assert cosine(rough_clips, clips).min() > LEAST_CLIP_COSINE
    assert cosine(rough_frames, frames).mean() > LEAST_FRAME_COSINE


def test_the_encoder_is_measured_with_torch_and_transformers_alone() -> None:
    """What else the project depends on cannot be imported there; the tables have all ways and the parity."""
    others = ["ray", "lancedb", "lance", "pyarrow", "soundfile", "soxr", "av", "pydantic", "typer", "rich", "fsspec"]
    program = (
        f"import sys; sys.modules.update(dict.fromkeys({others}))\n"
        "from jobs.bench.encoder import main\n"
        "options = '--model earshot-tiny --seconds 0.8 --rounds 1 --threads 1 --profile'\n"
        "sys.exit(main(options.split()))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    rows = [line.split() for line in done.stdout.splitlines() if line.startswith(("transformers", "earshot"))]
    precisions = list(dict.fromkeys(["float32", resolve_precision("auto", "cpu")]))
    ways = [[way, precision, n] for way in ("transformers", "earshot") for precision in precisions for n in "12"]
    assert [row[:3] for row in rows] == ways
    assert all(float(row[-1]) < LARGEST_DIFFERENCE for row in rows if row[1] == "float32")
    assert "aten::" in done.stdout
