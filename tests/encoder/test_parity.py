"""Float32 matches transformers' forward, and bfloat16 is close to it, for the bundled model and at full size."""

import copy
import dataclasses
import inspect
import json
from typing import Any

import numpy as np
import pytest
import torch
from transformers.models.pe_audio import modeling_pe_audio
from transformers.models.pe_audio.modeling_pe_audio import PeAudioEncoder

from jobs.bench import encoder, profile
from jobs.bench.encoder import Speed, make_random_models, run_plainly
from jobs.bench.sounds import make_sounds
from jobs.tiny.evaluate import CHECKPOINT, load, make_exam, measure
from jobs.tiny.synth import draw_scene
from pipeline.encoder.encoder import load_audio_model, make_tower
from pipeline.encoder.malloc import keep_freed_memory
from pipeline.encoder.parity import LARGEST_DIFFERENCE, LEAST_CLIP_COSINE, LEAST_FRAME_COSINE, cosine, relative
from pipeline.encoder.snake import fuse_snake, snake

LARGEST_CHANGE = 0.01
LARGEST_CHANGE_OF_A_CLASS = 0.02
"""One of the 90 places in a class's precision is worth 0.011, one of its 60 events 0.017."""

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def bundled() -> Any:
    return load_audio_model("earshot-tiny")


def scenes(n: int, seconds: float) -> torch.Tensor:
    rng = np.random.default_rng(11)
    return torch.from_numpy(np.stack([draw_scene(rng, seconds)[0] for _ in range(n)]))


def vary(model: Any, codec: bool) -> Any:
    """A copy with other weights behind its codec, and with ``codec`` in the codec, too."""
    torch.manual_seed(5)
    other = copy.deepcopy(model)
    for name, weight in other.named_parameters():
        if codec or not any(part in name for part in ("dac_encoder", "bottleneck")):
            weight.mul_(1 + 0.1 * torch.randn_like(weight))
    return other


KINDS = ("one model", "two that share a codec", "two with a codec each")


def choose(kind: str, model: Any, sharing: Any, separate: Any) -> list[Any]:
    return {KINDS[0]: [model], KINDS[1]: [model, sharing], KINDS[2]: [model, separate]}[kind]


def make(models: list[Any], precision: str, whole: bool = False) -> Any:
    """The tower of copies of the models, the last of which gives the frames.

    Args:
        whole: as on a GPU, without tiles and with the compiled Snake.
    """
    taken = [copy.deepcopy(model) for model in models]
    tower = make_tower(taken[0], taken[-1], "cpu", precision)
    tower.compile()  # for full size, where there is AVX-512
    if whole:
        for codec in {tower.codec, tower.frame_codec}:
            codec.tile_bytes, codec._snake = None, fuse_snake("cpu", getattr(torch, precision), "eager")
            assert codec._snake is not snake
    return tower


def run_transformers(models: list[Any], sounds: torch.Tensor) -> tuple[Any, Any]:
    clips, frames = run_plainly(models, sounds)
    return clips.numpy(), frames.numpy()


def check(tower: Any, sounds: torch.Tensor, expected: tuple[Any, Any], precision: str) -> None:
    clips, frames = (part.float().numpy() for part in tower(sounds))
    assert clips.shape == expected[0].shape
    assert frames.shape == expected[1].shape
    if precision == "float32":
        assert relative(clips, expected[0]) <= LARGEST_DIFFERENCE
        assert relative(frames, expected[1]) <= LARGEST_DIFFERENCE
    else:
        assert cosine(clips, expected[0]).min() >= LEAST_CLIP_COSINE
        assert cosine(frames, expected[1]).mean() >= LEAST_FRAME_COSINE


@pytest.fixture(scope="module", params=KINDS)
def known(request: pytest.FixtureRequest, bundled: Any, one_thread: None) -> tuple[str, list[Any], list[Any]]:
    """A kind of models, and some sounds with what transformers makes of them."""
    models = choose(request.param, bundled, vary(bundled, codec=False), vary(bundled, codec=True))
    return (
        request.param,
        models,
        [(sounds, run_transformers(models, sounds)) for sounds in (scenes(3, 10.0), scenes(2, 0.4))],
    )


@pytest.mark.parametrize("whole", [False, True], ids=["as on a CPU", "as on a GPU"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_tower_of_the_bundled_model_matches_transformers(known: Any, precision: str, whole: bool) -> None:
    kind, models, cases = known
    tower = make(models, precision, whole)
    assert (tower.codec is tower.frame_codec) == (kind != KINDS[2])
    for sounds, expected in cases:
        check(tower, sounds, expected, precision)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_bundled_model_finds_and_localises_as_before(bundled: Any, precision: str) -> None:
    """Compare every figure of the held-out exam, also by class, with that of transformers' forward."""
    keep_freed_memory()
    model, tokenizer = load(CHECKPOINT)
    exam = make_exam(held_out=True)
    expected = measure(model, tokenizer, exam)
    taken = copy.deepcopy(bundled)
    quality = measure(model, tokenizer, exam, make_tower(taken, taken, "cpu", precision))
    for name, value in dataclasses.asdict(expected).items():
        by_class = precision == "bfloat16" and isinstance(value, dict)
        largest = LARGEST_CHANGE_OF_A_CLASS if by_class else LARGEST_CHANGE
        assert getattr(quality, name) == pytest.approx(value, abs=largest), name


@pytest.fixture(scope="module")
def full_size() -> dict[str, list[Any]]:
    model, sharing = make_random_models()
    return {kind: choose(kind, model, sharing, vary(sharing, codec=True)) for kind in KINDS}


without_compiler = pytest.mark.filterwarnings("ignore:encoding is slower than it could be:RuntimeWarning")


@pytest.mark.slow
@without_compiler
@pytest.mark.parametrize("kind", KINDS)
def test_tower_of_full_size_matches_transformers(full_size: dict[str, list[Any]], kind: str) -> None:
    sounds = torch.from_numpy(make_sounds(2, 0.8))
    expected = run_transformers(full_size[kind], sounds)
    for precision in ("float32", "bfloat16"):
        for whole in (False, True):
            check(make(full_size[kind], precision, whole), sounds, expected, precision)


@pytest.mark.slow
@without_compiler
def test_tower_of_full_size_matches_transformers_on_a_whole_window(full_size: dict[str, list[Any]]) -> None:
    keep_freed_memory()
    models, sounds = full_size[KINDS[0]], torch.from_numpy(make_sounds(1, 10.0))
    expected = run_transformers(models, sounds)
    for precision in ("float32", "bfloat16"):
        check(make(models, precision), sounds, expected, precision)


def a_speed(precision: str, difference: float = 0.0, clip: float = 1.0, frame: float = 1.0) -> Speed:
    return Speed("earshot", precision, 1, 1.0, 1.0, 1.0, clip, frame, difference)


@pytest.mark.parametrize(
    ("speed", "parity"),
    [
        (a_speed("float32", 9e-5), True),
        (a_speed("float32", 1.1e-4), False),
        (a_speed("float32", float("nan")), False),
        (a_speed("bfloat16", 1.0, 0.9996, 0.9991), True),
        (a_speed("bfloat16", 0.0, 0.9994, 1.0), False),
        (a_speed("bfloat16", 0.0, 1.0, 0.9989), False),
        (a_speed("bfloat16", 0.0, float("nan"), 1.0), False),
    ],
)
def test_parity_needs_close_embeddings(speed: Speed, parity: bool) -> None:
    assert speed.parity == parity


OPTIONS = ["--model", "earshot-tiny", "--device=cpu", "--seconds", "0.8", "--rounds", "1", "--threads", "1", "--json"]


def test_the_measurement_fails_and_names_the_row_without_parity(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    normalise = torch.nn.functional.rms_norm  # transformers writes it out
    monkeypatch.setattr(torch.nn.functional, "rms_norm", lambda x, *rest: normalise(x, *rest) * 1.001 + 0.01)
    assert encoder.main(OPTIONS) == 1
    shown = capsys.readouterr()
    rows = [row for row in map(json.loads, shown.out.splitlines()) if "way" in row]
    assert all(row["parity"] for row in rows if row["precision"] == "float32" and row["way"].startswith("transformers"))
    assert not any(row["parity"] for row in rows if row["precision"] == "float32" and row["way"].startswith("earshot"))
    assert "not close enough to transformers in float32: 1 in a batch, earshot, float32, models: 1" in shown.err


def test_measurement_tells_what_does_not_fit_and_goes_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    forward = PeAudioEncoder.forward

    def run_short_of_memory(self: Any, values: torch.Tensor, **others: Any) -> Any:
        if len(values) > 1:
            raise torch.OutOfMemoryError("out of memory")
        return forward(self, values, **others)

    monkeypatch.setattr(PeAudioEncoder, "forward", run_short_of_memory)
    assert encoder.main([*OPTIONS, "--batch", "2", "1", "--profile"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["batch"] for row in rows if row.get("fits") is False] == [2]
    assert {row["batch"] for row in rows if "way" in row} == {1}
    assert all(row["parity"] for row in rows if row.get("way", "").startswith("earshot"))
    profile = [row for row in rows if row.get("part") == "profile"]
    assert sum(row["share"] for row in profile if "stage" in row) == pytest.approx(1, abs=0.2)
    assert sum(row["share"] for row in profile if "operation" in row) <= 1.0001
    assert profile[-1].keys() == {"machine", "part", "sounds", "operation", "self_s", "share"}
    assert encoder.main([*OPTIONS, "--batch", "2", "3"]) == 1  # nothing was measured
    assert [json.loads(line)["error"] for line in capsys.readouterr().out.splitlines()] == ["out of memory"] * 2


def test_run_with_cudnn_keeps_it_on() -> None:
    def forward(sounds: Any) -> Any:
        with torch.backends.cudnn.flags(enabled=False):
            return torch.backends.cudnn.enabled, sounds

    assert torch.backends.cudnn.enabled
    assert encoder.run_with_cudnn(forward, 1) == (True, 1)
    assert forward(1) == (False, 1)
    # Otherwise the row would measure nothing new.
    assert "backends.cudnn.flags(enabled=False)" in inspect.getsource(modeling_pe_audio)


def test_profile_uses_a_batch_that_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    run_short_of_memory_from(monkeypatch, 3)
    monkeypatch.setitem(profile.PROFILED, "cpu", 8)
    clip, frame = encoder.load_models("earshot-tiny")
    assert {row["sounds"] for row in profile.profile(clip, frame, "cpu", "float32", 0.4)} == {2}


def run_short_of_memory_from(monkeypatch: pytest.MonkeyPatch, n: int) -> None:
    convolve = torch.nn.functional.conv2d

    def run(images: torch.Tensor, *others: Any, **more: Any) -> torch.Tensor:
        if len(images) >= n:
            raise torch.OutOfMemoryError("out of memory")
        return convolve(images, *others, **more)

    monkeypatch.setattr(torch.nn.functional, "conv2d", run)
